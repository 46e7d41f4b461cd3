import { MillraceError } from '../../errors.ts';
import type { SparseRow } from './epoch-input.ts';

const ENTRY_BYTES = 4;

/**
 * Rows as contracts take them: for each row that is not empty, by ascending uid, `uid:u16 count:u16` and then count entries
 * `uid:u16 value:u16`, big-endian (contracts/src/inference/YumaColumns.sol).
 */
export function packRows(rows: readonly SparseRow[]): Uint8Array {
  const length = rows.reduce((bytes, row) => bytes + (row.length === 0 ? 0 : (row.length + 1) * ENTRY_BYTES), 0);
  const view = new DataView(new ArrayBuffer(length));
  let at = 0;
  const put = (high: number, low: number) => {
    view.setUint16(at, high);
    view.setUint16(at + 2, low);
    at += ENTRY_BYTES;
  };
  rows.forEach((row, uid) => {
    if (row.length > 0) put(uid, row.length);
    for (const [to, value] of row) put(to, value);
  });
  return new Uint8Array(view.buffer);
}

/**
 * The rows of `count` uids that {@link packRows} packed; the contracts have checked their order.
 * @throws bad-packed-rows when the bytes are cut short or name a uid that is not below `count`
 */
export function unpackRows(packed: Uint8Array, count: number): SparseRow[] {
  const rows: SparseRow[] = Array.from({ length: count }, () => []);
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  for (let at = 0; at < packed.length; ) {
    const entries = at + ENTRY_BYTES <= packed.length ? view.getUint16(at + 2) : 0;
    const uid = entries === 0 ? count : view.getUint16(at);
    const end = at + (entries + 1) * ENTRY_BYTES;
    if (uid >= count || end > packed.length) throw brokenRows(at, packed.length);
    const row: [number, number][] = [];
    for (at += ENTRY_BYTES; at < end; at += ENTRY_BYTES) row.push([view.getUint16(at), view.getUint16(at + 2)]);
    rows[uid] = row;
  }
  return rows;
}

function brokenRows(at: number, length: number): MillraceError {
  return new MillraceError('bad-packed-rows', {
    actor: 'peer',
    message: `Packed rows are broken at byte ${at} of ${length}`,
    values: { at, length },
    hint: 'Read them again from the chain.',
  });
}
