import { bytesToHex, concatHex, type Hex, hexToBytes, keccak256, numberToHex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { SparseRow } from '../consensus/epoch-input.ts';

/** Most entries of a row. */
export const ROW_ENTRIES_MAX = 64;
const UID_MAX = 255;
const U16 = 65_535;
const ENTRY_BYTES = 4;

/**
 * Scores of any scale as a row of weights: divided by the greatest and scaled to 65,535, half away from zero; what rounds to 0 is left
 * out; at most 64 entries, the largest (of equal ones those with the lower uid). Empty when no score is above 0.
 * @throws bad-scores for a uid that is no integer of 0 to 255, or a score that is negative or not finite
 */
export function weighScores(scores: ReadonlyMap<number, number>): SparseRow {
  for (const [uid, score] of scores) {
    if (Number.isInteger(uid) && uid >= 0 && uid <= UID_MAX && Number.isFinite(score) && score >= 0) continue;
    throw new MillraceError('bad-scores', {
      actor: 'caller',
      message: `Got score ${score} for uid ${uid}, expected a finite number of at least 0 for a uid of 0 to ${UID_MAX}`,
      values: { uid, score },
    });
  }
  const greatest = Math.max(0, ...scores.values());
  if (greatest === 0) return [];
  return [...scores]
    .map(([uid, score]): [number, number] => [uid, Math.round((score / greatest) * U16)])
    .filter(([, weight]) => weight > 0)
    .sort(([a, one], [b, other]) => other - one || a - b)
    .slice(0, ROW_ENTRIES_MAX)
    .sort(([a], [b]) => a - b);
}

/** A row as the weights board takes it: `uid:u16 weight:u16`, big-endian. */
export function encodeRow(row: SparseRow): Hex {
  return row.length === 0
    ? '0x'
    : concatHex(row.flatMap(([uid, weight]) => [numberToHex(uid, { size: 2 }), numberToHex(weight, { size: 2 })]));
}

/** The inverse of {@link encodeRow}; undefined for bytes that the board would reject. */
export function decodeRow(bytes: Uint8Array): SparseRow | undefined {
  if (bytes.length === 0 || bytes.length % ENTRY_BYTES !== 0 || bytes.length > ROW_ENTRIES_MAX * ENTRY_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const row: [number, number][] = [];
  for (let at = 0; at < bytes.length; at += ENTRY_BYTES) {
    const uid = view.getUint16(at);
    if (uid > UID_MAX || uid <= (row.at(-1)?.[0] ?? -1)) return undefined;
    row.push([uid, view.getUint16(at + 2)]);
  }
  return row.some(([, weight]) => weight === U16) ? row : undefined;
}

/** What a commitment is bound to. */
export interface OpinionPlace {
  chainId: number;
  board: Hex;
  subnetId: bigint;
  epoch: bigint;
  uid: number;
}

/** Salt (32 bytes) and row: what opens a commit, and what is sealed until it may be opened. */
export interface Opening {
  salt: Hex;
  row: Hex;
}

/** The hash to commit, as `WeightsBoard.commitmentOf`. */
export function commitmentOf({ chainId, board, subnetId, epoch, uid }: OpinionPlace, { salt, row }: Opening): Hex {
  const place = [numberToHex(chainId, { size: 32 }), board, numberToHex(subnetId, { size: 8 }), numberToHex(epoch, { size: 8 })];
  return keccak256(concatHex([...place, numberToHex(uid, { size: 2 }), salt, row]));
}

/** The bytes that are sealed. */
export function packOpening({ salt, row }: Opening): Uint8Array {
  return hexToBytes(concatHex([salt, row]));
}

/** The inverse of {@link packOpening}; undefined for bytes that are too short. */
export function unpackOpening(bytes: Uint8Array): Opening | undefined {
  return bytes.length < 32 ? undefined : { salt: bytesToHex(bytes.subarray(0, 32)), row: bytesToHex(bytes.subarray(32)) };
}
