import { keccak_256 } from '@noble/hashes/sha3.js';
import { bytesToHex, type Hex, hexToBytes } from 'viem';
import { numberBytes, type PieceTable, type TableLeaf } from './table.ts';

/** How many leaves a period draws (profile data, constant of a Possession contract). */
export interface DrawCounts {
  byBytes: number;
  byWeight: number;
  rotationMin: number;
  rotationPeriods: number;
}

/** One drawn leaf. `leaf` is undefined when it is the turn of an emptied slot, which is proven empty. */
export interface Draw {
  slot: number;
  leafIndex: bigint;
  leaf: TableLeaf | undefined;
}

/**
 * What a period asks of a table, in the order of the proof: by bytes, by weight, by turn. `times` is 2 while a miss is open, else 1.
 * The rule is that of PossessionProof.sol; only integers and keccak256, so both sides draw the same.
 */
export function drawLeaves(options: {
  table: PieceTable;
  counts: DrawCounts;
  seed: Hex;
  operatorId: bigint;
  period: bigint;
  times: 1 | 2;
}): Draw[] {
  const { table, counts, times } = options;
  const base = keccak_256(words(hexToBytes(options.seed), numberBytes(options.operatorId, 32), numberBytes(options.period, 32)));
  const turns = turnsOf({ ...counts, slots: table.slots, period: options.period });
  const byBytesEnd = counts.byBytes * times;
  const byWeightEnd = byBytesEnd + counts.byWeight * times;
  const draws: Draw[] = [];
  for (let index = 0; index < byWeightEnd + turns.length * times; index += 1) {
    const hash = drawHash(base, index);
    if (index < byBytesEnd) {
      const { slot, leafIndex } = table.findLeaf(toNumber(hash) % table.leaves);
      draws.push({ slot, leafIndex, leaf: table.leafAt(slot) });
      continue;
    }
    const slot =
      index < byWeightEnd ? table.findWeight(toNumber(hash) % table.weight) : (turns[(index - byWeightEnd) % turns.length] as number);
    const leaf = table.leafAt(slot);
    draws.push({ slot, leafIndex: leaf === undefined ? 0n : toNumber(keccak_256(hash)) % leaf.leaves, leaf });
  }
  return draws;
}

/**
 * The slots whose turn it is: every slot s with s = period (mod rotationPeriods), so each is drawn once in rotationPeriods whatever the
 * table's growth; when these are fewer than rotationMin, turns n … rotationMin - 1 are the slots (period + turn) mod slots.
 */
export function turnsOf(options: { slots: number; period: bigint; rotationPeriods: number; rotationMin: number }): number[] {
  const { slots, rotationPeriods } = options;
  const turns: number[] = [];
  if (slots === 0) return turns;
  for (let slot = Number(options.period % BigInt(rotationPeriods)); slot < slots; slot += rotationPeriods) turns.push(slot);
  while (turns.length < options.rotationMin) turns.push(Number((options.period + BigInt(turns.length)) % BigInt(slots)));
  return turns;
}

/** The leaves of one piece that an activation, a targeted challenge, a recovery or a leave draws. */
export function drawPieceLeaves(options: { seed: Hex; dealId: bigint; leaves: bigint; count: number }): bigint[] {
  const base = keccak_256(words(hexToBytes(options.seed), numberBytes(options.dealId, 32)));
  return Array.from({ length: options.count }, (_, index) => toNumber(drawHash(base, index)) % options.leaves);
}

function drawHash(base: Uint8Array, index: number): Uint8Array {
  return keccak_256(words(base, numberBytes(BigInt(index), 32)));
}

function words(...parts: Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.length * 32);
  parts.forEach((part, index) => {
    joined.set(part, index * 32);
  });
  return joined;
}

function toNumber(bytes: Uint8Array): bigint {
  return BigInt(bytesToHex(bytes));
}
