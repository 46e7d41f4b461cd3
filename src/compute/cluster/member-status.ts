import { MillraceError } from '../../errors.ts';
import type { JobReason } from '../../host/index.ts';
import type { Checkpoint } from './checkpoints.ts';
import { SEATS_MAX } from './member-list.ts';
import type { ProcessState } from './replacement.ts';

/** What a machine says of its part. */
export interface MemberStatus {
  seat: number;
  /** Of the list by which it runs; 0 before the first. */
  version: number;
  wireguard: 'kernel' | 'userspace';
  processes: ProcessState[];
  /** Milliseconds since each peer was heard through the mesh, by seat. */
  heardMs: Record<number, number>;
  newest: Checkpoint | undefined;
  /** It cannot go on. */
  isLeaving: boolean;
  /** The latest that went wrong, for people. */
  trouble: string | undefined;
}

const PROCESSES_MAX = 4_096;
/** Machines that were replaced may still be named. */
const PEERS_MAX = 4_096;
const TEXT_MAX = 500;
const REASONS: Record<JobReason, true> = {
  completed: true,
  failed: true,
  signalled: true,
  'memory-exceeded': true,
  'processes-exceeded': true,
  'disk-exceeded': true,
  'wall-exceeded': true,
  'output-exceeded': true,
  'artefacts-refused': true,
  cancelled: true,
};

/**
 * Reads what a machine says of its part from untrusted JSON. That it is true is not checked: of other machines' ranks it has nothing to say, and of
 * its own it is believed as its lease's supplier is.
 * @throws bad-cluster-answer
 */
export function parseMemberStatus(value: unknown): MemberStatus {
  const { seat, version, wireguard, processes, heardMs, newest, isLeaving, trouble } = recordOf(value);
  if (wireguard !== 'kernel' && wireguard !== 'userspace') throw badAnswer('wireguard');
  if (!Array.isArray(processes) || processes.length > PROCESSES_MAX) throw badAnswer('processes');
  const heard = Object.entries(recordOf(heardMs));
  if (heard.length > PEERS_MAX) throw badAnswer('heardMs');
  return {
    seat: wholeOf(seat, 'seat', SEATS_MAX),
    version: wholeOf(version, 'version'),
    wireguard,
    processes: processes.map(processOf),
    heardMs: Object.fromEntries(heard.map(([peer, ms]) => [wholeOf(Number(peer), 'heardMs', SEATS_MAX), millisecondsOf(ms)])),
    newest: newest === undefined ? undefined : checkpointOf(newest),
    isLeaving: isLeaving === true,
    trouble: textOf(trouble),
  };
}

/** Reads a piece of a process's log from untrusted JSON. @throws bad-cluster-answer */
export function parseLogPiece(value: unknown): { text: string; next: number } {
  const { text, next } = recordOf(value);
  if (typeof text !== 'string') throw badAnswer('text');
  return { text, next: wholeOf(next, 'next') };
}

/** Reads how a command in a process's sandbox ended from untrusted JSON. @throws bad-cluster-answer */
export function parseExecResult(value: unknown): { exitCode: number; output: string } {
  const { exitCode, output } = recordOf(value);
  if (typeof output !== 'string') throw badAnswer('output');
  return { exitCode: wholeOf(exitCode, 'exitCode', 255), output };
}

function processOf(value: unknown): ProcessState {
  const { rank, state, reason, exitCode, detail } = recordOf(value);
  if (state !== 'idle' && state !== 'running' && state !== 'ended') throw badAnswer('state');
  const process: ProcessState = { rank: wholeOf(rank, 'rank', PROCESSES_MAX), state };
  if (state !== 'ended') return process;
  if (typeof reason !== 'string' || !Object.hasOwn(REASONS, reason)) throw badAnswer('reason');
  return {
    ...process,
    reason: reason as JobReason,
    exitCode: exitCode === undefined ? undefined : wholeOf(exitCode, 'exitCode', 255),
    detail: textOf(detail),
  };
}

function checkpointOf(value: unknown): Checkpoint {
  const { name, cid, sizeBytes } = recordOf(value);
  if (typeof name !== 'string' || typeof cid !== 'string') throw badAnswer('newest');
  return { name: name.slice(0, TEXT_MAX), cid: cid.slice(0, TEXT_MAX), sizeBytes: wholeOf(sizeBytes, 'sizeBytes') };
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value.slice(0, TEXT_MAX) : undefined;
}

function wholeOf(value: unknown, field: string, max = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > max) throw badAnswer(field);
  return value;
}

function millisecondsOf(value: unknown): number {
  if (typeof value !== 'number' || !(value >= 0)) throw badAnswer('heardMs');
  return value;
}

function recordOf(value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw badAnswer('its form');
}

/** An answer of a cluster's node that says nothing. */
export function badAnswer(field: string): MillraceError {
  return new MillraceError('bad-cluster-answer', {
    actor: 'peer',
    message: `The answer of a cluster’s machine is wrong: ${field}`,
    values: { field },
    hint: 'A machine that goes on like this counts as lost, and is replaced.',
  });
}
