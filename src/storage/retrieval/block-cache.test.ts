import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { silentLogger } from '../../log.ts';
import { cidOf, RAW } from '../content/block.ts';
import { openBlockCache } from './block-cache.ts';

const folders: string[] = [];
after(async () => {
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
});
async function fresh(bytesMax: number) {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-cache-'));
  folders.push(folder);
  return { folder, cache: await openBlockCache({ folder, bytesMax, log: silentLogger }) };
}
const block = (size: number) => {
  const bytes = randomBytes(size);
  return { bytes, cid: cidOf(RAW, bytes) };
};

test('the cache never grows beyond its size, and what was asked for again outlives what was not', async () => {
  const { cache } = await fresh(10_000);
  const [popular, ...others] = Array.from({ length: 30 }, () => block(1000));
  assert.ok(popular !== undefined);
  await cache.put(popular.cid, popular.bytes);
  assert.deepEqual(await cache.get(popular.cid), popular.bytes);
  for (const { cid, bytes } of others) {
    await cache.put(cid, bytes);
    assert.ok(cache.usage().bytes <= 10_000);
  }
  assert.deepEqual(await cache.get(popular.cid), popular.bytes);
  assert.equal(await cache.get((others[0] as typeof popular).cid), undefined);
});

test('wrong bytes are not kept, nor a block greater than the cache', async () => {
  const { cache } = await fresh(1000);
  const { cid } = block(100);
  assert.equal(await cache.put(cid, randomBytes(100)), false);
  const big = block(1001);
  assert.equal(await cache.put(big.cid, big.bytes), false);
  assert.equal(cache.usage().bytes, 0);
});

test('blocks are there after a restart; a damaged one and the rest of an unfinished write are not', async () => {
  const { folder, cache } = await fresh(100_000);
  const [whole, damaged] = [block(5000), block(6000)];
  for (const { cid, bytes } of [whole, damaged]) await cache.put(cid, bytes);
  for (const name of await readdir(folder)) {
    for (const key of await readdir(join(folder, name))) {
      if (key === damaged.cid.toString()) await writeFile(join(folder, name, key), randomBytes(6000));
    }
  }
  await writeFile(join(folder, '.unfinished'), 'x');
  const again = await openBlockCache({ folder, bytesMax: 100_000, log: silentLogger });
  assert.equal(again.usage().bytes, 11_000);
  assert.deepEqual(await again.get(whole.cid), whole.bytes);
  assert.equal(await again.get(damaged.cid), undefined);
  assert.equal(again.usage().bytes, 5000);
  assert.ok(!(await readdir(folder)).includes('.unfinished'));
  const smaller = await openBlockCache({ folder, bytesMax: 1000, log: silentLogger });
  assert.equal(smaller.usage().blocks, 0);
});
