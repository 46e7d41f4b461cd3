import { existsSync, readFileSync } from 'node:fs';
import { bytesToHex, type Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { specHash } from '../spec/job-spec.ts';
import { type Commitment, commitStates } from '../verify/commitment.ts';
import type { JobFolders, JobRecords } from './job-records.ts';

const HASH_BYTES = 32;

/** Keeps the hashes of a run's states: with the specification they are the whole commitment. */
export function keepStateHashes({ stateHashes }: JobFolders, { leaves }: Commitment): void {
  writeFileDurably(stateHashes, Buffer.from(leaves.map(({ stateHash }) => stateHash.slice(2)).join(''), 'hex'));
}

/** A provider's commitment to a job of its own, made again; undefined for a job that has none. */
export function commitmentOf(records: JobRecords, jobId: Hex): Commitment | undefined {
  if (records.find(jobId)?.result === undefined) return undefined;
  const path = records.folders(jobId).stateHashes;
  if (!existsSync(path)) return undefined;
  const hashes = readFileSync(path);
  const count = hashes.length / HASH_BYTES;
  const stateHashes = Array.from({ length: count }, (_, at) => bytesToHex(hashes.subarray(at * HASH_BYTES, (at + 1) * HASH_BYTES)));
  return commitStates(specHash(records.spec(jobId)), stateHashes);
}
