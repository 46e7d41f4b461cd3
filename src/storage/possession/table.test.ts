import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { concatHex, encodeAbiParameters, type Hex, keccak256, padHex, parseAbiParameters, sliceHex, toHex, zeroHash } from 'viem';
import { hashLeaf, numberBytes, PieceTable, rebuildTable, SIBLING_BYTES, type TableChange, type TableLeaf } from './table.ts';

interface Sum {
  hash: Hex;
  leaves: bigint;
  weight: bigint;
}

const ENCODING = parseAbiParameters('bytes32, uint8, uint64, uint128, uint64');
const leaves = fc.record<TableLeaf>({
  pieceRoot: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => toHex(bytes)),
  pieceHeight: fc.integer({ min: 0, max: 32 }),
  leaves: fc.bigInt({ min: 1n, max: 2n ** 32n }),
  weight: fc.bigInt({ min: 1n, max: 2n ** 100n }),
  dealId: fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }),
});

/** The root by the definition, from scratch. */
function rootOf(slots: (TableLeaf | undefined)[]): Sum {
  let level: Sum[] = slots.map((leaf) =>
    leaf === undefined
      ? { hash: zeroHash, leaves: 0n, weight: 0n }
      : {
          hash: keccak256(encodeAbiParameters(ENCODING, [leaf.pieceRoot, leaf.pieceHeight, leaf.leaves, leaf.weight, leaf.dealId])),
          leaves: leaf.leaves,
          weight: leaf.weight,
        },
  );
  let empty: Sum = { hash: zeroHash, leaves: 0n, weight: 0n };
  if (level.length === 0) level = [empty];
  while (level.length > 1) {
    if (level.length % 2 === 1) level.push(empty);
    const below = level;
    level = below.filter((_, index) => index % 2 === 0).map((left, index) => parent(left, below[index * 2 + 1] as Sum));
    empty = parent(empty, empty);
  }
  return level[0] as Sum;
}

function parent(left: Sum, right: Sum): Sum {
  const sums = (node: Sum) => padHex(toHex((node.leaves << 128n) | node.weight), { size: 32 });
  return {
    hash: keccak256(concatHex([left.hash, sums(left), right.hash, sums(right)])),
    leaves: left.leaves + right.leaves,
    weight: left.weight + right.weight,
  };
}

/** The root that a slot and its packed path lead to. */
function climb(leaf: TableLeaf | undefined, slot: number, packed: Uint8Array): Sum {
  let node: Sum = { hash: leaf === undefined ? zeroHash : toHex(hashLeaf(leaf)), leaves: leaf?.leaves ?? 0n, weight: leaf?.weight ?? 0n };
  for (let level = 0; level * SIBLING_BYTES < packed.length; level += 1) {
    const bytes = toHex(packed.subarray(level * SIBLING_BYTES, (level + 1) * SIBLING_BYTES));
    const sibling = { hash: sliceHex(bytes, 0, 32), leaves: BigInt(sliceHex(bytes, 32, 40)), weight: BigInt(sliceHex(bytes, 40, 56)) };
    node = (slot >> level) & 1 ? parent(sibling, node) : parent(node, sibling);
  }
  return node;
}

/** A random history: numbers choose the slot; a taken slot is emptied, an empty one filled. */
const histories = fc.array(fc.tuple(fc.nat(), leaves), { maxLength: 40 });

function play(history: [number, TableLeaf][]): { table: PieceTable; slots: (TableLeaf | undefined)[]; changes: TableChange[] } {
  const table = new PieceTable();
  const slots: (TableLeaf | undefined)[] = [];
  const changes: TableChange[] = [];
  history.forEach(([choice, leaf], index) => {
    const slot = choice % (slots.length + 1);
    const timestamp = BigInt(index);
    if (slots[slot] === undefined) {
      table.insert(slot, leaf);
      slots[slot] = leaf;
      changes.push({ kind: 'inserted', slot, leaf, timestamp });
    } else {
      assert.equal(table.remove(slot), slots[slot]);
      slots[slot] = undefined;
      changes.push({ kind: 'removed', slot, timestamp });
    }
  });
  return { table, slots, changes };
}

test('after any history root and sums are those of a table built from scratch, and every path leads to the root', () => {
  fc.assert(
    fc.property(histories, (history) => {
      const { table, slots } = play(history);
      const expected = rootOf(slots);
      assert.deepEqual({ hash: table.root, leaves: table.leaves, weight: table.weight }, expected);
      slots.forEach((leaf, slot) => {
        assert.deepEqual(climb(leaf, slot, table.path(slot)), expected);
      });
    }),
  );
});

test('the path for an append is that of the slot in the table grown by one', () => {
  fc.assert(
    fc.property(histories, leaves, (history, leaf) => {
      const { table } = play(history);
      const path = table.path(table.slots);
      const slot = table.slots;
      table.insert(slot, leaf);
      assert.deepEqual(climb(leaf, slot, path).hash, table.root);
    }),
  );
});

test('filling and emptying a slot again leaves the root as it was, and a copy does not follow its original', () => {
  fc.assert(
    fc.property(histories, leaves, (history, leaf) => {
      const { table } = play(history);
      const copy = table.copy();
      const slot = table.freeSlot();
      if (slot === table.slots) return;
      table.insert(slot, leaf);
      assert.equal(table.slotOf(leaf.dealId) !== undefined, true);
      assert.notEqual(table.root, copy.root);
      table.remove(slot);
      assert.equal(table.root, copy.root);
    }),
  );
});

test('a table rebuilt before a freeze holds no change of that block or later ones', () => {
  fc.assert(
    fc.property(histories, fc.nat({ max: 45 }), (history, before) => {
      const { changes, table } = play(history);
      assert.equal(rebuildTable(changes, BigInt(before)).root, play(history.slice(0, before)).table.root);
      assert.equal(rebuildTable(changes).root, table.root);
    }),
  );
});

test('every leaf and every unit of weight is found in its slot', () => {
  fc.assert(
    fc.property(histories, fc.bigInt({ min: 0n, max: 2n ** 200n }), (history, number) => {
      const { table, slots } = play(history);
      if (table.leaves === 0n) return;
      const { slot, leafIndex } = table.findLeaf(number % table.leaves);
      const before = slots.slice(0, slot).reduce((sum, leaf) => sum + (leaf?.leaves ?? 0n), 0n);
      assert.equal(before + leafIndex, number % table.leaves);
      assert.ok(leafIndex < (slots[slot]?.leaves ?? 0n));
      const weighed = table.findWeight(number % table.weight);
      const weightBefore = slots.slice(0, weighed).reduce((sum, leaf) => sum + (leaf?.weight ?? 0n), 0n);
      const offset = (number % table.weight) - weightBefore;
      assert.ok(offset >= 0n && offset < (slots[weighed]?.weight ?? 0n));
    }),
  );
});

test('changes that the contract would refuse are refused with a code', () => {
  const table = new PieceTable();
  const leaf: TableLeaf = { pieceRoot: zeroHash, pieceHeight: 0, leaves: 1n, weight: 1n, dealId: 1n };
  assert.equal(table.root, zeroHash);
  assert.throws(() => table.insert(1, leaf), { code: 'table-slot-out-of-range' });
  assert.throws(() => table.remove(0), { code: 'table-slot-empty' });
  table.insert(0, leaf);
  assert.throws(() => table.insert(0, leaf), { code: 'table-slot-taken' });
  assert.throws(() => table.path(2), { code: 'table-slot-out-of-range' });
  assert.throws(() => table.findLeaf(1n), { code: 'table-offset-out-of-range' });
  assert.throws(() => table.insert(1, { ...leaf, leaves: 2n ** 64n - 1n }), { code: 'table-overflow' });
  assert.throws(() => numberBytes(256n, 1), { code: 'number-too-large' });
});
