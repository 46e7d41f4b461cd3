import { createHash, hash } from 'node:crypto';
import { bytesToHex, type Hex, keccak256, stringToBytes } from 'viem';
import { type DrawCounts, drawLeaves, drawPieceLeaves } from './draws.ts';
import { answerDraws, type PieceOpening, packOpenings, packPieceOpenings } from './proof.ts';
import { PieceTable, type TableLeaf } from './table.ts';

/** A small piece with all its nodes, made from a label: the same label gives the same piece. */
export interface SamplePiece {
  leaf: TableLeaf;
  open(leafIndex: bigint): PieceOpening;
}

/** A piece of 2^height leaves of which `leaves` are payload. */
export function samplePiece(label: string, options: { height: number; leaves: bigint; weight: bigint; dealId: bigint }): SamplePiece {
  const levels: Uint8Array[][] = [
    Array.from({ length: 2 ** options.height }, (_, index) => truncate(sha256(stringToBytes(`${label}/${index}`)))),
  ];
  for (let level = 0; level < options.height; level += 1) {
    const below = levels[level] as Uint8Array[];
    levels.push(
      below
        .filter((_, index) => index % 2 === 0)
        .map((left, index) => truncate(sha256(Buffer.concat([left, below[index * 2 + 1] as Uint8Array])))),
    );
  }
  const pieceRoot = bytesToHex(levels[options.height]?.[0] as Uint8Array);
  return {
    leaf: { pieceRoot, pieceHeight: options.height, leaves: options.leaves, weight: options.weight, dealId: options.dealId },
    open(leafIndex) {
      const path = levels.slice(0, options.height).map((level, height) => level[(Number(leafIndex) >> height) ^ 1] as Uint8Array);
      return { value: levels[0]?.[Number(leafIndex)] as Uint8Array, path: Buffer.concat(path) };
    },
  };
}

/** Numbers that a label fixes, so that vectors are the same on every machine. */
export function sampleNumbers(label: string): (limit: number) => number {
  let count = 0;
  return (limit) => {
    count += 1;
    return createHash('sha256').update(`${label}#${count}`).digest().readUIntBE(0, 6) % limit;
  };
}

/** One step of a table's history: what the market does, the path it passes and the root and sums that must follow. */
export interface TableStep {
  insert: boolean;
  slot: number;
  leaf: TableLeaf;
  path: Hex;
  root: Hex;
  leaves: bigint;
  weight: bigint;
  slots: number;
  depth: number;
}

/** A table's history and proofs over it, to be judged by the contract. */
export interface PossessionVector {
  operatorId: bigint;
  counts: DrawCounts;
  steps: TableStep[];
  /** Period that is missed, then period that is proven together with it. */
  missedPeriod: bigint;
  provenPeriod: bigint;
  missedSeed: Hex;
  provenSeed: Hex;
  /** Deals that are over when the miss is answered. */
  over: bigint[];
  /** Proof of missedPeriod on its own (nothing open), and of provenPeriod with the open miss. */
  plainProof: Hex;
  recoveryProof: Hex;
  pieceLeaf: TableLeaf;
  pieceCount: number;
  pieceProof: Hex;
}

/** The vector with this number: a random history of inserts and removals and the proofs that follow from it. */
export async function possessionVector(number: number): Promise<PossessionVector> {
  const next = sampleNumbers(`vector ${number}`);
  const pieces = new Map<bigint, SamplePiece>();
  const table = new PieceTable();
  const steps: TableStep[] = [];
  for (let count = 2 + next(12), step = 0; step < count; step += 1) {
    const slot = next(table.slots + 1);
    const held = table.leafAt(slot);
    if (held !== undefined && (step === count - 1 || [...pieces.keys()].length < 2)) continue;
    const path = bytesToHex(table.path(slot));
    const leaf = held ?? addPiece(pieces, number, step, next);
    if (held === undefined) table.insert(slot, leaf);
    else table.remove(slot);
    const { root, leaves, weight, slots, depth } = table;
    steps.push({ insert: held === undefined, slot, leaf, path, root, leaves, weight, slots, depth });
  }
  const counts = { byBytes: 1 + next(3), byWeight: 1 + next(3), rotationMin: 1 + next(2), rotationPeriods: 1 + next(6) };
  const operatorId = BigInt(1 + next(1000));
  const missedPeriod = BigInt(1 + next(50));
  const openPiece = (leaf: TableLeaf, leafIndex: bigint) => (pieces.get(leaf.dealId) as SamplePiece).open(leafIndex);
  const missedSeed = keccak256(stringToBytes(`missed ${number}`));
  const provenSeed = keccak256(stringToBytes(`proven ${number}`));
  const missed = drawLeaves({ table, counts, seed: missedSeed, operatorId, period: missedPeriod, times: 1 });
  const proven = drawLeaves({ table, counts, seed: provenSeed, operatorId, period: missedPeriod + 1n, times: 2 });
  const over = [...pieces.keys()].filter(() => next(3) === 0);
  const late = await answerDraws({ table, draws: missed, openPiece, isOver: (dealId) => over.includes(dealId) });
  const piece = [...pieces.values()][next(pieces.size)] as SamplePiece;
  const pieceCount = 1 + next(5);
  const indexes = drawPieceLeaves({ seed: provenSeed, dealId: piece.leaf.dealId, leaves: piece.leaf.leaves, count: pieceCount });
  return {
    operatorId,
    counts,
    steps,
    missedPeriod,
    provenPeriod: missedPeriod + 1n,
    missedSeed,
    provenSeed,
    over,
    plainProof: packOpenings(await answerDraws({ table, draws: missed, openPiece })),
    recoveryProof: packOpenings([...(await answerDraws({ table, draws: proven, openPiece })), ...late]),
    pieceLeaf: piece.leaf,
    pieceCount,
    pieceProof: packPieceOpenings(indexes.map((index) => piece.open(index))),
  };
}

function addPiece(pieces: Map<bigint, SamplePiece>, number: number, step: number, next: (limit: number) => number): TableLeaf {
  const height = next(5);
  const dealId = BigInt(step + 1);
  const leaves = BigInt(1 + next(2 ** height));
  const weight = BigInt(1 + next(1_000_000)) * (next(2) === 0 ? 1n : 10n ** 18n);
  const piece = samplePiece(`${number}/${step}`, { height, leaves, weight, dealId });
  pieces.set(dealId, piece);
  return piece.leaf;
}

function sha256(bytes: Uint8Array): Uint8Array {
  return hash('sha256', bytes, 'buffer');
}

function truncate(node: Uint8Array): Uint8Array {
  node[31] = (node[31] as number) & 0x3f;
  return node;
}
