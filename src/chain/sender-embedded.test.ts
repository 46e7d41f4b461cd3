import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Address } from 'viem';
import { silentLogger } from '../log.ts';
import { connectChain } from './client.ts';
import { deployNetwork } from './deploy.ts';
import { createSender } from './sender.ts';
import { developmentSigner } from './signer.ts';
import { startChainSupervisor } from './supervisor.ts';

const SINK = '0x00000000000000000000000000000000000051c5' as Address;

test('payments go on, each once, while the embedded chain is restarted under the sender', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-embedded-'));
  const signer = developmentSigner(0, 'dev');
  const options = { folder: join(folder, 'chain'), accounts: [{ address: signer.address, balance: 10n ** 24n }] };
  let supervisor = await startChainSupervisor(options);
  const { rpcUrl } = supervisor;
  const manifest = await deployNetwork({
    rpcUrl,
    name: 'test',
    profile: 'dev',
    signer,
    folder,
    manifestPath: join(folder, 'network.json'),
    embedded: true,
  });
  const client = await connectChain({ rpcUrl, manifest });
  const sender = createSender({ client, signer, journalFolder: join(folder, 'keys'), log: silentLogger });
  const pay = async (index: number) => {
    for (;;) {
      try {
        return await sender.send({ to: SINK, value: 1n, key: `pay-${index}` });
      } catch (error) {
        // what the sender cannot wait for is the simulation before a broadcast: the caller tries again with the same key
        if ((error as { code?: string }).code !== 'chain-unreachable') throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  };
  const payments = Array.from({ length: 40 }, async (_, index) => {
    await new Promise((resolve) => setTimeout(resolve, 25 * index));
    return pay(index);
  });
  for (let restart = 0; restart < 2; restart += 1) {
    await payments[5 + 15 * restart];
    await supervisor.stop();
    supervisor = await startChainSupervisor({ ...options, rpcPort: Number(new URL(rpcUrl).port) });
  }
  const receipts = await Promise.all(payments);
  assert.equal(new Set(receipts.map(({ hash }) => hash)).size, 40);
  assert.equal(await client.public.getBalance({ address: SINK }), 40n);
  await connectChain({ rpcUrl, manifest });
  assert.equal(await client.public.getBalance({ address: '0x0000000000000000000000000000000000000000' }), 0n);
  sender.close();
  await supervisor.stop();
});
