import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../../durable-file.ts';
import { BENCHMARK_MODULE } from './benchmark-module.ts';

/** SHA-256 of what the self-test's module gives after four segments, on every machine that calculates as all do. */
export const SELF_TEST_ANSWER = '34146260fe88f09ce076e2ce7f486963e83e3bda37c3b3d7b9886fe0bd35431e';

/** Puts the self-test's module, the one that machines are measured with, into a folder; gives its path and the name that a job has for it. */
export function writeSelfTest(folder: string): { source: string; path: string } {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'self-test.wasm');
  writeFileDurably(path, Buffer.from(BENCHMARK_MODULE));
  return { source: `sha256:${createHash('sha256').update(BENCHMARK_MODULE).digest('hex')}`, path };
}
