import { STATEMENT_BYTES, type Statement, VERDICTS } from './figures.ts';

/** Seats of one page of reports. */
export const PAGE_SEATS = 64;

/** An operator's statements about the partners of one of its seats, one for each round; undefined where it says nothing. */
export interface SeatStatements {
  seat: number;
  statements: readonly (Statement | undefined)[];
}

/** A report's bytes (`IComputeHealth`, where tag and share together are called `elapsedMs`): entries in the order of seats, all of one page. */
export function encodeReport(entries: readonly SeatStatements[]): Uint8Array {
  const parts = [...entries]
    .sort((left, right) => left.seat - right.seat)
    .map(({ seat, statements }) => {
      const bytes = Buffer.alloc(1 + statements.length * STATEMENT_BYTES);
      bytes.writeUInt8(seat % PAGE_SEATS);
      for (const [round, statement] of statements.entries()) {
        if (statement !== undefined) writeStatement(bytes, 1 + round * STATEMENT_BYTES, statement);
      }
      return bytes;
    });
  return Buffer.concat(parts);
}

/** What a report says of the partner of one of its seats in a round; undefined where it says nothing. As `HealthFigures.statementIn`. */
export function statementIn(report: Uint8Array, at: { rounds: number; seat: number; round: number }): Statement | undefined {
  const bytes = Buffer.from(report.buffer, report.byteOffset, report.byteLength);
  const size = 1 + at.rounds * STATEMENT_BYTES;
  for (let start = 0; start + size <= bytes.length; start += size) {
    if (bytes[start] === at.seat % PAGE_SEATS) return readStatement(bytes, start + 1 + at.round * STATEMENT_BYTES);
  }
  return undefined;
}

function writeStatement(bytes: Buffer, at: number, { verdict, upBps, latencyUs, bandwidthKbs, receiptTag, doneBps }: Statement): void {
  bytes.writeUInt8(VERDICTS.indexOf(verdict), at);
  bytes.writeUInt16BE(upBps, at + 1);
  bytes.writeUInt32BE(latencyUs, at + 3);
  bytes.writeUInt32BE(bandwidthKbs, at + 7);
  bytes.writeUInt16BE(receiptTag, at + 11);
  bytes.writeUInt16BE(doneBps, at + 13);
}

function readStatement(bytes: Buffer, at: number): Statement | undefined {
  const verdict = VERDICTS[bytes.readUInt8(at)];
  if (verdict === undefined || verdict === 'none') return undefined;
  return {
    verdict,
    upBps: bytes.readUInt16BE(at + 1),
    latencyUs: bytes.readUInt32BE(at + 3),
    bandwidthKbs: bytes.readUInt32BE(at + 7),
    receiptTag: bytes.readUInt16BE(at + 11),
    doneBps: bytes.readUInt16BE(at + 13),
  };
}
