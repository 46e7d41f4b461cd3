import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import * as synapse from '@filoz/synapse-core/piece';
import fc from 'fast-check';
import * as multihash from 'fr32-sha2-256-trunc254-padded-binary-tree-multihash';
import { CID } from 'multiformats/cid';
import { createPieceHasher, hashNodes, payloadLeaves, pieceHeight, zeroNode } from './commp.ts';
import { FR32_PADDED_BYTES, fr32Pad, fr32Unpad } from './fr32.ts';
import { describePiece, parsePieceCid, pieceCidV1, pieceOf } from './piece.ts';

function pseudoRandom(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
  return bytes;
}

function wasmRoot(payload: Uint8Array): { root: string; height: number } {
  const hasher = multihash.create();
  for (let offset = 0; offset < payload.length; offset += 1 << 20) hasher.write(payload.subarray(offset, offset + (1 << 20)));
  const digest = new Uint8Array(hasher.multihashByteLength());
  hasher.digestInto(digest, 0, true);
  hasher.free();
  return { root: `0x${Buffer.from(digest.subarray(-32)).toString('hex')}`, height: digest.at(-33) as number };
}

test('fr32 padding puts 254 bits in each leaf, as the plain bit-by-bit definition says', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 254, maxLength: 254 }), (raw) => {
      const padded = new Uint8Array(256);
      fr32Pad(raw, 0, 2, padded);
      const expected = new Uint8Array(256);
      for (let bit = 0; bit < 254 * 8; bit += 1) {
        const at = Math.floor(bit / 254) * 256 + (bit % 254);
        const value = ((raw[bit >> 3] as number) >> (bit & 7)) & 1;
        expected[at >> 3] = (expected[at >> 3] as number) | (value << (at & 7));
      }
      assert.deepEqual(padded, expected);
    }),
  );
});

test('a parent node is SHA-256 of its children with the two top bits cleared', () => {
  const [left, right] = [randomBytes(32), randomBytes(32)];
  const expected = createHash('sha256').update(left).update(right).digest();
  expected[31] = (expected[31] as number) & 0x3f;
  assert.deepEqual(Buffer.from(hashNodes(left, right)), expected);
});

test('the root does not depend on how the bytes arrive, and equals the Rust hasher for random sizes', () => {
  fc.assert(
    fc.property(fc.integer({ min: 127, max: 3 << 20 }), fc.integer({ min: 1, max: 600_000 }), fc.integer(), (size, step, seed) => {
      const payload = pseudoRandom(size, seed);
      const hasher = createPieceHasher();
      for (let offset = 0; offset < size; offset += step) hasher.write(payload.subarray(offset, offset + step));
      const { root, height, rawSize } = hasher.finish();
      assert.deepEqual({ root: `0x${Buffer.from(root).toString('hex')}`, height }, wasmRoot(payload));
      assert.equal(rawSize, size);
    }),
    { numRuns: 25 },
  );
});

test('root and height equal the Rust hasher at every edge of a group, a block and a power of two', () => {
  for (const size of [127, 128, 254, 255, 508, 32_511, 32_512, 32_513, 260_095, 260_096, 260_097, 520_192, 520_193, 1_040_384, 1_040_385]) {
    const payload = pseudoRandom(size, size);
    const hasher = createPieceHasher();
    hasher.write(payload);
    const { root, height } = hasher.finish();
    assert.deepEqual({ size, root: `0x${Buffer.from(root).toString('hex')}`, height }, { size, ...wasmRoot(payload) });
  }
});

test('piece CIDs of both versions equal those of synapse-core from 127 B to 64 MiB', async () => {
  const sizes = [127, 128, 1000, 65_536, 999_999, (1 << 20) + 17];
  if (process.env.MILLRACE_DEEP === '1') sizes.push(8_323_072, 8_323_073, 64 << 20);
  for (const size of sizes) {
    const payload = pseudoRandom(size, size + 1);
    const ours = await pieceOf([payload]);
    assert.equal(ours.cidV2, synapse.calculate(payload).toString(), `size ${size}`);
    assert.equal(synapse.getSizeFromPieceCID(ours.cidV2), size);
    assert.deepEqual(parsePieceCid(ours.cidV2), { root: ours.root, height: ours.height, rawSize: size });
    assert.deepEqual(parsePieceCid(ours.cidV1), { root: ours.root });
  }
});

test('64 MiB gives the same root as the Rust hasher', async () => {
  const payload = pseudoRandom(64 << 20, 64);
  const ours = await pieceOf([payload]);
  assert.deepEqual({ root: ours.root, height: ours.height }, wasmRoot(payload));
});

/** Zero commitments of Filecoin's proofs (zerocomm table), from 128 B to 2 TiB, and two well-known piece CIDs. */
const ZERO_COMMITMENTS = [
  '3731bb99ac689f66eef5973e4a94da188f4ddcae580724fc6f3fd60dfd488333',
  '642a607ef886b004bf2c1978463ae1d4693ac0f410eb2d1b7a47fe205e5e750f',
  '57a2381a28652bf47f6bef7aca679be4aede5871ab5cf3eb2c08114488cb8526',
  '1f7ac9595510e09ea41c460b176430bb322cd6fb412ec57cb17d989a4310372f',
  'fc7e928296e516faade986b28f92d44a4f24b935485223376a799027bc18f833',
  '08c47b38ee13bc43f41b915c0eed9911a26086b3ed62401bf9d58b8d19dff624',
  'b2e47bfb11facd941f62af5c750f3ea5cc4df517d5c4f16db2b4d77baec1a32f',
  'f9226160c8f927bfdcc418cdf203493146008eaefb7d02194d5e548189005108',
  '2c1a964bb90b59ebfe0f6da29ad65ae3e417724a8f7c11745a40cac1e5e74011',
  'fee378cef16404b199ede0b13e11b624ff9d784fbbed878d83297e795e024f02',
  '8e9e2403fa884cf6237f60df25f83ee40dca9ed879eb6f6352d15084f5ad0d3f',
  '752d9693fa167524395476e317a98580f00947afb7a30540d625a9291cc12a07',
  '7022f60f7ef6adfa17117a52619e30cea82c68075adf1c667786ec506eef2d19',
  'd99887b973573a96e11393645236c17b1f4c7034d723c7a99f709bb4da61162b',
  'd0b530dbb0b4f25c5d2f2a28dfee808b53412a02931f18c499f5a254086b1326',
  '84c0421ba0685a01bf795a2344064fe424bd52a9d24377b394ff4c4b4568e811',
  '65f29e5d98d246c38b388cfc06db1f6b021303c5a289000bdce832a9c3ec421c',
  'a2247508285850965b7e334b3127b0c042b1d046dc54402137627cd8799ce13a',
  'dafdab6da9364453c26d33726b9fefe343be8f81649ec009aad3faff50617508',
  'd941d5e0d6314a995c33ffbd4fbe69118d73d4e5fd2cd31f0f7c86ebdd14e706',
  '514c435c3d04d349a5365fbd59ffc713629111785991c1a3c53af22079741a2f',
  'ad06853969d37d34ff08e09f56930a4ad19a89def60cbfee7e1d3381c1e71c37',
  '39560e7b13a93b07a243fd2720ffa7cb3e1d2e505ab3629e79f46313512cda06',
  'ccc3c012f5b05e811a2bbfdd0f6833b84275b47bf229c0052a82484f3c1a5b3d',
  '7df29b69773199e8f2b40b77919d048509eed768e2c7297b1f1437034fc3c62c',
  '66ce05a3667552cf45c02bcc4e8392919bdeac35de2ff56271848e9f7b675107',
  'd8610218425ab5e95b1ca6239d29a2e420d706a96f373e2f9c9a91d759d19b01',
  '6d364b1ef846441a5a4a68862314acc0a46f016717e53443e839eedf83c2853c',
  '077e5fde35c50a9303a55009e3498a4ebedff39c42b710b730d8ec7ac7afa63e',
  'e64005a6bfe3777953b8ad6ef93f0fca1049b2041654f2a411f7702799cece02',
  '259d3d6b1f4d876d1185e1123af6f5501af0f67cf15b5216255b7b178d12051d',
  '3f9a4d411da4ef1b36f35ff0a195ae392ab23fee7967b7c41b03d1613fc29239',
  'fe4ef328c61aa39cfdb2484eaa32a151b1fe3dfd1f96dd8c9711fd86d6c58113',
  'f55d68900e2d8381eccb8164cb9976f24b2de0dd61a31b97ce6eb23850d5e819',
  'aaaa8c4cb40aacee1e02dc65424b2a6c8e99f803b72f7929c4101d7fae6bff32',
];

test('zero pieces have the official values', async () => {
  for (const [index, expected] of ZERO_COMMITMENTS.entries()) assert.equal(Buffer.from(zeroNode(index + 2)).toString('hex'), expected);
  for (let height = 2; height <= 20; height += 1) {
    const piece = await pieceOf([new Uint8Array(2 ** (height - 2) * 127)]);
    assert.deepEqual({ root: piece.root, height: piece.height }, { root: `0x${ZERO_COMMITMENTS[height - 2]}`, height });
  }
  assert.equal(pieceCidV1(zeroNode(30)).toString(), 'baga6ea4seaqao7s73y24kcutaosvacpdjgfe5pw76ooefnyqw4ynr3d2y6x2mpq');
  assert.equal(pieceCidV1(zeroNode(31)).toString(), 'baga6ea4seaqomqafu276g53zko4k23xzh4h4uecjwicbmvhsuqi7o4bhthhm4aq');
});

test('a piece below 127 bytes is zero-filled to 127 and its v2 CID says so', async () => {
  const payload = pseudoRandom(65, 9);
  const filled = new Uint8Array(127);
  filled.set(payload);
  const piece = await pieceOf([payload]);
  assert.equal(piece.root, (await pieceOf([filled])).root);
  assert.equal(piece.paddedSize, 128);
  assert.equal(parsePieceCid(piece.cidV2).rawSize, 65);
  assert.equal((await pieceOf([])).cidV1, pieceCidV1(zeroNode(2)).toString());
});

test('payload leaves are the leaves that the raw bits touch', () => {
  assert.deepEqual([0, 1, 31, 32, 63, 64, 127, 128].map(payloadLeaves), [0, 1, 1, 2, 2, 3, 4, 5]);
  assert.deepEqual([1, 127, 128, 254, 255].map(pieceHeight), [2, 2, 3, 3, 4]);
});

test('a text that is no piece CID is refused with a typed error', () => {
  const wrong = [
    '',
    'x'.repeat(500),
    CID.createV1(0x55, {
      code: 0x12,
      size: 32,
      digest: new Uint8Array(32),
      bytes: new Uint8Array([0x12, 32, ...new Uint8Array(32)]),
    }).toString(),
  ];
  for (const text of wrong) assert.throws(() => parsePieceCid(text), { code: 'bad-piece-cid' });
  const info = describePiece({ root: new Uint8Array(32), height: 5, rawSize: 1016 });
  assert.deepEqual(parsePieceCid(info.cidV2), { root: info.root, height: 5, rawSize: 1016 });
});

test('taking the fr32 padding out gives the payload back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 127 * 3, maxLength: 127 * 3 }), (payload) => {
      const padded = new Uint8Array(FR32_PADDED_BYTES * 3);
      fr32Pad(payload, 0, 3, padded);
      assert.deepEqual(Buffer.from(fr32Unpad(padded)), Buffer.from(payload));
    }),
  );
});
