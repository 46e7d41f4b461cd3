import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { JobTerms } from '../../src/compute/jobs/job-terms.ts';
import { type JobSpec, runtimeOf } from '../../src/compute/spec/job-spec.ts';
import { cidOfDigest } from '../../src/host/index.ts';

/** How a provider cheats, or not. */
export interface Cheat {
  /** Segments whose end state is made up; the others are run from there. */
  wrong?: readonly number[];
  /** States that it does not hand over. */
  withholds?: readonly number[];
  /** Nor to committees. */
  isSilent?: boolean;
  /** But on the chain itself, when the committee confirms nothing. */
  deliversOnChain?: boolean;
  /** The leaf that makes it a canary. */
  canaryLeaf?: number;
  /** Another digest than that of its output. */
  isOutputWrong?: boolean;
  /** Says of a whole job that it was stopped, without a look at it. */
  claimsStop?: boolean;
  /** Hands its work, specification and contents, to nobody; `until demanded`: on chain. */
  keepsWork?: boolean | 'until demanded';
  /** Leaves the settlement of its job to others. */
  neverSettles?: boolean;
  /** Hands neither outputs nor progress to its renter. */
  keepsOutputs?: boolean;
}

/** What a test wants of a job beside its terms. */
export interface WantedJob extends Partial<JobTerms> {
  text?: string;
  /** A module of the class `exact-output`; left out: the strict word count. */
  whole?: Uint8Array;
}

/** The strict module of the word count. */
export const MODULE: Uint8Array = readFileSync(join(import.meta.dirname, '../../examples/word-count/word-count.wasm'));

/** A word count over a text that the renter hands over. */
export function wordCountSpec(text: string, segments: number): JobSpec {
  const digest = createHash('sha256').update(text).digest();
  return {
    format: 'millrace-job/1',
    runtime: runtimeOf('module', 'wasm-strict'),
    program: { kind: 'module', source: `sha256:${createHash('sha256').update(MODULE).digest('hex')}` },
    argv: ['module'],
    env: {},
    inputs: [{ path: 'text', cid: cidOfDigest(digest) }],
    outputs: [],
    seed: '1',
    limits: { memoryBytes: 4 << 20, milliCpus: 1000, processes: 1, diskBytes: 1 << 20, wallSeconds: 10, outputBytes: 65_536 },
    determinism: 'wasm-strict',
    segments,
    canonicaliser: 'bytes',
    thresholdPpm: 0,
  };
}

/** A module that is run whole, over a text that the renter hands over. */
export function wholeSpec(text: string, module: Uint8Array): JobSpec {
  return {
    ...wordCountSpec(text, 1),
    runtime: runtimeOf('module', 'exact-output'),
    program: { kind: 'module', source: `sha256:${createHash('sha256').update(module).digest('hex')}` },
    determinism: 'exact-output',
  };
}
