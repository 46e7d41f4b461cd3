import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { copyFile, mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CID } from 'multiformats/cid';
import { silentLogger } from '../../log.ts';
import { cidOf, DAG_PB, encodeFileNode, RAW } from '../content/block.ts';
import { encodeCarHeader, encodeSectionPrefix } from '../content/car.ts';
import { type BuiltContent, buildContent } from '../content/content.ts';
import { type Hex, pieceOf } from '../content/piece.ts';
import { rootOfOpening } from '../content/piece-tree.ts';
import { openPieceStore, type PieceStore } from './piece-store.ts';

let folder = '';
let count = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-piece-store-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const freshFolder = () => {
  count += 1;
  return join(folder, `${count}`);
};
const openStore = (path = freshFolder(), quotaBytes = 1 << 30) => openPieceStore({ folder: path, quotaBytes, log: silentLogger });

async function content(sizes: number[], isPublic = true): Promise<BuiltContent> {
  const source = freshFolder();
  await mkdir(source);
  for (const [index, size] of sizes.entries()) await writeFile(join(source, `file-${index}`), randomBytes(size));
  return buildContent({ source: { path: source }, workFolder: freshFolder(), public: isPublic });
}

const wantedOf = (built: BuiltContent) => ({ root: built.piece.root, rawSize: built.carSize, cid: built.cid });

async function store(into: PieceStore, built: BuiltContent) {
  const receiver = await into.receive(wantedOf(built));
  await receiver.append(createReadStream(built.carPath), { offset: receiver.offset });
  return receiver.commit();
}

async function payloadOf(from: PieceStore, root: Hex, range?: { start: number; end: number }): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of from.readPayload(root, range)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('a received piece is verified, indexed, provable and readable, and is there after a restart', async () => {
  const path = freshFolder();
  const built = await content([3_000_000, 100, 70_000]);
  const first = await openStore(path);
  const stored = await store(first, built);
  assert.equal(stored.cid, built.cid);
  assert.equal(stored.isDepthFirst, true);
  const { cid: _cid, blocks: _blocks, isDepthFirst: _isDepthFirst, storedAtMs: _storedAtMs, ...piece } = stored;
  assert.deepEqual(piece, built.piece);
  await first.close();
  const again = await openStore(path);
  assert.deepEqual(again.list(), [stored]);
  assert.deepEqual(again.pieceOfContent(CID.parse(built.cid)), stored);
  const car = await readFile(built.carPath);
  assert.deepEqual(await payloadOf(again, stored.root), car);
  assert.deepEqual(await payloadOf(again, stored.root, { start: 100, end: 1000 }), car.subarray(100, 1000));
  for (const leaf of [0, 12_345, stored.payloadLeaves - 1]) {
    const root = rootOfOpening(await again.openLeaf(stored.root, leaf), leaf);
    assert.equal(`0x${Buffer.from(root).toString('hex')}`, stored.root);
  }
  const rootBlock = (await again.block(CID.parse(built.cid))) as Uint8Array;
  assert.equal(cidOf(DAG_PB, rootBlock).toString(), built.cid);
  assert.equal(await again.block(cidOf(RAW, randomBytes(10))), undefined);
  const { storedBytes } = await again.usage();
  const onDisk = await Promise.all(
    (await readdir(join(path, 'pieces'))).filter((name) => !name.endsWith('.json')).map((name) => stat(join(path, 'pieces', name))),
  );
  assert.equal(
    storedBytes,
    onDisk.reduce((sum, { size }) => sum + size, 0),
  );
  await again.delete(stored.root);
  assert.deepEqual(await readdir(join(path, 'pieces')), []);
  assert.throws(() => again.readPayload(stored.root), { code: 'piece-unknown' });
  await again.close();
});

test('an upload that breaks off goes on at the durable offset, also after a restart', async () => {
  const path = freshFolder();
  const built = await content([2_500_000]);
  const car = await readFile(built.carPath);
  const first = await openStore(path);
  const receiver = await first.receive(wantedOf(built));
  const breaking = (async function* () {
    yield car.subarray(0, 1_000_000);
    throw new Error('connection reset');
  })();
  await assert.rejects(receiver.append(breaking, { offset: 0 }), { code: 'upload-cut', actor: 'caller' });
  assert.equal(receiver.offset, 1_000_000);
  await assert.rejects(receiver.append([] as never, { offset: 5 }), { code: 'upload-offset-mismatch' });
  await assert.rejects(receiver.commit(), { code: 'upload-incomplete' });
  await first.close();
  const second = await openStore(path);
  assert.equal((await second.usage()).reservedBytes, built.carSize);
  const goingOn = await second.receive(wantedOf(built));
  assert.equal(goingOn.offset, 1_000_000);
  await goingOn.append(createReadStream(built.carPath, { start: 1_000_000 }), { offset: 1_000_000 });
  assert.equal((await goingOn.commit()).root, built.piece.root);
  assert.deepEqual(await readdir(join(path, 'incoming')), []);
  assert.equal((await second.receive(wantedOf(built))).offset, built.carSize);
  await second.close();
});

test('a provider killed while it receives goes on at the durable offset without loss', async () => {
  const path = freshFolder();
  const built = await content([90_000_000]);
  const script = join(folder, 'receive.ts');
  const here = new URL('.', import.meta.url).pathname;
  await writeFile(
    script,
    `import { createReadStream } from 'node:fs';
import { openPieceStore } from '${here}piece-store.ts';
import { silentLogger } from '${here}../log.ts';
const store = await openPieceStore({ folder: ${JSON.stringify(path)}, quotaBytes: 1e12, log: silentLogger });
const receiver = await store.receive(${JSON.stringify(wantedOf(built))});
async function* slowly() {
  for await (const chunk of createReadStream(${JSON.stringify(built.carPath)}, { start: receiver.offset, highWaterMark: 1 << 20 })) {
    yield chunk;
    await new Promise((resolve) => setTimeout(resolve, 2));
    console.log(receiver.offset);
  }
}
await receiver.append(slowly(), { offset: receiver.offset });
`,
  );
  let acknowledged = 0;
  const child = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout.on('data', (text: Buffer) => {
    acknowledged = Math.max(acknowledged, ...text.toString().trim().split('\n').map(Number));
    if (acknowledged > 0) child.kill('SIGKILL');
  });
  await once(child, 'exit');
  const reopened = await openStore(path);
  const receiver = await reopened.receive(wantedOf(built));
  assert.ok(receiver.offset >= acknowledged && receiver.offset < built.carSize, `offset ${receiver.offset}, acknowledged ${acknowledged}`);
  await receiver.append(createReadStream(built.carPath, { start: receiver.offset }), { offset: receiver.offset });
  assert.equal((await receiver.commit()).root, built.piece.root);
  await reopened.close();
});

test('a crash between the record and the payload leaves no half piece, and committing again works', async () => {
  const path = freshFolder();
  const built = await content([500_000]);
  const first = await openStore(path);
  const stored = await store(first, built);
  await first.close();
  // as it is when the machine stops just before the payload is renamed
  const pieces = join(path, 'pieces');
  await copyFile(join(pieces, `${stored.root}.car`), join(path, 'incoming', `${stored.root}.part`));
  await writeFile(join(path, 'incoming', `${stored.root}.json`), JSON.stringify({ version: 1, ...wantedOf(built), offset: built.carSize }));
  await rm(join(pieces, `${stored.root}.car`));
  const second = await openStore(path);
  assert.deepEqual(second.list(), []);
  assert.deepEqual(await readdir(pieces), []);
  const receiver = await second.receive(wantedOf(built));
  assert.equal(receiver.offset, built.carSize);
  assert.equal((await receiver.commit()).root, stored.root);
  await second.close();
});

test('wrong bytes are refused and nothing of them stays', async () => {
  const path = freshFolder();
  const built = await content([1_500_000]);
  const other = await content([1_500_000]);
  const car = await readFile(built.carPath);
  const into = await openStore(path);
  const tries: [string, Buffer, object][] = [
    ['bad-block', Buffer.concat([car.subarray(0, 800_000), Buffer.from([0]), car.subarray(800_001)]), {}],
    ['bad-car', randomBytes(car.length), {}],
    ['piece-mismatch', (await readFile(other.carPath)).subarray(0, car.length), {}],
    ['piece-mismatch', car, { cid: other.cid }],
  ];
  for (const [code, bytes, difference] of tries) {
    const receiver = await into.receive({ ...wantedOf(built), rawSize: bytes.length, ...difference });
    const attempt = async () => {
      await receiver.append([bytes] as never, { offset: 0 });
      await receiver.commit();
    };
    await assert.rejects(attempt(), { code, actor: 'peer' });
    assert.deepEqual([await readdir(join(path, 'incoming')), await readdir(join(path, 'pieces'))], [[], []], code);
  }
  const tooLong = await into.receive({ ...wantedOf(built), rawSize: 1000 });
  await assert.rejects(tooLong.append([car] as never, { offset: 0 }), { code: 'upload-too-big', actor: 'caller' });
  await into.close();
});

test('a CAR that lacks a block it links to is refused: it could not be retrieved', async () => {
  const [first, second] = [randomBytes(100), randomBytes(100)];
  const leaves = [first, second].map((block) => ({ cid: cidOf(RAW, block), tsize: 100, fileBytes: 100 }));
  const node = encodeFileNode(leaves);
  const root = cidOf(DAG_PB, node);
  const car = Buffer.concat([
    encodeCarHeader(root),
    encodeSectionPrefix(root, node.length),
    node,
    encodeSectionPrefix(leaves[0]?.cid as CID, 100),
    first,
  ]);
  const into = await openStore();
  const piece = await pieceOf([car]);
  const receiver = await into.receive({ root: piece.root, rawSize: car.length });
  await receiver.append([car] as never, { offset: 0 });
  await assert.rejects(receiver.commit(), { code: 'car-incomplete', actor: 'peer' });
  // another order than depth-first is accepted, and known as such
  const turned = Buffer.concat([
    encodeCarHeader(root),
    ...[1, 0].flatMap((i) => [encodeSectionPrefix(leaves[i]?.cid as CID, 100), [first, second][i] as Buffer]),
    encodeSectionPrefix(root, node.length),
    node,
  ]);
  const turnedPiece = await pieceOf([turned]);
  const again = await into.receive({ root: turnedPiece.root, rawSize: turned.length });
  await again.append([turned] as never, { offset: 0 });
  const stored = await again.commit();
  assert.equal(stored.isDepthFirst, false);
  assert.deepEqual(await into.block(leaves[1]?.cid as CID), second);
  await into.close();
});

test('two requests for the same piece share one receiver, and only one may append at a time', async () => {
  const built = await content([300_000]);
  const into = await openStore();
  const [first, second] = await Promise.all([into.receive(wantedOf(built)), into.receive(wantedOf(built))]);
  assert.equal(first, second);
  const appending = first.append(createReadStream(built.carPath), { offset: 0 });
  await assert.rejects(second.append(createReadStream(built.carPath), { offset: 0 }), { code: 'piece-busy' });
  await appending;
  await first.commit();
  await assert.rejects(
    into
      .receive({ ...wantedOf(built), cid: undefined, rawSize: 5 })
      .then((receiver) => receiver.append([Buffer.alloc(9)] as never, { offset: 0 })),
    {
      code: 'piece-mismatch',
    },
  );
  await into.close();
});

test('a piece that does not fit the quota is refused before a byte is sent, and reservations count', async () => {
  const built = await content([300_000]);
  const other = await content([300_000]);
  const into = await openStore(freshFolder(), 500_000);
  await into.receive(wantedOf(built));
  await assert.rejects(into.receive(wantedOf(other)), { code: 'no-room', actor: 'host' });
  assert.equal((await into.usage()).reservedBytes, built.carSize);
  await (await into.receive(wantedOf(built))).discard();
  assert.equal((await into.receive(wantedOf(other))).offset, 0);
  await into.close();
});

test('unfinished pieces that nobody touches are collected, finished ones never', async () => {
  const path = freshFolder();
  const [built, unfinished] = [await content([50_000]), await content([60_000])];
  const into = await openStore(path);
  await store(into, built);
  const receiver = await into.receive(wantedOf(unfinished));
  await receiver.append(createReadStream(unfinished.carPath, { end: 999 }), { offset: 0 });
  assert.equal(await into.collectGarbage({ unfinishedOlderThanMs: 60_000 }), 0);
  assert.equal(await into.collectGarbage({ unfinishedOlderThanMs: -1000 }), 1);
  assert.deepEqual(await readdir(join(path, 'incoming')), []);
  assert.equal(into.list().length, 1);
  await into.close();
});

test('a full disk is a typed error, and what is durable stays', async (context) => {
  const mounted = freshFolder();
  await mkdir(mounted);
  const mount = spawn('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', mounted], { stdio: 'ignore' });
  const [code] = (await once(mount, 'exit').catch(() => [1])) as [number];
  if (code !== 0) return context.skip('needs the right to mount a small tmpfs');
  try {
    const built = await content([6_000_000]);
    const into = await openStore(mounted);
    await assert.rejects(into.receive(wantedOf(built)), { code: 'no-room' });
    await into.close();
    // the disk fills up after the reservation
    const small = await content([2_000_000]);
    const second = await openStore(mounted);
    const receiver = await second.receive(wantedOf(small));
    const filler = await open(join(mounted, 'filler'), 'w');
    await filler.writeFile(randomBytes(2_500_000));
    await filler.close();
    await assert.rejects(receiver.append(createReadStream(small.carPath), { offset: 0 }), { code: 'disk-full', actor: 'host' });
    await rm(join(mounted, 'filler'));
    await receiver.append(createReadStream(small.carPath, { start: receiver.offset }), { offset: receiver.offset });
    assert.equal((await receiver.commit()).root, small.piece.root);
    await second.close();
  } finally {
    await once(spawn('umount', [mounted], { stdio: 'ignore' }), 'exit');
  }
});

test('damage on the disk is noticed when a block is read, never served', async () => {
  const path = freshFolder();
  const built = await content([200_000]);
  const into = await openStore(path);
  const stored = await store(into, built);
  const file = await open(join(path, 'pieces', `${stored.root}.car`), 'r+');
  await file.write(Buffer.from([1, 2, 3, 4]), 0, 4, 100);
  await file.close();
  await assert.rejects(into.block(CID.parse(built.cid)), { code: 'piece-damaged', actor: 'host' });
  await into.close();
});
