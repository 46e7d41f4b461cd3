import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import type { Artefact } from '../../host/index.ts';
import type { Canary } from '../audit/canary.ts';
import { decodeJobSpec, encodeJobSpec, type JobSpec } from '../spec/job-spec.ts';
import { isJobId, type JobResult, type JobSignatures, type JobTerms, termsFromJson, termsToJson } from './job-terms.ts';

/**
 * How far a provider is with a job. `agreed`: signed by both, on its way to the chain; `open`: on chain, waits for contents or for room; `running`;
 * `done`: its result is on disk; `committed`: on chain too; `settled`: paid or not, over; `failed`: given up, nothing was or will be committed.
 */
export const JOB_STATUSES = ['agreed', 'open', 'running', 'done', 'committed', 'settled', 'failed'] as const;
/** One of them. */
export type JobStatus = (typeof JOB_STATUSES)[number];

/** What a provider remembers of a job on its own disk; all the rest is on chain. */
export interface JobRecord {
  jobId: Hex;
  terms: JobTerms;
  signatures: JobSignatures;
  status: JobStatus;
  /** Key of the renter to which outputs are sealed. */
  renterBox: Hex;
  /** Contents of the specification that the renter hands over itself. */
  handed: string[];
  /** What makes it a canary; its provider shows it once it has been audited. */
  canary?: Canary;
  /** Chain time by which the result must be committed. */
  dueAt?: number;
  /** How the run ended, and what it left. */
  end?: string;
  artefacts?: Artefact[];
  result?: JobResult;
  /** How the job ended on chain, as `IComputeJobs.Outcome` counts, and what it paid. */
  outcome?: number;
  paid?: string;
  /** Why it failed; of a run that was stopped or could not begin, which limit or fault. */
  reason?: string;
}

/** A job's places on disk. */
export interface JobFolders {
  root: string;
  /** Contents that were handed over, by {@link contentName}. */
  contents: string;
  /** Its `/input`. */
  input: string;
  /** States and results of its run. */
  run: string;
  /** Outputs, each under its CID. */
  artefacts: string;
  /** What it printed. */
  log: string;
  /** The hashes of its states, 32 bytes each. */
  stateHashes: string;
}

/** The jobs of one provider: records in memory and on disk; a change is durable when `save` returns. */
export interface JobRecords {
  all(): JobRecord[];
  find(jobId: Hex): JobRecord | undefined;
  /** Takes up a job with its specification. */
  add(record: JobRecord, spec: JobSpec): void;
  save(record: JobRecord): void;
  spec(jobId: Hex): JobSpec;
  folders(jobId: Hex): JobFolders;
  /** Forgets a job and all that it left. */
  remove(jobId: Hex): void;
}

const RECORD = 'record.json';
const SPEC = 'spec.json';

/**
 * Opens the jobs kept in a folder.
 * @throws job-record-broken
 */
export function openJobRecords(folder: string): JobRecords {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const records = new Map<Hex, JobRecord>();
  const rootOf = (jobId: Hex) => join(folder, jobId);
  for (const name of readdirSync(folder)) {
    // A folder without a record is a job that nobody was told of.
    if (isJobId(name) && existsSync(join(folder, name, RECORD))) records.set(name, readRecord(join(folder, name, RECORD)));
    else rmSync(join(folder, name), { recursive: true, force: true });
  }
  const save = (record: JobRecord) => {
    records.set(record.jobId, record);
    writeFileDurably(join(rootOf(record.jobId), RECORD), `${JSON.stringify({ ...record, terms: termsToJson(record.terms) })}\n`);
  };
  return {
    all: () => [...records.values()],
    find: (jobId) => records.get(jobId),
    add(record, spec) {
      writeFileDurably(join(rootOf(record.jobId), SPEC), encodeJobSpec(spec));
      save(record);
    },
    save,
    spec: (jobId) => decodeJobSpec(readFileSync(join(rootOf(jobId), SPEC))),
    folders: (jobId) => foldersAt(rootOf(jobId)),
    remove(jobId) {
      records.delete(jobId);
      rmSync(rootOf(jobId), { recursive: true, force: true });
    },
  };
}

/** A job's places below a folder of its own. */
export function foldersAt(root: string): JobFolders {
  const at = (name: string) => join(root, name);
  return {
    root,
    contents: at('contents'),
    input: at('input'),
    run: at('run'),
    artefacts: at('artefacts'),
    log: at('log'),
    stateHashes: at('state-hashes'),
  };
}

/** The name of a file that holds a content: CIDs and digests have letters, digits and a colon. */
export function contentName(source: string): string {
  return source.replace(':', '-');
}

function readRecord(path: string): JobRecord {
  try {
    const raw = JSON.parse(readFileSync(path, 'utf8')) as JobRecord;
    if (!isJobId(raw.jobId) || !JOB_STATUSES.includes(raw.status)) throw new TypeError('no record of a job');
    return { ...raw, terms: termsFromJson(raw.terms) };
  } catch (cause) {
    throw new MillraceError('job-record-broken', {
      actor: 'host',
      message: `${path} is no record of a job`,
      values: { path },
      hint: 'Move its folder away: the job is late then, and its renter gets the money back.',
      cause,
    });
  }
}
