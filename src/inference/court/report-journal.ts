import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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
  remove(report: ReceiptReport): void;
}

/** So many wait at most: a bond pays for a few, so more of them would win nothing. */
const WAITING_MAX = 256;
const NAME = /^(\d{1,20})-(0x[0-9a-f]{64})\.json$/;

/** The journal in a folder; a file that is none of its own is left alone. */
export function openReportJournal(folder: string): ReportJournal {
  const nameOf = (operatorId: bigint, receiptId: string) => `${operatorId}-${receiptId}.json`;
  const names = () => (existsSync(folder) ? readdirSync(folder).filter((name) => NAME.test(name)) : []);
  return {
    add(report) {
      if (names().length >= WAITING_MAX) return;
      const { operatorId, receiptId, offence, receipts } = report;
      writeFileDurably(join(folder, nameOf(operatorId, receiptId)), `${JSON.stringify({ offence, receipts })}\n`);
    },
    has: (operatorId, receiptId) => existsSync(join(folder, nameOf(operatorId, receiptId))),
    waiting: () => names().flatMap((name) => readReport(folder, name) ?? []),
    remove: ({ operatorId, receiptId }) => rmSync(join(folder, nameOf(operatorId, receiptId)), { force: true }),
  };
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
