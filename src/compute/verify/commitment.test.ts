import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Hex, toHex } from 'viem';
import { encodeStrictState, STATE_PAGE_BYTES, type StrictState } from '../../host/index.ts';
import { chainHashOf, commitStates, isLeafOf, proveLeaf } from './commitment.ts';
import { stateHashOf } from './state-hash.ts';

const VECTOR = join(import.meta.dirname, '../../../contracts/test/compute/segments-vector.json');
const hashOf = (text: string): Hex => `0x${createHash('sha256').update(text).digest('hex')}`;
const statesOf = (count: number) => Array.from({ length: count }, (_, index) => hashOf(`state ${index}`));
const SPEC_HASH = hashOf('specification');

/** What the contracts' test reads; `contracts/test/compute/segments-vector.t.sol` makes the same of it. */
function makeVector() {
  const proven = 5;
  const commitment = commitStates(SPEC_HASH, statesOf(7));
  const page = (text: string) => Buffer.alloc(STATE_PAGE_BYTES, text);
  const globals = Buffer.concat([Buffer.from([0x7f, 1, 2, 3, 4, 0, 0, 0, 0]), Buffer.from([0x7e, 9, 8, 7, 6, 5, 4, 3, 2])]);
  const state: StrictState = {
    end: 'running',
    globals,
    pageCount: 16,
    pages: new Map([
      [3, page('three')],
      [15, page('last')],
    ]),
  };
  const bytes = encodeStrictState(state);
  return {
    commitment: {
      chainHashes: commitment.leaves.map(({ chainHash }) => chainHash),
      proof: proveLeaf(commitment, proven).proof,
      proven,
      root: commitment.root,
      specHash: SPEC_HASH,
      stateHashes: statesOf(7),
    },
    strictState: { state: toHex(bytes), hash: stateHashOf('wasm-strict', bytes, 16 * STATE_PAGE_BYTES) },
  };
}

test('the vector that the contracts are tested with is what this software makes', () => {
  assert.deepEqual(JSON.parse(readFileSync(VECTOR, 'utf8')), makeVector());
});

test('every leaf of a commitment is proven by its own proof, at its own place alone', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(), fc.nat(), (segments, one, other) => {
      const commitment = commitStates(SPEC_HASH, statesOf(segments + 1));
      const [index, elsewhere] = [one % (segments + 1), other % (segments + 1)];
      const leaf = proveLeaf(commitment, index);
      assert.ok(isLeafOf(commitment.root, segments, leaf));
      if (elsewhere !== index) assert.ok(!isLeafOf(commitment.root, segments, { ...leaf, index: elsewhere }));
      assert.ok(!isLeafOf(commitment.root, segments, { ...leaf, stateHash: hashOf('another') }));
      assert.ok(!isLeafOf(commitment.root, segments, { ...leaf, proof: leaf.proof.slice(1) }));
      assert.ok(!isLeafOf(commitment.root, segments, { ...leaf, index: segments + 1 }));
    }),
  );
});

test('a zero word that only fills the tree is no leaf', () => {
  const commitment = commitStates(SPEC_HASH, statesOf(6));
  const filler = { index: 6, chainHash: toHex(0, { size: 32 }), stateHash: toHex(0, { size: 32 }), proof: proveLeaf(commitment, 5).proof };
  assert.ok(!isLeafOf(commitment.root, 5, filler));
  assert.ok(!isLeafOf(commitment.root, 6, filler));
});

test('a chain hash binds specification, place, past and state', () => {
  const good = { specHash: SPEC_HASH, index: 3, previous: hashOf('past'), stateHash: hashOf('state') };
  const changes = [{ specHash: hashOf('x') }, { index: 4 }, { previous: hashOf('x') }, { stateHash: hashOf('x') }];
  const all = [good, ...changes.map((change) => ({ ...good, ...change }))].map(chainHashOf);
  assert.equal(new Set(all).size, all.length);
});

test('a commitment to fewer than two states, or to too many, is refused', () => {
  assert.throws(() => commitStates(SPEC_HASH, statesOf(1)), { code: 'bad-segments' });
  assert.throws(() => proveLeaf(commitStates(SPEC_HASH, statesOf(2)), 2), { code: 'bad-segments' });
});
