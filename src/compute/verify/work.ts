import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import { type Artefact, encodeStrictInput, type StrictProgram } from '../../host/index.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import type { JobEnd } from './canonical-output.ts';
import type { Commitment } from './commitment.ts';

/** A job with all that it needs on this machine. */
export interface JobWork {
  spec: JobSpec;
  /** The module or image that `spec.program.source` names; the caller has verified its bytes. Undefined for a command. */
  programPath: string | undefined;
  /** Where the inputs lie, each at its path; undefined for none. */
  inputFolder: string | undefined;
}

/** A job that was run, ready to be committed to. */
export interface SegmentRun {
  commitment: Commitment;
  outputDigest: Hex;
  end: JobEnd;
  /** Which limit ended it, in the words of this machine; no part of the result. */
  reason?: string;
  /** The outputs: files under their CIDs in the folder that was given. */
  artefacts: Artefact[];
  /** Bytes that its states take on disk. */
  statesBytes: number;
}

/** What a segment gave that was run again. */
export interface Replay {
  /** Hash of the state that it began with: the one that was handed over, or state 0 as the specification makes it. */
  startHash: Hex;
  endHash: Hex;
  /** After the last segment; of fingerprints never, since honest outputs differ. */
  outputDigest: Hex | undefined;
}

/**
 * Instructions that a second of a strict job stands for: few, so that nobody can write a job whose fuel lasts longer than its provider has time. The
 * slowest that was found, scattered stores, take 5 ns each over 64 MiB and 15 ns over 1 GiB; an addition takes 0.3 ns (2 cores under a load of 8).
 */
const FUEL_PER_SECOND = 100_000_000n;
/** What a machine may take for a strict job, in times of its seconds. */
const STRICT_WORK_TIMES = 2;
/** How long one segment is waited for, likewise. It decides nothing: a strict job's time limit is its fuel. */
const STRICT_PATIENCE_TIMES = 4;
const PATIENCE_SECONDS_MAX = 86_400;
/** Faults of a program or of its inputs: the same on every machine. */
const UNFIT: readonly string[] = ['bad-image', 'bad-job', 'bad-work'];
const WASM_PAGE_BYTES = 65_536;
const STRICT_MEMORY_BYTES_MAX = 2 ** 30;
const INPUT_FILES_MAX = 10_000;
const DEPTH_MAX = 32;

/**
 * A strict job as its engine takes it. Memory: the limit rounded down to 64 KiB, at most 1 GiB. Fuel of a segment: the job's seconds times 10⁸
 * instructions, shared equally among its segments. Input: `argv`, the seed as eight bytes (little end first), the files sorted by path.
 * @throws bad-work
 */
export async function strictProgram({ spec, programPath, inputFolder }: JobWork): Promise<StrictProgram> {
  if (programPath === undefined) throw badWork('a strict job is a module');
  const memoryBytes = strictMemoryBytes(spec);
  const seed = Buffer.alloc(8);
  seed.writeBigUInt64LE(BigInt(spec.seed));
  const files = inputFolder === undefined ? [] : await readFiles(inputFolder, memoryBytes);
  const segments = BigInt(spec.segments);
  return {
    module: await readFile(programPath),
    input: encodeStrictInput({ argv: spec.argv, seed, files }),
    segments: spec.segments,
    limits: {
      memoryBytes,
      fuelPerSegment: (BigInt(spec.limits.wallSeconds) * FUEL_PER_SECOND + segments - 1n) / segments,
      wallSeconds: Math.min(STRICT_PATIENCE_TIMES * spec.limits.wallSeconds, PATIENCE_SECONDS_MAX),
      outputBytes: spec.limits.outputBytes,
    },
  };
}

/** Seconds that a machine may take for the work of a job, whatever its author made of it; a provider that runs it has so long, and some to spare. */
export function workSeconds({ determinism, limits }: JobSpec): number {
  return determinism === 'wasm-strict' ? STRICT_WORK_TIMES * limits.wallSeconds : limits.wallSeconds;
}

/** Bytes that the states of a strict job take at most. */
export function statesBytesMax(spec: JobSpec): number {
  return (spec.segments + 1) * strictMemoryBytes(spec);
}

/** The memory of a strict job, in bytes. */
export function strictMemoryBytes({ limits }: JobSpec): number {
  return Math.floor(Math.min(limits.memoryBytes, STRICT_MEMORY_BYTES_MAX) / WASM_PAGE_BYTES) * WASM_PAGE_BYTES;
}

/** Plain files below a folder, sorted by path; links and all else are refused. */
async function readFiles(folder: string, bytesMax: number): Promise<{ path: string; bytes: Uint8Array }[]> {
  const files: { path: string; bytes: Uint8Array }[] = [];
  let left = bytesMax;
  const walk = async (prefix: string, depth: number): Promise<void> => {
    for (const name of await readdir(join(folder, prefix))) {
      const path = prefix + name;
      const stats = await lstat(join(folder, path));
      if (stats.isDirectory() && depth < DEPTH_MAX) await walk(`${path}/`, depth + 1);
      else if (!stats.isFile()) throw badWork(`its input ${path.slice(0, 120)} is no plain file, or lies too deep`);
      else {
        left -= stats.size;
        if (left < 0 || files.length >= INPUT_FILES_MAX)
          throw badWork(`its input has more than ${bytesMax} bytes or ${INPUT_FILES_MAX} files`);
        files.push({ path, bytes: await readFile(join(folder, path)) });
      }
    }
  };
  await walk('', 1);
  return files.sort((one, other) => (one.path < other.path ? -1 : 1));
}

/** Whether no engine can run a program, whatever the machine: then that is the result of its job. */
export function isUnfit(error: unknown): boolean {
  return error instanceof MillraceError && UNFIT.includes(error.code);
}

/** A job that cannot be run or replayed as it stands. */
export function badWork(reason: string): MillraceError {
  return new MillraceError('bad-work', {
    actor: 'caller',
    message: `The job cannot be run in segments: ${reason}`,
    values: { reason },
    hint: 'Correct the specification of the job.',
  });
}
