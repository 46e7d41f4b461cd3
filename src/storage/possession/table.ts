import { keccak_256 } from '@noble/hashes/sha3.js';
import { bytesToHex, type Hex, hexToBytes } from 'viem';
import { MillraceError } from '../../errors.ts';

/** One piece in an operator's table, as `LeafInserted` tells it. `leaves` are 32-byte nodes of payload, `weight` is the deal's collateral. */
export interface TableLeaf {
  pieceRoot: Hex;
  pieceHeight: number;
  leaves: bigint;
  weight: bigint;
  dealId: bigint;
}

/** A change of a table, from the events of the Possession contract; `timestamp` is that of its block, in seconds. */
export type TableChange =
  | { kind: 'inserted'; slot: number; leaf: TableLeaf; timestamp: bigint }
  | { kind: 'removed'; slot: number; timestamp: bigint };

/** Bytes of one sibling in a table path: hash (32), leaves (8), weight (16). */
export const SIBLING_BYTES = 56;

const LEAF_BITS = 64n;
const WEIGHT_BITS = 128n;
const EMPTY_HASH = new Uint8Array(32);

interface TableNode {
  hash: Uint8Array;
  leaves: bigint;
  weight: bigint;
}

/**
 * An operator's piece table: the Merkle sum tree of `PieceTable.sol`, kept level by level, so that a change costs one hash per level.
 * It is a copy for proving; the contract is the authority.
 */
export class PieceTable {
  /** `#levels[0]` has one node per slot; missing nodes on the right are empty subtrees. */
  #levels: TableNode[][] = [[]];
  #slots: (TableLeaf | undefined)[] = [];

  /** Slots ever used, including emptied ones. */
  get slots(): number {
    return this.#slots.length;
  }

  /** Levels between a slot and the root; the table doubles when it is full. */
  get depth(): number {
    return this.#levels.length - 1;
  }

  get leaves(): bigint {
    return this.#node(this.depth, 0).leaves;
  }

  get weight(): bigint {
    return this.#node(this.depth, 0).weight;
  }

  get root(): Hex {
    return bytesToHex(this.#node(this.depth, 0).hash);
  }

  /** The piece in a slot; `undefined` when the slot is empty or was never used. */
  leafAt(slot: number): TableLeaf | undefined {
    return this.#slots[slot];
  }

  /** The slot of a deal, or `undefined`. */
  slotOf(dealId: bigint): number | undefined {
    const slot = this.#slots.findIndex((leaf) => leaf?.dealId === dealId);
    return slot < 0 ? undefined : slot;
  }

  /** The slot for the next insert: the lowest emptied one, else a new one. */
  freeSlot(): number {
    const slot = this.#slots.indexOf(undefined);
    return slot < 0 ? this.#slots.length : slot;
  }

  /** @throws table-slot-taken, table-slot-out-of-range, table-overflow */
  insert(slot: number, leaf: TableLeaf): void {
    if (slot < 0 || slot > this.slots || !Number.isInteger(slot)) throw outOfRange(slot, this.slots);
    if (this.#slots[slot] !== undefined)
      throw slotError('table-slot-taken', slot, `Slot ${slot} already holds deal ${this.#slots[slot].dealId}`);
    const overflows = (this.leaves + leaf.leaves) >> LEAF_BITS || (this.weight + leaf.weight) >> WEIGHT_BITS;
    if (overflows) throw slotError('table-overflow', slot, 'The sums of the table would overflow');
    if (slot === 2 ** this.depth) this.#grow();
    this.#slots[slot] = leaf;
    this.#write(slot, { hash: hashLeaf(leaf), leaves: leaf.leaves, weight: leaf.weight });
  }

  /** @throws table-slot-empty */
  remove(slot: number): TableLeaf {
    const leaf = this.#slots[slot];
    if (leaf === undefined) throw slotError('table-slot-empty', slot, `Slot ${slot} is empty`);
    this.#slots[slot] = undefined;
    this.#write(slot, emptyNode(0));
    return leaf;
  }

  /**
   * The path of a slot, packed: one sibling per level from the bottom. For `slot === slots` it is the path that the contract
   * wants for an append, in the table grown first where it is full.
   * @throws table-slot-out-of-range
   */
  path(slot: number): Uint8Array {
    if (slot < 0 || slot > this.slots || !Number.isInteger(slot)) throw outOfRange(slot, this.slots);
    const grows = slot !== 0 && slot === 2 ** this.depth;
    const packed = new Uint8Array((this.depth + (grows ? 1 : 0)) * SIBLING_BYTES);
    for (let level = 0; level * SIBLING_BYTES < packed.length; level += 1) {
      const sibling = this.#node(level, Math.floor(slot / 2 ** level) ^ 1);
      packed.set(sibling.hash, level * SIBLING_BYTES);
      packed.set(numberBytes(sibling.leaves, 8), level * SIBLING_BYTES + 32);
      packed.set(numberBytes(sibling.weight, 16), level * SIBLING_BYTES + 40);
    }
    return packed;
  }

  /** The slot that holds payload leaf number `offset` of all, and which of its leaves that is. `offset` < `leaves`. */
  findLeaf(offset: bigint): { slot: number; leafIndex: bigint } {
    const { slot, rest } = this.#descend('leaves', offset);
    return { slot, leafIndex: rest };
  }

  /** The slot in which `offset` of the summed weights falls. `offset` < `weight`. */
  findWeight(offset: bigint): number {
    return this.#descend('weight', offset).slot;
  }

  /** An independent copy. Nodes are never changed in place, so only the arrays are copied. */
  copy(): PieceTable {
    const copy = new PieceTable();
    copy.#levels = this.#levels.map((level) => [...level]);
    copy.#slots = [...this.#slots];
    return copy;
  }

  #descend(sum: 'leaves' | 'weight', offset: bigint): { slot: number; rest: bigint } {
    if (offset < 0n || offset >= this[sum]) {
      throw new MillraceError('table-offset-out-of-range', {
        actor: 'bug',
        message: `Got offset ${offset}, expected less than ${this[sum]}`,
        values: { offset, limit: this[sum] },
      });
    }
    let slot = 0;
    let rest = offset;
    for (let level = this.depth - 1; level >= 0; level -= 1) {
      slot *= 2;
      const left = this.#node(level, slot)[sum];
      if (rest >= left) {
        rest -= left;
        slot += 1;
      }
    }
    return { slot, rest };
  }

  #grow(): void {
    const oldRoot = this.#node(this.depth, 0);
    this.#levels.push([hashNode(oldRoot, emptyNode(this.depth))]);
  }

  #write(slot: number, node: TableNode): void {
    (this.#levels[0] as TableNode[])[slot] = node;
    for (let level = 1, index = slot >> 1; level <= this.depth; level += 1, index >>= 1) {
      (this.#levels[level] as TableNode[])[index] = hashNode(this.#node(level - 1, index * 2), this.#node(level - 1, index * 2 + 1));
    }
  }

  #node(level: number, index: number): TableNode {
    return this.#levels[level]?.[index] ?? emptyNode(level);
  }
}

/**
 * The table after all changes, or after those of blocks earlier than `before` (seconds). With `before` = freezeTime(period) it is the
 * table that a proof of that period is checked against, because a frozen table takes no change.
 * @throws table-slot-taken, table-slot-empty, table-slot-out-of-range
 */
export function rebuildTable(changes: Iterable<TableChange>, before?: bigint): PieceTable {
  const table = new PieceTable();
  for (const change of changes) {
    if (before !== undefined && change.timestamp >= before) break;
    if (change.kind === 'inserted') table.insert(change.slot, change.leaf);
    else table.remove(change.slot);
  }
  return table;
}

/** keccak256(abi.encode(pieceRoot, pieceHeight, leaves, weight, dealId)). */
export function hashLeaf(leaf: TableLeaf): Uint8Array {
  const encoded = new Uint8Array(160);
  encoded.set(hexToBytes(leaf.pieceRoot), 0);
  encoded.set(numberBytes(BigInt(leaf.pieceHeight), 32), 32);
  encoded.set(numberBytes(leaf.leaves, 32), 64);
  encoded.set(numberBytes(leaf.weight, 32), 96);
  encoded.set(numberBytes(leaf.dealId, 32), 128);
  return keccak_256(encoded);
}

/** An unsigned integer as `length` big-endian bytes. @throws number-too-large */
export function numberBytes(value: bigint, length: number): Uint8Array {
  if (value < 0n || value >> BigInt(length * 8)) {
    throw new MillraceError('number-too-large', {
      actor: 'bug',
      message: `${value} does not fit ${length} bytes`,
      values: { value, length },
    });
  }
  const bytes = new Uint8Array(length);
  for (let index = length - 1, rest = value; rest > 0n; index -= 1, rest >>= 8n) bytes[index] = Number(rest & 255n);
  return bytes;
}

/** keccak256(leftHash ++ leftSums ++ rightHash ++ rightSums), sums = leaves << 128 | weight in 32 bytes. */
function hashNode(left: TableNode, right: TableNode): TableNode {
  const encoded = new Uint8Array(128);
  encoded.set(left.hash, 0);
  encoded.set(numberBytes((left.leaves << WEIGHT_BITS) | left.weight, 32), 32);
  encoded.set(right.hash, 64);
  encoded.set(numberBytes((right.leaves << WEIGHT_BITS) | right.weight, 32), 96);
  return { hash: keccak_256(encoded), leaves: left.leaves + right.leaves, weight: left.weight + right.weight };
}

const emptyNodes: TableNode[] = [{ hash: EMPTY_HASH, leaves: 0n, weight: 0n }];

function emptyNode(level: number): TableNode {
  for (let next = emptyNodes.length; next <= level; next += 1) {
    const below = emptyNodes[next - 1] as TableNode;
    emptyNodes.push(hashNode(below, below));
  }
  return emptyNodes[level] as TableNode;
}

function outOfRange(slot: number, slots: number): MillraceError {
  return slotError('table-slot-out-of-range', slot, `Got slot ${slot}, expected at most ${slots}`);
}

function slotError(code: string, slot: number, message: string): MillraceError {
  return new MillraceError(code, {
    actor: 'bug',
    message,
    values: { slot },
    hint: 'The copy of the piece table is not that of the chain: rebuild it from the events.',
  });
}
