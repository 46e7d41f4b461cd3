import { hash } from 'node:crypto';
import { identifyProcess } from '../process-identity.ts';

const TAG_DIGITS = 16;

/** The start of a name that tells which process made something, so that a later one can sweep what a killed one left. */
export function ownerTag(pid: number = process.pid): string {
  return `job-${pid}-${startOf(pid)}`;
}

/** Whether a name was made with `ownerTag` by a process that has gone. */
export function ownerIsGone(name: string): boolean {
  const [, pid, start] = /^job-(\d+)-([0-9a-f]+)/.exec(name) ?? [];
  return pid !== undefined && startOf(Number(pid)) !== start;
}

function startOf(pid: number): string {
  return hash('sha256', identifyProcess(pid)?.startTime ?? 'gone').slice(0, TAG_DIGITS);
}
