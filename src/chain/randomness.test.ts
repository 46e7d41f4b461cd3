import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { concatHex, getAddress, keccak256, toHex } from 'viem';
import { type BareAnvil, startBareAnvil } from '../../test/bare-anvil.ts';
import { silentLogger } from '../log.ts';
import { type ChainClient, connectChain } from './client.ts';
import { deployNetwork } from './deploy.ts';
import { signManifest } from './manifest.ts';
import { type FixArguments, firstBlockAtOrAfter, fixArguments, readHeader } from './randomness.ts';
import { createSender, type Sender } from './sender.ts';
import { developmentSigner } from './signer.ts';

let anvil: BareAnvil;
let client: ChainClient;
let sender: Sender;
before(async () => {
  anvil = await startBareAnvil();
  const folder = mkdtempSync(join(tmpdir(), 'millrace-randomness-'));
  const signer = developmentSigner(0, 'dev');
  const manifestPath = join(folder, 'network.json');
  const manifest = await deployNetwork({
    rpcUrl: anvil.rpcUrl,
    name: 'test',
    profile: 'dev',
    signer,
    folder,
    manifestPath,
    embedded: true,
  });
  client = await connectChain({ rpcUrl: anvil.rpcUrl, manifest });
  sender = createSender({ client, signer, journalFolder: join(folder, 'keys'), log: silentLogger });
});
after(async () => {
  sender.close();
  await anvil.stop();
});

const mine = (blocks: number, seconds = 12) => anvil.rpc('anvil_mine', [toHex(blocks), toHex(seconds)]);

test('the header built from a JSON-RPC block has the hash of that block, for genesis and for blocks with transactions', async () => {
  const head = await anvil.public.getBlockNumber({ cacheTime: 0 });
  for (const number of [0n, 1n, 5n, head]) {
    const header = await readHeader(client, number);
    assert.equal(keccak256(header.rlp), (await anvil.public.getBlock({ blockNumber: number })).hash);
  }
  await assert.rejects(readHeader(client, head + 1000n), { code: 'block-unknown' });
});

test('the first block at or after a time is found as by looking at every block', async () => {
  for (let round = 0; round < 6; round += 1) await mine(20, 3 + 7 * round);
  const head = await anvil.public.getBlockNumber({ cacheTime: 0 });
  const times: bigint[] = [];
  for (let number = 0n; number <= head; number += 1n) times.push((await anvil.public.getBlock({ blockNumber: number })).timestamp);
  const [first, last] = [times[0] as bigint, times.at(-1) as bigint];
  await fc.assert(
    fc.asyncProperty(fc.bigInt({ min: first - 5n, max: last + 5n }), async (time) => {
      const index = times.findIndex((timestamp) => timestamp >= time);
      assert.equal(await firstBlockAtOrAfter(client, time), index === -1 ? undefined : BigInt(index));
    }),
    { numRuns: 60 },
  );
});

test('the arguments fix the randomness of a time on chain, and are empty afterwards', async () => {
  const time = (await client.now()) + 7n;
  assert.equal(await fixArguments(client, time), undefined);
  await anvil.rpc('anvil_setCoinbase', [getAddress(`0x${'c0'.repeat(20)}`)]);
  await mine(3);
  const { header, parent, oldest } = (await fixArguments(client, time)) as FixArguments;
  const receipt = await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, header, parent, oldest] });
  assert.deepEqual(
    receipt.events.map((event) => event.name),
    ['RandomnessFixed'],
  );
  const number = (await firstBlockAtOrAfter(client, time)) as bigint;
  const block = await anvil.public.getBlock({ blockNumber: number });
  const expected = keccak256(concatHex([block.mixHash, block.miner]));
  assert.equal(await client.read('randomness', 'valueOf', [time]), expected);
  assert.deepEqual(await fixArguments(client, time), { header: '0x', parent: '0x', oldest: '0x' });
});

test('a contract that refuses an early or foreign header says so with its code', async () => {
  const time = (await client.now()) + 1000n;
  const args = [time, '0x', '0x', '0x'] as const;
  await assert.rejects(sender.send({ contract: 'randomness', functionName: 'fix', args }), { code: 'time-not-reached' });
  await assert.rejects(client.read('randomness', 'valueOf', [time]), { code: 'randomness-not-fixed', values: { time } });
});

test('a time whose block has left the history is replaced by the one fixed later time', async () => {
  // Without the EIP-2935 contract the history is 256 blocks; the rule is the same and 8,191 blocks need not be mined.
  await anvil.rpc('anvil_setCode', ['0x0000F90827F1C53a10cb7A02335B175320002935', '0x']);
  const { signature: _, ...manifest } = client.manifest;
  const randomness = { ...manifest.randomness, history: 'blockhash' } as const;
  const short = await connectChain({
    rpcUrl: anvil.rpcUrl,
    manifest: await signManifest({ ...manifest, randomness }, developmentSigner(0, 'dev')),
  });
  const time = (await client.now()) + 1n;
  for (const [blocks, isStale] of [
    [100, false],
    [200, true],
  ] as const) {
    await mine(blocks, 2);
    while ((await fixArguments(short, time)) === undefined) await mine(1, 2);
    assert.equal((await fixArguments(short, time))?.oldest === '0x', !isStale);
  }
  const { header, parent, oldest } = (await fixArguments(short, time)) as FixArguments;
  const { events } = await sender.send({ contract: 'randomness', functionName: 'fix', args: [time, header, parent, oldest] });
  const [fixed] = events;
  assert.ok(fixed?.module === 'randomness' && fixed.name === 'RandomnessFixed');
  const effective = fixed.args.effectiveTime;
  assert.ok(effective > time && (effective - time) % 300n === 0n);
  assert.equal(await firstBlockAtOrAfter(client, effective), fixed.args.blockNumber);
});
