import type { ChainClient } from '../../chain/index.ts';
import type { PeriodClock } from '../possession/periods.ts';

/** The rules of a network's storage, which never change once deployed: proof clock and draws, and the market's terms. */
export interface MarketRules {
  clock: PeriodClock;
  draws: { byBytes: number; byWeight: number; rotationMin: number; rotationPeriods: number };
  activationDeadlineSeconds: bigint;
  activationLeaves: number;
  challengeWindowSeconds: bigint;
  challengeBond: bigint;
  maxFaultPeriods: bigint;
}

const known = new WeakMap<ChainClient, Promise<MarketRules>>();

/** The rules, read from the contracts once per connection. */
export function readRules(client: ChainClient): Promise<MarketRules> {
  let rules = known.get(client);
  if (rules === undefined) {
    rules = load(client);
    known.set(client, rules);
    rules.catch(() => known.delete(client));
  }
  return rules;
}

async function load(client: ChainClient): Promise<MarketRules> {
  const [possession, market] = await Promise.all([client.read('possession', 'config'), client.read('storageMarket', 'config')]);
  const { genesis, period, window, freeze, byBytes, byWeight, rotationMin, rotationPeriods } = possession;
  return {
    clock: { genesis, period, window, freeze },
    draws: { byBytes, byWeight, rotationMin, rotationPeriods },
    activationDeadlineSeconds: BigInt(market.activationDeadline),
    activationLeaves: market.activationLeaves,
    challengeWindowSeconds: BigInt(market.challengeWindow),
    challengeBond: market.challengeBond,
    maxFaultPeriods: BigInt(market.maxFaultPeriods),
  };
}
