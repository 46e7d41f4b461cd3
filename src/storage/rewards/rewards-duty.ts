import type { ChainClient, Sender } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { readRules } from '../market/market-rules.ts';
import { periodAt } from '../possession/periods.ts';
import type { Duty } from '../provider/duty.ts';
import { hasRewards } from './rewards.ts';

/** Periods that a proof brings an operator's rate forward by (ROLL_MAX of StorageRewards.sol), and how many one `catchUp` is asked for. */
const ROLL_PERIODS = 32n;
const CATCH_UP_PERIODS = 1_000n;
/** The rewards should always hold what so many of the operator's next proofs may earn. */
const PROOFS_AHEAD = 8n;

/** What decides whether a provider does something for its rewards. Base units; periods are numbers. */
export interface RewardFacts {
  currentPeriod: bigint;
  /** Of the operator's record. */
  rolledTo: bigint;
  lastChange: bigint;
  /** Burnt fees that fall on a period of the operator now. */
  feesPerPeriod: bigint;
  /** What the contract holds beyond what it owes. */
  free: bigint;
  /** What the emission has scheduled and not minted. */
  due: bigint;
}

/**
 * What a provider should send for its rewards, or undefined: `catchUp` when it is further behind than a proof can mend, `mint` when what is
 * there would not cover its next proofs and something is due. Proofs mint too, but only what fits their gas. Pure.
 */
export function rewardAction(facts: RewardFacts): 'catch-up' | 'mint' | undefined {
  const { currentPeriod, rolledTo, lastChange, feesPerPeriod, free, due } = facts;
  if (lastChange > rolledTo && currentPeriod - 1n - rolledTo > ROLL_PERIODS) return 'catch-up';
  if (feesPerPeriod > 0n && free < feesPerPeriod * PROOFS_AHEAD && due > 0n) return 'mint';
  return undefined;
}

/** A provider's duty to keep its rewards flowing; it looks once in each period. In a network without rewards there is nothing to do. */
export function rewardsDuty(options: { client: ChainClient; sender: Sender; operatorId: bigint; log: Logger; everyMs?: number }): Duty {
  const { client, sender, operatorId, log } = options;
  let lastPeriod = -1n;
  return {
    name: 'rewards',
    everyMs: options.everyMs ?? 5_000,
    async run() {
      if (!hasRewards(client)) return;
      const { clock } = await readRules(client);
      const currentPeriod = periodAt(clock, await client.now());
      if (currentPeriod === lastPeriod) return;
      const action = rewardAction({ currentPeriod, ...(await readFacts(client, operatorId)) });
      if (action === 'mint') await sender.send({ contract: 'emission', functionName: 'mint', args: [] });
      if (action === 'catch-up') {
        await sender.send({ contract: 'rewards', functionName: 'catchUp', args: [operatorId, CATCH_UP_PERIODS] });
      }
      if (action !== undefined) log.info('rewards-kept', { action, operatorId });
      if (action !== 'catch-up') lastPeriod = currentPeriod; // a long pause takes several calls
    },
  };
}

async function readFacts(client: ChainClient, operatorId: bigint): Promise<Omit<RewardFacts, 'currentPeriod'>> {
  const [record, held, owed, scheduled, emitted] = await Promise.all([
    client.read('rewards', 'recordOf', [operatorId]),
    client.read('networkToken', 'balanceOf', [client.address('rewards')]),
    client.read('rewards', 'obligations'),
    client.read('emission', 'scheduled'),
    client.read('emission', 'emitted'),
  ]);
  const { rolledTo, lastChange, ratePerPeriod } = record;
  return { rolledTo, lastChange, feesPerPeriod: ratePerPeriod, free: held - owed, due: scheduled - emitted };
}
