import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import type { Artefact } from '../../host/index.ts';
import type { Canary } from '../audit/canary.ts';
import { decodeJobSpec, encodeJobSpec, type JobSpec } from '../spec/job-spec.ts';
import type { LeafProof } from '../verify/commitment.ts';
import { type JobTerms, termsFromJson, termsToJson } from './job-terms.ts';

/** One try to have a job run by one provider. */
export interface RunAttempt {
  jobId: Hex;
  terms: JobTerms;
  /** The renter's signature. */
  signature: Hex;
  /** Key of the provider to which contents are sealed. */
  boxKey: Hex;
  /** What makes it a canary; without it on the disk the canary could not be shown. */
  canary?: Canary;
  /** Its leaf as the provider has committed to it, once it was fetched. */
  canaryProof?: LeafProof;
  /** The demand for its outputs, once it is on chain. */
  demandId?: string;
  /** Why it ended without a result. */
  failure?: string;
}

/** A renter's run of one job: written before each step that others can see, so that it goes on after an interruption. */
export interface RunJournal {
  runId: string;
  name: string;
  account: Hex;
  spec: JobSpec;
  /** Contents that the renter hands over, and where they lie. */
  files: Record<string, string>;
  attempts: RunAttempt[];
  startedAt: string;
  /** Outputs that came and were checked. */
  artefacts?: Artefact[];
  end?: string;
  /** Which limit or fault, as the provider says. */
  endReason?: string;
  outputFolder?: string;
  /** The receipt as JSON, and what it did cost in all, base units. */
  receipt?: string;
  cost?: string;
  finishedAt?: string;
}

/** A renter's runs, each a file. */
export interface RunJournals {
  all(): RunJournal[];
  find(idOrPrefix: string): RunJournal | undefined;
  save(journal: RunJournal): void;
}

const ID_CHARACTERS_MIN = 6;

/** The runs kept in a folder, newest last. @throws run-journal-broken */
export function openRunJournals(folder: string): RunJournals {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const all = () =>
    readdirSync(folder)
      .filter((name) => name.endsWith('.json'))
      .map((name) => readJournal(join(folder, name)))
      .sort((one, other) => (one.startedAt < other.startedAt ? -1 : 1));
  return {
    all,
    find(id) {
      if (/^[0-9a-f]{20}$/.test(id) && existsSync(join(folder, `${id}.json`))) return readJournal(join(folder, `${id}.json`));
      if (id.length < ID_CHARACTERS_MIN) return undefined;
      return all().find(({ runId, attempts }) => runId.startsWith(id) || attempts.some(({ jobId }) => jobId.startsWith(id)));
    },
    save(journal) {
      const attempts = journal.attempts.map((attempt) => ({ ...attempt, terms: termsToJson(attempt.terms) }));
      const spec = Buffer.from(encodeJobSpec(journal.spec)).toString('utf8');
      writeFileDurably(join(folder, `${journal.runId}.json`), `${JSON.stringify({ ...journal, spec, attempts })}\n`);
    },
  };
}

function readJournal(path: string): RunJournal {
  try {
    const raw = JSON.parse(readFileSync(path, 'utf8')) as RunJournal & { spec: unknown };
    const attempts = raw.attempts.map((attempt) => ({ ...attempt, terms: termsFromJson(attempt.terms) }));
    return { ...raw, spec: decodeJobSpec(Buffer.from(String(raw.spec))), attempts };
  } catch (cause) {
    throw new MillraceError('run-journal-broken', {
      actor: 'host',
      message: `${path} is no journal of a job`,
      values: { path },
      hint: 'Move it away; what the chain holds of the job is not lost.',
      cause,
    });
  }
}
