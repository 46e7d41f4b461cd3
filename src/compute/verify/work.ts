import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import { type Artefact, type Executor, encodeStrictInput, type StrictEngine, type StrictProgram } from '../../host/index.ts';
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

/** What runs jobs here. */
export interface JobEngines {
  /** For `wasm-strict`. */
  strict: StrictEngine;
  /** For the other classes: the engine that takes the job's program. */
  executor: Executor;
}

/** A job that was run, ready to be committed to. */
export interface SegmentRun {
  commitment: Commitment;
  outputDigest: Hex;
  end: JobEnd;
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

/** Instructions a second that a job's time is counted with. */
const FUEL_PER_SECOND = 1_000_000_000n;
const WASM_PAGE_BYTES = 65_536;
const STRICT_MEMORY_BYTES_MAX = 2 ** 30;
const INPUT_FILES_MAX = 10_000;
const DEPTH_MAX = 32;

/**
 * A strict job as its engine takes it. Memory: the limit rounded down to 64 KiB, at most 1 GiB. Fuel of a segment: the job's seconds times 10⁹
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
      wallSeconds: spec.limits.wallSeconds,
      outputBytes: spec.limits.outputBytes,
    },
  };
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

/** A job that cannot be run or replayed as it stands. */
export function badWork(reason: string): MillraceError {
  return new MillraceError('bad-work', {
    actor: 'caller',
    message: `The job cannot be run in segments: ${reason}`,
    values: { reason },
    hint: 'Correct the specification of the job.',
  });
}
