/**
 * Vouchers of payment channels: verifications and signatures per CPU-second of one core beside viem's, vouchers taken durably per second, and
 * gas of claims on a real chain, singly and 200 at a time (network token, fee included, channels that were claimed before).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Hex, verifyTypedData } from 'viem';
import { developmentSigner, nobleEngine, secp256k1Engine, X402_CHANNELS } from '../src/chain/index.ts';
import { type ChannelClaim, claimChannels, claimRows, depositIntoChannel } from '../src/token/channels.ts';
import { allowTokens } from '../src/token/contract-call.ts';
import { type ChannelConfig, createVoucherCodec, type SignedVoucher } from '../src/token/voucher.ts';
import { startChannelsNetwork } from '../src/token/voucher-fixture.ts';
import { openVoucherStore } from '../src/token/voucher-store.ts';

const VOUCHERS = 4096;
const BATCH = 200;
const AT_ONCE = 50;
const signer = developmentSigner(0, 'dev');
const codec = createVoucherCodec(31_337, X402_CHANNELS);
const channelId: Hex = `0x${'ab'.repeat(32)}`;
const vouchers: SignedVoucher[] = [];
for (let index = 0; index < VOUCHERS; index += 1) {
  vouchers.push(await codec.sign(signer, { channelId, maxClaimableAmount: BigInt(index) * 1_000_003n }));
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function measure(label: string, work: (voucher: SignedVoucher) => unknown): Promise<void> {
  for (const voucher of vouchers.slice(0, 64)) await work(voucher);
  const start = cpuSeconds();
  let count = 0;
  while (cpuSeconds() - start < 2) {
    for (let index = 0; index < 16; index += 1) await work(vouchers[(count + index) % VOUCHERS] as SignedVoucher);
    count += 16;
  }
  process.stdout.write(`${label.padEnd(58)} ${Math.round(count / (cpuSeconds() - start))} per CPU-second\n`);
}

const types = {
  Voucher: [
    { name: 'channelId', type: 'bytes32' },
    { name: 'maxClaimableAmount', type: 'uint128' },
  ],
} as const;
const domain = { name: 'x402 Batch Settlement', version: '1', chainId: 31_337, verifyingContract: X402_CHANNELS } as const;
const noble = createVoucherCodec(31_337, X402_CHANNELS, nobleEngine);

await measure('digest of a voucher', (voucher) => codec.digest(voucher));
await measure(`verify a voucher, ${secp256k1Engine.name}`, (voucher) => codec.isSignedBy(signer.address, voucher));
await measure('verify a voucher, noble', (voucher) => noble.isSignedBy(signer.address, voucher));
await measure('verify a voucher, viem', ({ signature, ...message }) =>
  verifyTypedData({ address: signer.address, domain, types, primaryType: 'Voucher', message, signature }),
);
await measure(`sign a voucher, ${secp256k1Engine.name}`, (voucher) => codec.sign(signer, voucher));
await measure('sign a voucher, viem', ({ signature: _, ...message }) =>
  signer.account.signTypedData?.({ domain, types, primaryType: 'Voucher', message }),
);

const folder = mkdtempSync(join(tmpdir(), 'millrace-bench-vouchers-'));
const configOf = (index: number): ChannelConfig => ({
  payer: signer.address,
  payerAuthorizer: signer.address,
  receiver: signer.address,
  receiverAuthorizer: signer.address,
  token: X402_CHANNELS,
  withdrawDelay: 900,
  salt: `0x${index.toString(16).padStart(64, '7')}`,
});
const store = openVoucherStore(join(folder, 'store.ndjson'));
const startedMs = performance.now();
const startedCpu = cpuSeconds();
let kept = 0;
await Promise.all(
  Array.from({ length: AT_ONCE }, async (_, client) => {
    while (performance.now() - startedMs < 3_000) {
      const voucher = vouchers[kept % VOUCHERS] as SignedVoucher;
      const key: Hex = `0x${client.toString(16).padStart(64, '0')}`;
      await store.put({ key, config: configOf(client), voucher, charged: voucher.maxClaimableAmount, claimed: 0n, steps: [], usedAt: 0 });
      kept += 1;
    }
  }),
);
const seconds = (performance.now() - startedMs) / 1000;
await store.close();
process.stdout.write(
  `${`vouchers kept on disk, ${AT_ONCE} clients at once`.padEnd(58)} ${Math.round(kept / seconds)} per second, ` +
    `${Math.round(kept / (cpuSeconds() - startedCpu))} per CPU-second\n`,
);

const network = await startChannelsNetwork();
try {
  const { client } = network;
  const [payer, receiver] = [network.sender(2), network.sender(1)];
  const onChain = createVoucherCodec(client.chainId, client.address('channels'));
  const token = client.address('networkToken');
  await allowTokens(client, { sender: payer, token, spender: client.address('channels'), amount: 10n ** 22n });
  const configs = Array.from({ length: BATCH + 1 }, (_, index) => ({
    ...configOf(index),
    payer: payer.address,
    payerAuthorizer: payer.address,
    receiver: receiver.address,
    receiverAuthorizer: receiver.address,
    token,
    salt: onChain.digest({ channelId, maxClaimableAmount: BigInt(index) }),
  }));
  await Promise.all(configs.map((config) => depositIntoChannel(client, { sender: payer, config, amount: 10n ** 18n })));
  const claimOf = async (config: ChannelConfig, total: bigint): Promise<ChannelClaim> => {
    const voucher = await onChain.sign(network.signer(2), { channelId: onChain.channelId(config), maxClaimableAmount: total });
    return { config, voucher, total };
  };
  await claimChannels({ sender: receiver, claims: await Promise.all(configs.map((config) => claimOf(config, 10n ** 15n))) });
  const next = await Promise.all(configs.map((config) => claimOf(config, 2_345_678_901_234_567n)));
  const [single, ...many] = next as [ChannelClaim, ...ChannelClaim[]];
  const alone = await receiver.send({ contract: 'channels', functionName: 'claim', args: [claimRows([single])] });
  const batch = await claimChannels({ sender: receiver, claims: many });
  process.stdout.write(`${'gas to claim one channel'.padEnd(58)} ${alone.gasUsed}\n`);
  process.stdout.write(`${`gas to claim ${BATCH} and pay out, each`.padEnd(58)} ${batch.gasUsed / BigInt(BATCH)}\n`);
} finally {
  await network.stop();
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
