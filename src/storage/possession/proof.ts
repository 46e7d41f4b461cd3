import { hash } from 'node:crypto';
import { bytesToHex, type Hex, hexToBytes } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { Draw } from './draws.ts';
import { numberBytes, type PieceTable, type TableLeaf } from './table.ts';

/** A leaf of a piece with its path: `path` has 32 bytes per level of the piece's CommP tree, from the bottom. */
export interface PieceOpening {
  value: Uint8Array;
  path: Uint8Array;
}

/** The answer to one draw. Without `leaf` the slot is proven empty; with `leaf` and without `piece` its deal is over (open misses only). */
export interface TableOpening {
  slot: number;
  tablePath: Uint8Array;
  leaf?: TableLeaf;
  piece?: PieceOpening;
}

const FLAG = { full: 0, empty: 1, over: 2 } as const;

/**
 * The packed proof that `Possession.prove` takes: openings of the period, then those of the oldest open miss. Layout of one opening
 * (PossessionProof.sol): slot (4), flag (1), [pieceRoot (32), pieceHeight (1), leaves (8), weight (16), dealId (8)], table path
 * (depth * 56), [leaf value (32), piece path (pieceHeight * 32)].
 * @throws bad-opening
 */
export function packOpenings(openings: readonly TableOpening[]): Hex {
  return bytesToHex(Buffer.concat(openings.flatMap(packOpening)));
}

/**
 * The packed proof of one piece for activation, targeted challenge, recovery and leave: leaf value and path, once per draw.
 * @throws bad-opening
 */
export function packPieceOpenings(openings: readonly PieceOpening[]): Hex {
  return bytesToHex(Buffer.concat(openings.flatMap((opening) => [checked(opening.value, 32), opening.path])));
}

/**
 * Answers the draws of one table. `openPiece` reads a leaf and its path from the store; `isOver` names the deals that need no piece
 * part, and is only allowed for the draws of an open miss.
 * @throws bad-opening, and what `openPiece` throws
 */
export async function answerDraws(options: {
  table: PieceTable;
  draws: readonly Draw[];
  openPiece: (leaf: TableLeaf, leafIndex: bigint) => Promise<PieceOpening> | PieceOpening;
  isOver?: (dealId: bigint) => boolean;
}): Promise<TableOpening[]> {
  const openings: TableOpening[] = [];
  for (const { slot, leaf, leafIndex } of options.draws) {
    const tablePath = options.table.path(slot);
    if (leaf === undefined) openings.push({ slot, tablePath });
    else if (options.isOver?.(leaf.dealId)) openings.push({ slot, tablePath, leaf });
    else openings.push({ slot, tablePath, leaf, piece: await options.openPiece(leaf, leafIndex) });
  }
  return openings;
}

/**
 * The root that a leaf and its path lead to: SHA-256 of both halves with the two highest bits of the last byte cleared, level by level
 * (Filecoin's CommP tree). A prover compares it with the piece's root before it sends, so that a lost leaf is known before gas is spent.
 */
export function climbPiece(opening: PieceOpening, leafIndex: bigint): Hex {
  let node: Uint8Array = opening.value;
  const pair = new Uint8Array(64);
  for (let offset = 0, index = leafIndex; offset < opening.path.length; offset += 32, index >>= 1n) {
    const isRight = (index & 1n) === 1n;
    pair.set(node, isRight ? 32 : 0);
    pair.set(opening.path.subarray(offset, offset + 32), isRight ? 0 : 32);
    node = hash('sha256', pair, 'buffer');
    node[31] = (node[31] as number) & 0x3f;
  }
  return bytesToHex(node);
}

/**
 * Reads a packed proof back, `depth` being that of the table; the inverse of `packOpenings`, for diagnosis and tests.
 * @throws bad-opening
 */
export function unpackOpenings(proof: Hex, depth: number): TableOpening[] {
  const bytes = Buffer.from(hexToBytes(proof));
  const openings: TableOpening[] = [];
  let cursor = 0;
  const take = (length: number) => {
    if (cursor + length > bytes.length) throw badOpening('The proof is cut off', { got: bytes.length, expected: cursor + length });
    cursor += length;
    return bytes.subarray(cursor - length, cursor);
  };
  while (cursor < bytes.length) {
    const slot = take(4).readUInt32BE();
    const flag = take(1)[0] as number;
    if (flag > FLAG.over) throw badOpening(`Got flag ${flag}, expected 0, 1 or 2`, { flag });
    const leaf = flag === FLAG.empty ? undefined : readLeaf(take(65));
    const tablePath = new Uint8Array(take(depth * 56));
    if (leaf === undefined) openings.push({ slot, tablePath });
    else if (flag === FLAG.over) openings.push({ slot, tablePath, leaf });
    else
      openings.push({
        slot,
        tablePath,
        leaf,
        piece: { value: new Uint8Array(take(32)), path: new Uint8Array(take(leaf.pieceHeight * 32)) },
      });
  }
  return openings;
}

function packOpening(opening: TableOpening): Uint8Array[] {
  const { leaf, piece } = opening;
  const flag = leaf === undefined ? FLAG.empty : piece === undefined ? FLAG.over : FLAG.full;
  const parts = [numberBytes(BigInt(opening.slot), 4), Uint8Array.of(flag)];
  if (leaf !== undefined) {
    parts.push(hexToBytes(leaf.pieceRoot), Uint8Array.of(leaf.pieceHeight));
    parts.push(numberBytes(leaf.leaves, 8), numberBytes(leaf.weight, 16), numberBytes(leaf.dealId, 8));
  }
  parts.push(opening.tablePath);
  if (leaf !== undefined && piece !== undefined) parts.push(checked(piece.value, 32), checked(piece.path, leaf.pieceHeight * 32));
  return parts;
}

function readLeaf(bytes: Buffer): TableLeaf {
  return {
    pieceRoot: bytesToHex(bytes.subarray(0, 32)),
    pieceHeight: bytes[32] as number,
    leaves: bytes.readBigUInt64BE(33),
    weight: (bytes.readBigUInt64BE(41) << 64n) | bytes.readBigUInt64BE(49),
    dealId: bytes.readBigUInt64BE(57),
  };
}

function checked(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length !== length) throw badOpening(`Got ${bytes.length} bytes, expected ${length}`, { got: bytes.length, expected: length });
  return bytes;
}

function badOpening(message: string, values: Record<string, number>): MillraceError {
  return new MillraceError('bad-opening', { actor: 'bug', message, values });
}
