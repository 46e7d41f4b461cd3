import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createPieceHasher, payloadLeaves } from './commp.ts';
import { completePieceTree, openPieceTree, pieceTreeBytes, rootOfOpening } from './piece-tree.ts';

let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-piece-tree-'));
});
after(() => rm(folder, { recursive: true, force: true }));

async function storePiece(size: number) {
  const payload = randomBytes(size);
  const [payloadPath, treePath] = [join(folder, `${size}.car`), join(folder, `${size}.tree`)];
  await writeFile(payloadPath, payload);
  const kept: Buffer[] = [];
  const hasher = createPieceHasher({ onKeptNodes: (nodes) => void kept.push(Buffer.from(nodes)) });
  hasher.write(payload);
  const piece = hasher.finish();
  await writeFile(treePath, Buffer.concat(kept));
  const file = await open(treePath, 'r+');
  await completePieceTree(file, piece);
  await file.close();
  return { piece, payloadPath, treePath };
}

test('every opened leaf leads to the root, for pieces of many shapes', async () => {
  for (const size of [1, 127, 128, 5000, 32_512, 32_513, 100_000, 260_097, 1_040_384, 3_000_001]) {
    const { piece, payloadPath, treePath } = await storePiece(size);
    assert.equal((await stat(treePath)).size, pieceTreeBytes(piece), `tree file of ${size}`);
    const tree = await openPieceTree({ payloadPath, treePath, shape: piece });
    const leaves = payloadLeaves(size);
    for (const index of [0, 1, leaves >> 1, leaves - 1, 2 ** piece.height - 1, Math.floor(Math.random() * leaves)]) {
      const opening = await tree.openLeaf(index);
      assert.equal(opening.path.length, piece.height);
      assert.deepEqual(Buffer.from(rootOfOpening(opening, index)), Buffer.from(piece.root), `size ${size} leaf ${index}`);
    }
    await tree.close();
  }
});

test('a leaf of a damaged or truncated payload is refused, never opened wrongly', async () => {
  const { piece, payloadPath, treePath } = await storePiece(500_000);
  const file = await open(payloadPath, 'r+');
  await file.write(Buffer.from([0xff, 0x00, 0xff]), 0, 3, 40_000);
  await file.truncate(400_000);
  await file.close();
  const tree = await openPieceTree({ payloadPath, treePath, shape: piece });
  await assert.rejects(tree.openLeaf(Math.floor(40_000 / 31.75)), { code: 'piece-damaged', actor: 'host' });
  await assert.rejects(tree.openLeaf(payloadLeaves(500_000) - 1), { code: 'piece-damaged' });
  await assert.rejects(tree.openLeaf(2 ** piece.height), { code: 'bad-leaf-index' });
  assert.equal((await tree.openLeaf(0)).leaf.length, 32);
  await tree.close();
});

test('a piece whose files are gone is a typed error', async () => {
  const { piece, payloadPath, treePath } = await storePiece(70_000);
  await rm(treePath);
  await assert.rejects(openPieceTree({ payloadPath, treePath, shape: piece }), { code: 'piece-damaged' });
  await rm(payloadPath);
  await assert.rejects(openPieceTree({ payloadPath, treePath, shape: piece }), { code: 'piece-damaged' });
});
