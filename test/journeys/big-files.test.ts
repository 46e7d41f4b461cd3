import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { localNetwork, MAIN } from './local-network.ts';

const MIB = 1 << 20;
const SIZE_MIB = 256;
const FILES = 1000;

const network = localNetwork();
const file = join(network.home, 'film.bin');
const folder = join(network.home, 'album');
before(async () => {
  const handle = openSync(file, 'w');
  for (let index = 0; index < SIZE_MIB; index += 1) writeSync(handle, randomFillSync(new Uint8Array(MIB)));
  closeSync(handle);
  for (let index = 0; index < FILES; index += 1) {
    const place = join(folder, `day-${index % 20}`);
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, `photo-${index}.raw`), randomFillSync(new Uint8Array((index * 37) % 9000)));
  }
  await network.json('up', '--detach');
});
after(() => network.remove());

/** SHA-256 over names and bytes of a file or of everything below a folder. */
function digestOf(path: string): string {
  const sum = createHash('sha256');
  if (statSync(path).isFile()) return sum.update(readFileSync(path)).digest('hex');
  for (const name of readdirSync(path, { recursive: true, encoding: 'utf8' }).sort()) {
    sum.update(`${name}\0`);
    if (statSync(join(path, name)).isFile()) sum.update(readFileSync(join(path, name)));
  }
  return sum.digest('hex');
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Starts a command that something happens to while it runs. */
function start(...args: string[]): ChildProcess & { output: () => string } {
  const env = {
    PATH: process.env.PATH,
    NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
    HOME: network.home,
    MILLRACE_HOME: join(network.home, 'data'),
  };
  const child = spawn(process.execPath, [MAIN, '--json', ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  return Object.assign(child, { output: () => output });
}

/** Bytes that a node has received of unfinished pieces. */
function receivedBytes(node: number): number {
  const incoming = join(network.home, 'data', 'dev', 'nodes', String(node), 'storage', 'store', 'incoming');
  try {
    return readdirSync(incoming, { recursive: true, encoding: 'utf8' })
      .map((name) => statSync(join(incoming, name), { throwIfNoEntry: false })?.size ?? 0)
      .reduce((sum, size) => sum + size, 0);
  } catch {
    return 0;
  }
}

async function untilReceiving(least: number, child: ChildProcess): Promise<number> {
  for (;;) {
    for (const node of [1, 2, 3]) if (receivedBytes(node) > least) return node;
    assert.equal(child.exitCode, null, 'the put ended before it was hit');
    await sleep(20);
  }
}

async function killNode(node: number): Promise<void> {
  const { processes } = await network.json('up', '--detach');
  const pid = processes.find((part: { name: string }) => part.name === `node-${node}`)?.pid;
  process.kill(pid, 'SIGKILL');
}

let cid = '';
test(`${SIZE_MIB} MiB go to three providers although the put is killed once and a provider once while receiving`, {
  timeout: 900_000,
}, async () => {
  const first = start('put', file, '--copies', '3');
  await untilReceiving(24 * MIB, first);
  first.kill('SIGKILL');
  await once(first, 'exit');
  const dealsBefore = (await network.json('deals')).items.map((deal: { dealId: string }) => deal.dealId);
  const sizeBefore = Math.max(...[1, 2, 3].map(receivedBytes));
  assert.ok(sizeBefore > 0);

  const second = start('put', file, '--copies', '3');
  const hit = await untilReceiving(sizeBefore + 8 * MIB, second);
  await killNode(hit);
  if (second.exitCode === null) await once(second, 'exit');
  assert.equal(second.exitCode, 0);
  const stored = JSON.parse(second.output());
  cid = stored.cid;
  assert.equal(stored.deals.length, 3);
  assert.deepEqual(stored.failed, [], 'nobody had to be replaced');
  const dealsAfter = (await network.json('deals')).items.map((deal: { dealId: string }) => deal.dealId);
  assert.deepEqual(dealsAfter.slice(0, dealsBefore.length), dealsBefore);
  assert.equal(dealsAfter.length, 3, 'the second put went on with the deals of the first');
});

test('they come back identical although a provider is killed while serving', { timeout: 900_000 }, async () => {
  const copy = join(network.home, 'film-copy.bin');
  const get = start('get', cid, '-o', copy);
  await sleep(1500);
  await killNode(2);
  if (get.exitCode === null) await once(get, 'exit');
  assert.equal(get.exitCode, 0);
  assert.equal(digestOf(copy), digestOf(file));
  rmSync(copy);
});

test(`a folder of ${FILES} files goes to three providers and comes back with every name and byte`, { timeout: 900_000 }, async () => {
  const stored = await network.json('put', folder, '--copies', '3');
  assert.equal(stored.deals.length, 3);
  const copy = join(network.home, 'album-copy');
  await network.json('get', stored.cid, '-o', copy);
  assert.equal(digestOf(copy), digestOf(folder));
});
