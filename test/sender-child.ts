// A process that sends `count` payments of 1 wei, keyed pay-0, pay-1 …, some at a time; killed by the test that starts it.

import type { Address, Hex } from 'viem';
import { connectChain } from '../src/chain/client.ts';
import { readManifest } from '../src/chain/manifest.ts';
import { createSender } from '../src/chain/sender.ts';
import { createSigner } from '../src/chain/signer.ts';
import { silentLogger } from '../src/log.ts';

const [rpcUrl, manifestPath, journalFolder, privateKey, to, count] = process.argv.slice(2) as [
  string,
  string,
  string,
  Hex,
  Address,
  string,
];
const client = await connectChain({ rpcUrl, manifest: readManifest(manifestPath) });
const sender = createSender({ client, signer: createSigner(privateKey), journalFolder, log: silentLogger });
const jobs = Array.from({ length: Number(count) }, (_, index) => index);
const work = async () => {
  for (let index = jobs.shift(); index !== undefined; index = jobs.shift()) {
    const receipt = await sender.send({ to, value: 1n, key: `pay-${index}` });
    process.stdout.write(`${index} ${receipt.hash}\n`);
  }
};
await Promise.all([work(), work(), work(), work()]);
sender.close();
