/** CommP beside the usual packages, the whole file-to-piece pipeline and its memory, and leaf openings. CPU seconds count all threads. */
import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as synapse from '@filoz/synapse-core/piece';
import * as multihash from 'fr32-sha2-256-trunc254-padded-binary-tree-multihash';
import { silentLogger } from '../src/log.ts';
import { buildContent, openPieceStore, pieceOf } from '../src/storage/index.ts';

const MIB = 1 << 20;
const folder = await mkdtemp(join(tmpdir(), 'millrace-bench-piece-'));

function pseudoRandom(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed;
  for (let i = 0; i < words.length; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}

async function measure<T>(name: string, amount: number, unit: string, work: () => Promise<T> | T): Promise<T> {
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  const seconds = (performance.now() - startedAt) / 1000;
  const perCpu = (amount / ((user + system) / 1e6)).toFixed(0);
  process.stdout.write(
    `${name.padEnd(66)} ${perCpu.padStart(7)} ${unit} per CPU-second, ${(amount / seconds).toFixed(0).padStart(6)} per second\n`,
  );
  return result;
}

function wasmCommitment(payload: Uint8Array): string {
  const hasher = multihash.create();
  for (let offset = 0; offset < payload.length; offset += MIB) hasher.write(payload.subarray(offset, offset + MIB));
  const digest = new Uint8Array(hasher.multihashByteLength());
  hasher.digestInto(digest, 0, true);
  hasher.free();
  return Buffer.from(digest.subarray(-32)).toString('hex');
}

async function commitments(): Promise<void> {
  const block = pseudoRandom(MIB, 1);
  const repeated = (count: number) => Array.from({ length: count }, () => block);
  await pieceOf(repeated(64));
  await measure('CommP, Millrace (JS fr32 + hashtree), 1 GiB', 1024, 'MiB', () => pieceOf(repeated(1024)));
  const payload = pseudoRandom(64 * MIB, 2);
  const ours = await measure('CommP, Millrace, 64 MiB', 64, 'MiB', () => pieceOf([payload]));
  const wasm = await measure('CommP, fr32-sha2-256-trunc254-padded-binary-tree-multihash, 64 MiB', 64, 'MiB', () =>
    wasmCommitment(payload),
  );
  const theirs = await measure('CommP, @filoz/synapse-core, 64 MiB', 64, 'MiB', () => synapse.calculate(payload).toString());
  assert.equal(ours.root.slice(2), wasm);
  assert.equal(ours.cidV2, theirs);
  for (let i = 0; i < 12; i += 1) {
    const size = Math.floor(127 * ((4 * MIB) / 127) ** Math.random());
    const random = pseudoRandom(size, i + 3);
    assert.equal((await pieceOf([random])).cidV2, synapse.calculate(random).toString());
  }
  process.stdout.write('roots and piece CIDs of all three are equal, on 64 MiB and on 12 random sizes from 127 B to 4 MiB\n');
}

async function pipeline(): Promise<void> {
  const path = join(folder, 'source');
  const file = await open(path, 'w');
  for (let i = 0; i < 1024; i += 1) await file.write(pseudoRandom(MIB, i + 1));
  await file.close();
  for (const isPublic of [true, false]) {
    let peak = 0;
    const watch = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage().rss);
    }, 50);
    const before = process.memoryUsage().rss;
    const workFolder = join(folder, `work-${isPublic}`);
    const name = `file to piece, ${isPublic ? 'public' : 'sealed'}: read, ${isPublic ? '' : 'encrypt, '}UnixFS, CAR on disk, CommP, 1 GiB`;
    const built = await measure(name, 1024, 'MiB', () => buildContent({ source: { path }, workFolder, public: isPublic }));
    clearInterval(watch);
    process.stdout.write(`  memory: ${Math.round(before / MIB)} MiB before, ${Math.round(peak / MIB)} MiB at most\n`);
    if (isPublic) await openings(built.carPath, built.piece.root, built.carSize);
    await rm(workFolder, { recursive: true });
  }
}

async function openings(carPath: string, root: `0x${string}`, rawSize: number): Promise<void> {
  const store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: 1e12, log: silentLogger });
  const receiver = await store.receive({ root, rawSize });
  await measure('provider: receive, CommP, block index, verified commit, 1 GiB', 1024, 'MiB', async () => {
    await receiver.append(createReadStream(carPath, { highWaterMark: MIB }), { offset: 0 });
    await receiver.commit();
  });
  const leaves = store.piece(root)?.payloadLeaves ?? 1;
  await measure('provider: openings of random leaves', 5000, 'leaves', async () => {
    for (let i = 0; i < 5000; i += 1) await store.openLeaf(root, Math.floor(Math.random() * leaves));
  });
  await store.close();
}

try {
  await commitments();
  await pipeline();
} finally {
  await rm(folder, { recursive: true, force: true });
}
