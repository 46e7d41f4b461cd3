import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { bytesToHex, decodeFunctionResult, encodeFunctionData, type Hex, hexToBytes } from 'viem';
import { type BareAnvil, runOnAnvil, startBareAnvil } from '../../../test/bare-anvil.ts';
import { campaignSeed, rounds } from '../../../test/campaign.ts';
import bytecodes from '../../chain/bytecode.generated.json' with { type: 'json' };
import { abis } from '../../chain/index.ts';
import { epoch } from './epoch.ts';
import { crowdedEpoch, maximalEpoch, randomEpoch } from './epoch-cases.ts';
import type { EpochInput, EpochResult } from './epoch-input.ts';
import { toU16 } from './fixed-point.ts';
import { packRows, unpackRows } from './packed-rows.ts';

const MODES = ['yuma2', 'yuma3', 'yuma3-liquid'];
const CONSENSUS_MODES = ['previous', 'current', 'auto'];
const AMOUNT = (1n << 128n) - 1n;
const GAS = `0x${(100_000_000).toString(16)}`;

let anvil: BareAnvil;
let core: Hex;

before(async () => {
  anvil = await startBareAnvil(['--gas-limit', '200000000']);
  core = (await runOnAnvil(anvil, { data: bytecodes.yumaCore.bytecode as Hex })) as Hex;
});
after(() => anvil.stop());

/** The arguments of `YumaCore.epoch` (contracts/src/inference/Yuma.sol). */
function callOf(input: EpochInput): Hex {
  const { parameters } = input;
  const words = input.stakes.map((stake, uid) => {
    const flags = (input.permits[uid] ? 1 : 0) | (input.unrevealed[uid] ? 2 : 0);
    const time = (list: readonly number[]) => BigInt(list[uid] as number);
    const word = (stake << 128n) | (time(input.lastUpdate) << 88n) | (time(input.registeredAt) << 48n) | (time(input.committedAt) << 8n);
    return (word | BigInt(flags)).toString(16).padStart(64, '0');
  });
  const previous = input.previousConsensus.map((value) => value.toString(16).padStart(4, '0'));
  return encodeFunctionData({
    abi: abis.yumaCore,
    functionName: 'epoch',
    args: [
      {
        parameters: {
          ...parameters,
          mode: MODES.indexOf(parameters.mode),
          consensusMode: CONSENSUS_MODES.indexOf(parameters.consensusMode),
        },
        time: input.now,
        lastEpochAt: input.lastEpochAt,
        ownerUid: input.ownerUid ?? 65_535,
        totalEmission: input.totalEmission,
      },
      `0x${words.join('')}`,
      bytesToHex(packRows(input.weights)),
      `0x${previous.join('')}`,
      bytesToHex(packRows(input.bonds)),
    ],
  });
}

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
  const data = (await anvil.rpc('eth_call', [{ to: core, data: callOf(input), gas: GAS }, 'latest'])) as Hex;
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

test('rows are packed and unpacked to what they were', () => {
  const { weights } = maximalEpoch(1);
  assert.deepEqual(unpackRows(packRows(weights), weights.length), weights);
  assert.throws(() => unpackRows(new Uint8Array([0, 0, 0, 2, 0, 1, 0, 1]), 4), { code: 'bad-packed-rows' });
  assert.throws(() => unpackRows(new Uint8Array([0, 9, 0, 1, 0, 1, 0, 1]), 4), { code: 'bad-packed-rows' });
});
