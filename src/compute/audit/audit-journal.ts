import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import { isJobId } from '../jobs/job-terms.ts';
import type { SegmentFinding } from './inspect-segment.ts';

/** An audit that an operator was drawn for, as it stands on its disk. */
export interface AuditRecord {
  jobId: Hex;
  /** Place among the job's auditors. */
  index: number;
  /** This machine lacks the engine of the job. */
  isRefused?: boolean;
  /** What was found, with what opens its seal; on the disk before the seal is sent. */
  found?: { finding: SegmentFinding; salt: Hex };
  /** The case or demand that follows from it, once it is on chain. */
  caseId?: string;
  demandId?: string;
  /** The work did not come in a third of the time to seal: it is demanded on chain, by this auditor or another one of the job. */
  lacksWork?: boolean;
  /** Earlier demands, whose states were delivered. */
  delivered?: string[];
  /** What replaying led to once a demanded state was delivered: of all segments, or that another state is withheld. */
  later?: SegmentFinding;
}

/** The audits of one operator. */
export interface AuditJournal {
  all(): AuditRecord[];
  /** Keeps a record; when this returns it survives a crash. */
  save(record: AuditRecord): void;
  remove(jobId: Hex): void;
  /** The first block that was not looked at for draws; undefined at first. */
  nextBlock(): bigint | undefined;
  setNextBlock(block: bigint): void;
}

const CURSOR = 'next-block.json';
const RECORD = /^(0x[0-9a-f]{64})\.json$/;

/** The journal in a folder. @throws audit-journal-broken */
export function openAuditJournal(folder: string): AuditJournal {
  const pathOf = (jobId: Hex) => join(folder, `${jobId}.json`);
  const records = new Map<Hex, AuditRecord>();
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    if (RECORD.test(name)) {
      const record = readJson(join(folder, name)) as unknown as AuditRecord;
      if (!isJobId(String(record.jobId)) || !Number.isSafeInteger(record.index)) throw broken(join(folder, name));
      records.set(record.jobId, record);
    }
  }
  return {
    all: () => [...records.values()],
    save(record) {
      records.set(record.jobId, record);
      writeFileDurably(pathOf(record.jobId), `${JSON.stringify(record)}\n`);
    },
    remove(jobId) {
      records.delete(jobId);
      rmSync(pathOf(jobId), { force: true });
    },
    nextBlock() {
      if (!existsSync(join(folder, CURSOR))) return undefined;
      const { block } = readJson(join(folder, CURSOR));
      if (!/^\d{1,20}$/.test(String(block))) throw broken(join(folder, CURSOR));
      return BigInt(String(block));
    },
    setNextBlock(block) {
      writeFileDurably(join(folder, CURSOR), `${JSON.stringify({ block: block.toString() })}\n`);
    },
  };
}

function readJson(path: string): Record<string, unknown> {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  } catch (cause) {
    throw broken(path, cause);
  }
}

function broken(path: string, cause?: unknown): MillraceError {
  return new MillraceError('audit-journal-broken', {
    actor: 'host',
    message: `${path} is no record of an audit`,
    values: { path },
    hint: 'Move it away: an audit that is not revealed costs its penalty.',
    cause,
  });
}
