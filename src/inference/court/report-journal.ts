import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../../durable-file.ts';
import type { ReceiptOffence } from './receipt-offence.ts';

/** What convicts a miner, as it waits to be reported. Receipts are base64url as they came. */
export interface ReceiptReport {
  operatorId: bigint;
  receiptId: `0x${string}`;
  offence: ReceiptOffence;
  receipts: readonly string[];
}

/** Reports that wait, on the disk. */
export interface ReportJournal {
  /** Keeps a report; when this returns it survives a crash. Of one receipt id there is one. */
  add(report: ReceiptReport): void;
  has(operatorId: bigint, receiptId: string): boolean;
  waiting(): ReceiptReport[];
  /** A report that is over waits no more; its receipts stay beside those that wait, the last few hundred of them. */
  end(report: ReceiptReport): void;
  /** The file that holds a report's receipts, waiting or over. */
  pathOf(report: Pick<ReceiptReport, 'operatorId' | 'receiptId'>): string;
}

/** So many wait at most: a bond pays for a few, so more of them would win nothing. */
const WAITING_MAX = 256;
const ENDED_MAX = 256;
const NAME = /^(\d{1,20})-(0x[0-9a-f]{64})\.json$/;

/** The journal in a folder; a file that is none of its own is left alone. */
export function openReportJournal(folder: string): ReportJournal {
  const ended = join(folder, 'ended');
  const nameOf = (operatorId: bigint, receiptId: string) => `${operatorId}-${receiptId}.json`;
  const names = () => namesIn(folder);
  return {
    add(report) {
      if (names().length >= WAITING_MAX) return;
      const { operatorId, receiptId, offence, receipts } = report;
      writeFileDurably(join(folder, nameOf(operatorId, receiptId)), `${JSON.stringify({ offence, receipts })}\n`);
    },
    has: (operatorId, receiptId) => existsSync(join(folder, nameOf(operatorId, receiptId))),
    waiting: () => names().flatMap((name) => readReport(folder, name) ?? []),
    end({ operatorId, receiptId }) {
      const name = nameOf(operatorId, receiptId);
      if (!existsSync(join(folder, name))) return;
      mkdirSync(ended, { recursive: true, mode: 0o700 });
      renameSync(join(folder, name), join(ended, name));
      keepNewest(ended);
    },
    pathOf({ operatorId, receiptId }) {
      const name = nameOf(operatorId, receiptId);
      return join(existsSync(join(folder, name)) ? folder : ended, name);
    },
  };
}

function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).filter((name) => NAME.test(name)) : [];
}

function keepNewest(folder: string): void {
  const names = namesIn(folder);
  if (names.length <= ENDED_MAX) return;
  const oldestFirst = names.map((name) => ({ name, at: statSync(join(folder, name)).mtimeMs })).sort((one, other) => one.at - other.at);
  for (const { name } of oldestFirst.slice(0, names.length - ENDED_MAX)) rmSync(join(folder, name), { force: true });
}

function readReport(folder: string, name: string): ReceiptReport | undefined {
  const [, operatorId, receiptId] = NAME.exec(name) as unknown as [string, string, `0x${string}`];
  try {
    const { offence, receipts } = JSON.parse(readFileSync(join(folder, name), 'utf8')) as ReceiptReport;
    return { operatorId: BigInt(operatorId), receiptId, offence, receipts };
  } catch {
    return undefined; // a receipt that cannot be read convicts nobody
  }
}
