import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { type Address, concat, encodeAbiParameters, encodeFunctionData, type Hex, hexToBigInt, keccak256, toHex, toRlp } from 'viem';
import { abis } from '../src/chain/contracts.generated.ts';
import { chainError } from '../src/chain/errors.ts';
import { type BareAnvil, runOnAnvil, startBareAnvil } from './bare-anvil.ts';

// The randomness contract on real chains: headers as anvil makes them, its EIP-2935 history, and what a restored snapshot breaks.

const HISTORY = '0x0000F90827F1C53a10cb7A02335B175320002935';
const STALE_AFTER_SECONDS = 600n;
const SOURCES = { prevRandao: 0, trustedOperator: 1 };

type Header = Record<string, Hex>;

let anvil: BareAnvil;
before(async () => {
  anvil = await startBareAnvil();
});
after(() => anvil.stop());

async function blockAt(chain: BareAnvil, number: bigint | 'latest'): Promise<Header> {
  return (await chain.rpc('eth_getBlockByNumber', [number === 'latest' ? number : toHex(number), false])) as Header;
}

/** The header's RLP, written out field by field; quantities have no leading zeros. */
function rlpOf(header: Header): Hex {
  const quantities = 'difficulty number gasLimit gasUsed timestamp baseFeePerGas blobGasUsed excessBlobGas'.split(' ');
  const names = `parentHash sha3Uncles miner stateRoot transactionsRoot receiptsRoot logsBloom difficulty number gasLimit gasUsed timestamp
    extraData mixHash nonce baseFeePerGas withdrawalsRoot blobGasUsed excessBlobGas parentBeaconBlockRoot requestsHash`.split(/\s+/);
  const fields: Hex[] = names
    .filter((name) => header[name] !== undefined)
    .map((name) => {
      const value = header[name] as Hex;
      if (!quantities.includes(name)) return value;
      return hexToBigInt(value) === 0n ? '0x' : toHex(hexToBigInt(value));
    });
  return toRlp(fields);
}

async function deployRandomness(chain: BareAnvil, source: number): Promise<Address> {
  const file = JSON.parse(readFileSync(new URL('../src/chain/bytecode.generated.json', import.meta.url), 'utf8'));
  const zero = '0x0000000000000000000000000000000000000000';
  const types = [{ type: 'uint8' }, { type: 'address' }, { type: 'uint64' }] as const;
  const args = encodeAbiParameters(types, [source, zero, STALE_AFTER_SECONDS]);
  return (await runOnAnvil(chain, { data: concat([file.randomness.bytecode as Hex, args]) })) as Address;
}

/** Proves the value of `time` by block `number` and returns what the contract then says; a refusal as our typed error. */
async function fix(chain: BareAnvil, address: Address, time: bigint, number: bigint, oldest?: bigint): Promise<Hex> {
  const [header, parent] = [rlpOf(await blockAt(chain, number)), rlpOf(await blockAt(chain, number - 1n))];
  const stale = oldest === undefined ? '0x' : rlpOf(await blockAt(chain, oldest));
  const abi = abis.randomness;
  try {
    await chain.public.simulateContract({ address, abi, functionName: 'fix', args: [time, header, parent, stale] });
  } catch (error) {
    throw chainError(error, 'Fixing a seed');
  }
  await runOnAnvil(chain, { to: address, data: encodeFunctionData({ abi, functionName: 'fix', args: [time, header, parent, stale] }) });
  return chain.public.readContract({ address, abi, functionName: 'valueOf', args: [time] });
}

async function mine(chain: BareAnvil, blocks: number, interval = 12): Promise<bigint> {
  await chain.rpc('anvil_mine', [toHex(blocks), toHex(interval)]);
  return hexToBigInt((await blockAt(chain, 'latest')).number as Hex);
}

test('a real header proves the value of its time, from prevRandao or from prevRandao and fee recipient', async () => {
  const [plain, trusted] = [await deployRandomness(anvil, SOURCES.prevRandao), await deployRandomness(anvil, SOURCES.trustedOperator)];
  await anvil.rpc('anvil_setCoinbase', ['0x00000000000000000000000000000000c01bc01b']);
  const number = (await mine(anvil, 5)) - 1n;
  await mine(anvil, 400);
  const header = await blockAt(anvil, number);
  const time = hexToBigInt(header.timestamp as Hex);
  assert.equal(await fix(anvil, plain, time, number), header.mixHash);
  assert.equal(await fix(anvil, trusted, time, number), keccak256(concat([header.mixHash as Hex, header.miner as Hex])));
  assert.equal(header.miner, '0x00000000000000000000000000000000c01bc01b');
});

test('a time is fixed by its block after the chain was restored from a snapshot, where the BLOCKHASH opcode is wrong', async () => {
  const [first, restored] = [await startBareAnvil(), await startBareAnvil()];
  try {
    const randomness = await deployRandomness(first, SOURCES.trustedOperator);
    const number = await mine(first, 3);
    await mine(first, 20);
    await restored.rpc('anvil_loadState', [await first.rpc('anvil_dumpState', [true])]);
    const { timestamp } = await blockAt(restored, 'latest');
    await restored.rpc('evm_setNextBlockTimestamp', [Number(hexToBigInt(timestamp as Hex)) + 12]);
    const header = await blockAt(restored, number);
    assert.equal(header.hash, (await blockAt(first, number)).hash);
    const expected = keccak256(concat([header.mixHash as Hex, header.miner as Hex]));
    assert.equal(await fix(restored, randomness, hexToBigInt(header.timestamp as Hex), number), expected);
  } finally {
    await Promise.all([first.stop(), restored.stop()]);
  }
});

test('without an EIP-2935 contract the opcode serves 256 blocks; then a time is stale and the next of its fixed times counts', async () => {
  const bare = await startBareAnvil();
  try {
    await bare.rpc('anvil_setCode', [HISTORY, '0x']);
    const address = await deployRandomness(bare, SOURCES.prevRandao);
    const [gone, recent] = [await mine(bare, 20), await mine(bare, 280)];
    await mine(bare, 100);
    const timeOf = async (number: bigint) => hexToBigInt((await blockAt(bare, number)).timestamp as Hex);
    const time = await timeOf(gone);
    assert.equal(await fix(bare, address, await timeOf(recent), recent), (await blockAt(bare, recent)).mixHash);

    const oldest = await bare.public.readContract({ address, abi: abis.randomness, functionName: 'oldestBlock' });
    assert.ok(oldest > gone && oldest % 16n === 0n);
    const effective = time + (((await timeOf(oldest)) - time) / STALE_AFTER_SECONDS + 1n) * STALE_AFTER_SECONDS;
    let number = oldest + 1n;
    while ((await timeOf(number)) < effective) number += 1n;
    await assert.rejects(fix(bare, address, time, gone), { code: 'header-not-in-history' });
    await assert.rejects(fix(bare, address, time, number + 50n, oldest), { code: 'not-first-block' });
    await assert.rejects(fix(bare, address, time, number, oldest + 16n), { code: 'not-oldest-block' });
    await assert.rejects(fix(bare, address, effective, number, oldest), { code: 'not-stale' });
    assert.equal(await fix(bare, address, time, number, oldest), (await blockAt(bare, number)).mixHash);
  } finally {
    await bare.stop();
  }
});
