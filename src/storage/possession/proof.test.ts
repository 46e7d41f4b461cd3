import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { keccak256, size, sliceHex, toHex } from 'viem';
import { drawLeaves } from './draws.ts';
import { samplePiece } from './proof.cases.ts';
import { answerDraws, climbPiece, packOpenings, packPieceOpenings, unpackOpenings } from './proof.ts';
import { PieceTable, type TableLeaf } from './table.ts';
import { possessionVectorsFile, possessionVectorsText } from './vectors.cases.ts';

const counts = { byBytes: 3, byWeight: 3, rotationMin: 2, rotationPeriods: 2 };

function sampleTable(pieces: number) {
  const table = new PieceTable();
  const samples = Array.from({ length: pieces }, (_, slot) => {
    const sample = samplePiece(`piece ${slot}`, {
      height: slot % 5,
      leaves: BigInt(Math.max(1, 2 ** (slot % 5) - 1)),
      weight: 5n,
      dealId: BigInt(slot),
    });
    table.insert(slot, sample.leaf);
    return sample;
  });
  const openPiece = (leaf: TableLeaf, leafIndex: bigint) => (samples[Number(leaf.dealId)] as (typeof samples)[0]).open(leafIndex);
  return { table, samples, openPiece };
}

test('unpacking a packed proof gives the openings back', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 12 }), fc.nat(), async (pieces, number) => {
      const { table, openPiece } = sampleTable(pieces);
      if (pieces > 2) table.remove(number % pieces);
      const draws = drawLeaves({ table, counts, seed: keccak256(toHex(number)), operatorId: 1n, period: BigInt(number), times: 1 });
      const openings = await answerDraws({ table, draws, openPiece, isOver: (dealId) => dealId % 3n === 0n });
      const proof = packOpenings(openings);
      const plain = (list: typeof openings) =>
        list.map((each) =>
          JSON.parse(
            JSON.stringify(each, (_, value) =>
              typeof value === 'bigint'
                ? `${value}`
                : value instanceof Uint8Array
                  ? toHex(new Uint8Array(value))
                  : value?.type === 'Buffer'
                    ? toHex(Uint8Array.from(value.data))
                    : value,
            ),
          ),
        );
      assert.deepEqual(plain(unpackOpenings(proof, table.depth)), plain(openings));
      assert.throws(() => unpackOpenings(sliceHex(proof, 0, size(proof) - 1), table.depth), { code: 'bad-opening' });
    }),
    { numRuns: 40 },
  );
});

test('a leaf and its path lead to the root of the piece; with one flipped bit they do not', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 6 }), fc.nat(), fc.nat(), (height, choice, bit) => {
      const { leaf, open } = samplePiece('flip', { height, leaves: 1n, weight: 1n, dealId: 1n });
      const leafIndex = BigInt(choice % 2 ** height);
      const opening = open(leafIndex);
      assert.equal(climbPiece(opening, leafIndex), leaf.pieceRoot);
      const packed = Buffer.concat([opening.value, opening.path]);
      const at = (bit >> 3) % packed.length;
      packed[at] = (packed[at] as number) ^ (1 << (bit & 7));
      assert.notEqual(climbPiece({ value: packed.subarray(0, 32), path: packed.subarray(32) }, leafIndex), leaf.pieceRoot);
    }),
  );
});

test('openings of the wrong length are refused before anything is sent', () => {
  const { leaf, open } = samplePiece('short', { height: 3, leaves: 8n, weight: 1n, dealId: 1n });
  const opening = open(2n);
  assert.equal(size(packPieceOpenings([opening, opening])), 2 * 32 * 4);
  const short = { ...opening, path: opening.path.subarray(32) };
  assert.throws(() => packOpenings([{ slot: 0, tablePath: new Uint8Array(), leaf, piece: short }]), { code: 'bad-opening' });
  assert.throws(() => unpackOpenings('0x0000000003', 0), { code: 'bad-opening' });
});

test('the vectors that forge reads are those of this code', async () => {
  assert.equal(
    await possessionVectorsText(),
    readFileSync(possessionVectorsFile, 'utf8'),
    'run: sh tools/node.sh tools/possession-vectors.ts',
  );
});
