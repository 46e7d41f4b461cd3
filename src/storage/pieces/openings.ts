import { bytesToHex, type Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import { drawPieceLeaves } from '../possession/draws.ts';
import { climbPiece, type PieceOpening, packPieceOpenings } from '../possession/proof.ts';
import type { PieceStore } from './piece-store.ts';

/** A piece as it is challenged: what the chain knows of it. */
export interface ChallengedPiece {
  dealId: bigint;
  pieceRoot: Hex;
  leaves: bigint;
}

/**
 * Reads one leaf and its path from the store and checks that they lead to the root, so that a damaged piece is known
 * before gas is spent on it.
 * @throws piece-unknown, piece-damaged
 */
export async function openPieceLeaf(store: PieceStore, pieceRoot: Hex, leafIndex: bigint): Promise<PieceOpening> {
  const { leaf, path } = await store.openLeaf(pieceRoot, Number(leafIndex));
  const opening = { value: leaf, path: Buffer.concat(path) };
  if (climbPiece(opening, leafIndex) === pieceRoot) return opening;
  throw new MillraceError('piece-damaged', {
    actor: 'host',
    message: `Leaf ${leafIndex} of piece ${pieceRoot} does not lead to its root`,
    values: { pieceRoot, leafIndex },
    hint: 'Restore the piece, or surrender its deal.',
  });
}

/**
 * The packed proof of one piece for activation, recovery, leave and targeted challenge.
 * @throws piece-unknown, piece-damaged
 */
export async function provePiece(options: { store: PieceStore; piece: ChallengedPiece; seed: Hex; count: number }): Promise<Hex> {
  const { store, piece, seed, count } = options;
  const openings: PieceOpening[] = [];
  for (const leafIndex of drawPieceLeaves({ seed, dealId: piece.dealId, leaves: piece.leaves, count })) {
    openings.push(await openPieceLeaf(store, piece.pieceRoot, leafIndex));
  }
  return packPieceOpenings(openings);
}

/**
 * The answer to a demand for bytes: `count` leaves from `first` on, then the siblings that their range lacks, level by level upwards, the
 * left one before the right one (PieceRange.sol). Each leaf is checked against the root before gas is spent.
 * @throws piece-unknown, piece-damaged
 */
export async function openPieceRange(
  store: PieceStore,
  { pieceRoot, first, count }: { pieceRoot: Hex; first: bigint; count: number },
): Promise<Hex> {
  const openings: PieceOpening[] = [];
  for (let index = 0; index < count; index += 1) openings.push(await openPieceLeaf(store, pieceRoot, first + BigInt(index)));
  const [left, right] = [openings[0] as PieceOpening, openings[count - 1] as PieceOpening];
  const parts = openings.map(({ value }) => value);
  let [low, high] = [first, first + BigInt(count) - 1n];
  for (let offset = 0; offset < left.path.length; offset += 32, low >>= 1n, high >>= 1n) {
    if ((low & 1n) === 1n) parts.push(left.path.subarray(offset, offset + 32));
    if ((high & 1n) === 0n) parts.push(right.path.subarray(offset, offset + 32));
  }
  return bytesToHex(Buffer.concat(parts));
}

/** Whether an error says that bytes are gone, rather than that something else went wrong. */
export function isLoss(error: unknown): boolean {
  return error instanceof MillraceError && (error.code === 'piece-damaged' || error.code === 'piece-unknown');
}
