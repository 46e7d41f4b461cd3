import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { decodeFunctionResult, type Hex, hexToBytes } from 'viem';
import { type BareAnvil, runOnAnvil, startBareAnvil } from '../../../test/bare-anvil.ts';
import { campaignSeed, rounds } from '../../../test/campaign.ts';
import bytecodes from '../../chain/bytecode.generated.json' with { type: 'json' };
import { abis } from '../../chain/index.ts';
import { epoch } from './epoch.ts';
import { crowdedEpoch, maximalEpoch, randomEpoch } from './epoch-cases.ts';
import type { EpochInput, EpochResult } from './epoch-input.ts';
import { toU16 } from './fixed-point.ts';
import { packRows, unpackRows } from './packed-rows.ts';
import { yumaCallOf, yumaVectorsFile, yumaVectorsText } from './yuma-vectors.cases.ts';

const AMOUNT = (1n << 128n) - 1n;
const GAS = `0x${(100_000_000).toString(16)}`;

let anvil: BareAnvil;
let core: Hex;

before(async () => {
  anvil = await startBareAnvil(['--gas-limit', '200000000']);
  core = (await runOnAnvil(anvil, { data: bytecodes.yumaCore.bytecode as Hex })) as Hex;
});
after(() => anvil.stop());

function resultOf(data: Hex, count: number): EpochResult {
  const result = decodeFunctionResult({ abi: abis.yumaCore, functionName: 'epoch', data });
  const flags = (bits: bigint) => Array.from({ length: count }, (_, uid) => ((bits >> BigInt(uid)) & 1n) === 1n);
  const shares = (values: readonly bigint[]) => values.map((value) => toU16(Number(value)));
  return {
    active: flags(result.active),
    permits: flags(result.permits),
    stakeWeight: shares(result.stakeWeight),
    consensus: shares(result.consensus),
    validatorTrust: shares(result.trust),
    rank: shares(result.rank),
    incentive: shares(result.incentive),
    dividends: shares(result.dividends),
    bonds: unpackRows(hexToBytes(result.bonds), count),
    minerEmission: result.earned.map((both) => both >> 128n),
    validatorEmission: result.earned.map((both) => both & AMOUNT),
    ownerEmission: result.ownerEmission,
    dust: result.dust,
  };
}

async function contractEpoch(input: EpochInput): Promise<EpochResult> {
  const data = (await anvil.rpc('eth_call', [{ to: core, data: yumaCallOf(input), gas: GAS }, 'latest'])) as Hex;
  return resultOf(data, input.stakes.length);
}

test('the contract decides every random epoch as the function does, bit for bit', async () => {
  const first = campaignSeed();
  const count = rounds(10_000);
  for (let seed = first; seed < first + count; seed++) {
    const input = randomEpoch(seed);
    assert.deepEqual(await contractEpoch(input), epoch(input), `randomEpoch(${seed})`);
  }
});

test('the contract decides crowded epochs as the function does', async () => {
  const first = campaignSeed();
  const count = rounds(100);
  for (let seed = first; seed < first + count; seed++) {
    const input = crowdedEpoch(seed);
    assert.deepEqual(await contractEpoch(input), epoch(input), `crowdedEpoch(${seed})`);
  }
});

test('the contract decides the largest epochs as the function does, in every mode', async () => {
  for (const mode of ['yuma2', 'yuma3', 'yuma3-liquid'] as const) {
    for (const bondsPenalty of [0, 65_535]) {
      const input = maximalEpoch(campaignSeed(), { mode, bondsPenalty });
      assert.deepEqual(await contractEpoch(input), epoch(input), `${mode}, penalty ${bondsPenalty}`);
    }
  }
});

test('the vectors that the contracts are judged against are what the function decides', () => {
  assert.equal(yumaVectorsText(), readFileSync(yumaVectorsFile, 'utf8'), 'run: sh tools/node.sh tools/yuma-vectors.ts');
});

test('rows are packed and unpacked to what they were', () => {
  const { weights } = maximalEpoch(1);
  assert.deepEqual(unpackRows(packRows(weights), weights.length), weights);
  assert.throws(() => unpackRows(new Uint8Array([0, 0, 0, 2, 0, 1, 0, 1]), 4), { code: 'bad-packed-rows' });
  assert.throws(() => unpackRows(new Uint8Array([0, 9, 0, 1, 0, 1, 0, 1]), 4), { code: 'bad-packed-rows' });
});
