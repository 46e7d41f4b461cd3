import type { ChainClient } from '../../chain/index.ts';
import type { DeviceView } from '../schedule/device-view.ts';
import { decodeFigure, type Figure, type Reason } from './figures.ts';
import { HealthView, type Occupant } from './health-view.ts';

/** Hours back from the one that runs whose figures a place comes from: a day, and the hour with which stability after a day is whole. */
export const HOURS_RANKED = 25;

/** A device's place among all, from the figures that were posted of the last 25 hours and from its operator's stake; whole numbers only. */
export interface DeviceRank {
  deviceId: bigint;
  operatorId: bigint;
  /** Posted hours that say something of it. */
  hoursPosted: number;
  /** Middle of its figures in them, of an even number the higher one: one bad hour does not undo a good one. */
  performance: bigint;
  /** What `ComputeRewards.stabilityBps` gives for its posted hours with performance in a row, of 10,000. */
  stabilityBps: number;
  /** Share of the hours in which it had performance, of 10,000. */
  recordBps: number;
  /** Share of the hours in which its partners reached it, of 10,000. */
  uptimeBps: number;
  /** Active stake of its operator, own and backers', base units. */
  stake: bigint;
  score: bigint;
  /** 1 is best; devices of one score share a rank. 0: unranked, nothing posted speaks for it. */
  rank: number;
  /** What the rank weighs in a choice, 0 to 1000: score / (score + middle score of its class), half at the middle. */
  weight: number;
  /** Why it has no performance in the last posted hour that says something of it; `none` where it has. */
  reason: Reason;
}

/** The numbers of `ComputeRewards.Config` that make stability. */
export interface StabilityRule {
  baseBps: number;
  streakHours: number;
}

/** What one device's place is computed from. */
export interface RankInput {
  deviceId: bigint;
  operatorId: bigint;
  deviceClass: string;
  stake: bigint;
  /** Of each posted hour, the oldest first; undefined where it had no seat. */
  figures: readonly (Figure | undefined)[];
}

const BPS = 10_000n;
const WEIGHT_MAX = 1000n;
/** Stake counts up to so many times the bond of a proposer: beyond that more money lifts no rank. */
const STAKE_BONDS_MAX = 10n;

/**
 * Ranks all devices that have a seat in the hour that runs or the next. What is read is on chain and the same for everybody, so everybody finds
 * the same ranks at one block. The view must reach so far back; it needs no reports.
 * @throws chain-unreachable
 */
export async function readRanks(view: HealthView): Promise<Map<bigint, DeviceRank>> {
  const { client } = view;
  const hour = view.hourAt(await client.now());
  const posted = Array.from({ length: HOURS_RANKED }, (_, back) => hour - HOURS_RANKED + back).flatMap((at) => view.figuresOf(at) ?? []);
  const devices = [...seatedDevices(view, hour).values()];
  const [rule, stakes] = await Promise.all([client.read('computeRewards', 'config'), readStakes(client, devices)]);
  const figureAt = (deviceId: bigint, at: (typeof posted)[number]) => {
    const seat = view.seatOfDevice(deviceId, at.hour)?.seat;
    return seat === undefined ? undefined : decodeFigure(at.figures, seat);
  };
  const inputs = devices.map(({ deviceId, operatorId, deviceClass }) => ({
    deviceId,
    operatorId,
    deviceClass,
    stake: stakes.get(operatorId) as bigint,
    figures: posted.map((at) => figureAt(deviceId, at)),
  }));
  return new Map(rankDevices(inputs, { ...rule, bond: view.rule.bond }).map((rank) => [rank.deviceId, rank]));
}

/** The ranks of all devices for who chooses among them: reads no reports. @throws unknown-module, chain-unreachable */
export async function readRanksOf(client: ChainClient): Promise<Map<bigint, DeviceRank>> {
  return readRanks(await HealthView.open(client, { hours: HOURS_RANKED + 1, reports: false }));
}

/** Of each operator the device that ranks best. @throws unknown-module, chain-unreachable */
export async function readBestRanks(client: ChainClient): Promise<Map<bigint, DeviceRank>> {
  const best = new Map<bigint, DeviceRank>();
  for (const rank of (await readRanksOf(client)).values()) {
    if (rank.score >= (best.get(rank.operatorId)?.score ?? 0n)) best.set(rank.operatorId, rank);
  }
  return best;
}

/**
 * What posted figures say of a device to who chooses. One without any begins at the bottom: a middle place for the unknown is what a bad device
 * would be registered anew for. A missed challenge lowers a place; a wrong answer, which no honest machine gives, keeps work away until the next hour.
 */
export function weighHealth(rank: DeviceRank | undefined): Pick<DeviceView, 'rank' | 'uptime' | 'ineligible'> {
  const weighed = { rank: rank?.weight ?? 0, uptime: Math.floor((rank?.uptimeBps ?? 0) / 10) };
  return rank?.reason === 'challenge-wrong' ? { ...weighed, ineligible: 'its last hardware challenge was answered wrongly' } : weighed;
}

/** All devices that sit on a seat in an hour or will in the next, each with the seat that it has last. */
export function seatedDevices(view: HealthView, hour: number): Map<bigint, Occupant> {
  const latest = new Map<bigint, Occupant>();
  for (const at of [hour, hour + 1]) for (const one of view.occupantsAt(at)) latest.set(one.deviceId, one);
  return latest;
}

/** The rule itself: what figures and stake make of each device, in the order in which they are given. */
export function rankDevices(inputs: readonly RankInput[], rule: StabilityRule & { bond: bigint }): DeviceRank[] {
  const scored = inputs.map((input) => scoreDevice(input, rule));
  const scores = scored.map(({ score }) => score).sort(descending);
  const placeOf = new Map(scores.map((score, index): [bigint, number] => [score, index + 1]).reverse());
  const classes = Map.groupBy(scored.keys(), (index) => (inputs[index] as RankInput).deviceClass);
  const middles = new Map([...classes].map(([name, indices]) => [name, middleScore(indices.map((index) => scored[index] as DeviceRank))]));
  return scored.map((device, index) => {
    if (device.score === 0n) return device;
    const middle = middles.get((inputs[index] as RankInput).deviceClass) as bigint;
    const weight = Number((WEIGHT_MAX * device.score) / (device.score + middle));
    return { ...device, rank: placeOf.get(device.score) as number, weight };
  });
}

/** Stability after so many hours with performance in a row, of 10,000; as `ComputeRewards.stabilityBps`. */
export function stabilityBps({ baseBps, streakHours }: StabilityRule, streak: number): number {
  if (streak === 0) return 0;
  return baseBps + Math.floor(((10_000 - baseBps) * (Math.min(streak, streakHours + 1) - 1)) / streakHours);
}

function scoreDevice({ deviceId, operatorId, stake, figures }: RankInput, rule: StabilityRule & { bond: bigint }): DeviceRank {
  // An hour in which nobody could say anything of it is nobody's fault.
  const said = figures.filter((figure) => figure !== undefined && figure.reason !== 'too-few-statements' && figure.reason !== 'vacant');
  const share = (isSo: (figure: Figure) => boolean) =>
    said.length === 0 ? 0 : Math.floor((10_000 * said.filter((figure) => isSo(figure as Figure)).length) / said.length);
  const performances = said.map((figure) => figure?.performance ?? 0n).sort(descending);
  const device = {
    deviceId,
    operatorId,
    hoursPosted: said.length,
    performance: performances[(performances.length - 1) >> 1] ?? 0n,
    stabilityBps: stabilityBps(rule, streakOf(figures)),
    recordBps: share(({ performance }) => performance > 0n),
    uptimeBps: share(({ reason }) => reason !== 'unreachable'),
    stake,
  };
  const reason = said.at(-1)?.reason ?? 'too-few-statements';
  return { ...device, score: scoreOf({ ...device, bond: rule.bond }), rank: 0, weight: 0, reason };
}

/** Hours with performance in a row up to the last posted one. */
function streakOf(figures: readonly (Figure | undefined)[]): number {
  const gap = figures.findLastIndex((figure) => (figure?.performance ?? 0n) === 0n);
  return figures.length - 1 - gap;
}

/** Performance by stability by record, each point of which stake lifts by up to the same again; in ten-thousandths, so that small devices keep their order. */
function scoreOf(of: { performance: bigint; stabilityBps: number; recordBps: number; stake: bigint; bond: bigint }): bigint {
  const most = of.bond * STAKE_BONDS_MAX;
  const stakeBps = ((of.stake < most ? of.stake : most) * BPS) / most;
  return (of.performance * BigInt(of.stabilityBps) * BigInt(of.recordBps) * (BPS + stakeBps)) / (BPS * BPS);
}

/** Of those that have one; of an even number the lower. */
function middleScore(devices: readonly DeviceRank[]): bigint {
  const scores = devices.flatMap(({ score }) => (score > 0n ? [score] : [])).sort(descending);
  return scores[scores.length >> 1] ?? 0n;
}

function descending(one: bigint, other: bigint): number {
  return one > other ? -1 : one < other ? 1 : 0;
}

async function readStakes(client: ChainClient, devices: readonly Occupant[]): Promise<Map<bigint, bigint>> {
  const operators = [...new Set(devices.map(({ operatorId }) => operatorId))];
  const stakes = await Promise.all(
    operators.map(async (operatorId) => {
      const [[own], pool] = await Promise.all([
        client.read('stakeVault', 'ownStake', [operatorId]),
        client.read('stakeVault', 'pool', [operatorId]),
      ]);
      return own + pool.activeAssets;
    }),
  );
  return new Map(operators.map((operatorId, index) => [operatorId, stakes[index] as bigint]));
}
