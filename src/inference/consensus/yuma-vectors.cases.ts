/** Epochs with what the TypeScript function decides, in the contract's encoding: contracts/test/inference/yuma-vectors.t.sol reads them. */
import { fileURLToPath } from 'node:url';
import { bytesToHex, encodeAbiParameters, encodeFunctionData, type Hex, parseAbiParameters } from 'viem';
import { abis } from '../../chain/index.ts';
import { epoch } from './epoch.ts';
import { crowdedEpoch, randomEpoch } from './epoch-cases.ts';
import type { EpochInput, EpochResult } from './epoch-input.ts';
import { packRows } from './packed-rows.ts';

const MODES = ['yuma2', 'yuma3', 'yuma3-liquid'];
const CONSENSUS_MODES = ['previous', 'current', 'auto'];
const RANDOM = 40;
const CROWDED = 1;

/** Where the vectors lie. */
export const yumaVectorsFile = fileURLToPath(new URL('../../../contracts/test/inference/yuma-vectors.generated.json', import.meta.url));

/** The vectors as the file has them: each the call of `YumaCore.epoch`, and the answer with shares in parts of 65,535. */
export function yumaVectorsText(): string {
  const inputs = [...numbers(RANDOM).map(randomEpoch), ...numbers(CROWDED).map(crowdedEpoch)];
  const vectors = inputs.map((input) =>
    encodeAbiParameters(parseAbiParameters('bytes, bytes'), [yumaCallOf(input), answerOf(epoch(input))]),
  );
  return `${JSON.stringify({ vectors }, null, 1)}\n`;
}

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

/** The arguments of `YumaCore.epoch` (contracts/src/inference/Yuma.sol). */
export function yumaCallOf(input: EpochInput): Hex {
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

function answerOf(result: EpochResult): Hex {
  const bits = (flags: readonly boolean[]) => flags.reduce((sum, flag, uid) => (flag ? sum | (1n << BigInt(uid)) : sum), 0n);
  const { stakeWeight, consensus, validatorTrust, rank, incentive, dividends } = result;
  const shares = [stakeWeight, consensus, validatorTrust, rank, incentive, dividends].flatMap((values) =>
    Array.from(values, (value) => value.toString(16).padStart(4, '0')),
  );
  const earned = result.minerEmission.map((amount, uid) => (amount << 128n) | (result.validatorEmission[uid] as bigint));
  return encodeAbiParameters(parseAbiParameters('uint256, uint256, bytes, uint256[], uint256, uint256, bytes'), [
    bits(result.active),
    bits(result.permits),
    `0x${shares.join('')}`,
    earned,
    result.ownerEmission,
    result.dust,
    bytesToHex(packRows(result.bonds)),
  ]);
}
