import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Hex } from 'viem';
import { type DisputePlace, LEVELS_A_ROUND, movesOf, nextPlace, openedNodes, shownLeaves } from './bisection.ts';
import { type Commitment, commitStates, isLeafOf, treeHeight } from './commitment.ts';

const hashOf = (text: string): Hex => `0x${createHash('sha256').update(text).digest('hex')}`;
const SPEC_HASH = hashOf('specification');

/** Commitments to the same job by who ran it and by who made it up from a leaf on. */
function commitments(segments: number, from: number): { operator: Commitment; challenger: Commitment } {
  const states = Array.from({ length: segments + 1 }, (_, index) => hashOf(`state ${index}`));
  const forged = states.map((state, index) => (index < from ? state : hashOf(`forged ${state}`)));
  return { operator: commitStates(SPEC_HASH, forged), challenger: commitStates(SPEC_HASH, states) };
}

/** A dispute as the contract leads it, both sides answering by these functions; the leaf that it comes to, and the moves. */
function walk(operator: Commitment, challenger: Commitment, segments: number): { leaf: number; moves: number } {
  let place: DisputePlace = { depth: treeHeight(segments), index: 0 };
  let moves = 0;
  while (place.depth > 0) {
    const [theirs, own] = [openedNodes(operator, place), openedNodes(challenger, place)];
    assert.ok(theirs.length <= 1 << LEVELS_A_ROUND && theirs.length === own.length);
    const next = nextPlace(place, theirs, own);
    assert.ok(next !== undefined, 'two trees with different roots differ somewhere below');
    place = next;
    moves += 2;
  }
  return { leaf: place.index, moves };
}

test('the walk ends at the first leaf that differs, in the moves that were foretold', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 90 }), fc.nat(), (segments, seed) => {
      const from = seed % (segments + 1);
      const { operator, challenger } = commitments(segments, from);
      const { leaf, moves } = walk(operator, challenger, segments);
      assert.equal(leaf, from);
      assert.equal(moves, movesOf(segments));
      const { start, end } = shownLeaves(operator, leaf);
      assert.ok(isLeafOf(operator.root, segments, start) && isLeafOf(operator.root, segments, end));
      assert.deepEqual([start.index, end.index], leaf === 0 ? [0, 1] : [leaf - 1, leaf]);
    }),
    { numRuns: 40 },
  );
});

test('1,024 segments need three rounds of two moves', () => {
  assert.equal(movesOf(1023), 6);
  assert.equal(movesOf(1024), 6);
});

test('equal trees have no place to go to, and a node outside of the tree is refused', () => {
  const { challenger } = commitments(20, 3);
  const place = { depth: treeHeight(20), index: 0 };
  assert.equal(nextPlace(place, openedNodes(challenger, place), openedNodes(challenger, place)), undefined);
  assert.throws(() => openedNodes(challenger, { depth: 2, index: 99 }), { code: 'bad-segments' });
  assert.throws(() => openedNodes(challenger, { depth: 0, index: 0 }), { code: 'bad-segments' });
});
