/** Signatures of typed data: our hand-packed digest and native secp256k1 beside viem, per CPU-second of one core. */
import { type Hex, hashTypedData, recoverTypedDataAddress, verifyTypedData } from 'viem';
import { nativeEngine, nobleEngine } from '../src/chain/secp256k1.ts';
import { developmentSigner, recoverAddress } from '../src/chain/signer.ts';
import { type TypedDataShape, typedDataDigest } from '../src/chain/typed-data.ts';

const shape = {
  domain: { name: 'Millrace Bench', version: '1', chainId: 31_337, verifyingContract: '0x5FbDB2315678afecb367f032d93F642f64180aa3' },
  primaryType: 'Voucher',
  types: {
    Voucher: [
      { name: 'channelId', type: 'bytes32' },
      { name: 'amount', type: 'uint128' },
    ],
  },
} as const satisfies TypedDataShape;
const message = { channelId: `0x${'ab'.repeat(32)}` as Hex, amount: 123_456_789n };
const signer = developmentSigner(0, 'dev');
const digest = typedDataDigest(shape, message);
const signature = await signer.signDigest(digest);

async function measure(label: string, secondsGoal: number, work: () => unknown): Promise<void> {
  for (let index = 0; index < 20; index += 1) await work();
  const before = process.cpuUsage();
  const elapsed = () => {
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1e6;
  };
  let count = 0;
  while (elapsed() < secondsGoal) {
    for (let index = 0; index < 16; index += 1) await work();
    count += 16;
  }
  process.stdout.write(`${label.padEnd(58)} ${Math.round(count / elapsed())} per CPU-second\n`);
}

await measure('digest of typed data, ours', 1, () => typedDataDigest(shape, message));
await measure('digest of typed data, viem', 1, () => hashTypedData({ ...shape, message }));
if (nativeEngine !== undefined) {
  await measure('recover the address of a digest, native', 1, () => recoverAddress(digest, signature, nativeEngine));
  await measure(
    'digest, recover and compare, native',
    1,
    () => recoverAddress(typedDataDigest(shape, message), signature) === signer.address,
  );
}
await measure('recover the address of a digest, noble', 1, () => recoverAddress(digest, signature, nobleEngine));
await measure('recoverTypedDataAddress, viem', 2, () => recoverTypedDataAddress({ ...shape, message, signature }));
await measure('verifyTypedData, viem', 2, () => verifyTypedData({ ...shape, message, signature, address: signer.address }));
