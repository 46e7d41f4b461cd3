import type { Hex } from 'viem';
import { greater, lesser } from '../../units.ts';

/** Money on the tab that a miner serves from: `left` for more requests, `held` for those under way. Base units, as all amounts here. */
export interface TabMoney {
  left: bigint;
  held: bigint;
}

/**
 * What one operator was paid by a gateway and has earned there, and by that how much more it is paid ahead. Whatever it does, and whoever sends the
 * requests: what was signed for it and not earned is never more than a quarter of `max` and a hundredth of what it earned, and never more than `max`.
 * A request that costs more than the quarter is paid alone, when none is under way and nothing beyond the quarter is lost. What is lost is
 * forgiven, a quarter of `max` a day: an honest miner that was killed gets its traffic back.
 */
export interface MinerTrust {
  /** Signed and not earned. */
  readonly ahead: bigint;
  /** How much more may be paid now; what is ahead and not on the tab counts as lost until it is seen to be given back. */
  room(tab: TabMoney): bigint;
  /** The same for one request that costs at most `amount`, more than could be paid ahead otherwise. */
  roomAlone(tab: TabMoney, amount: bigint): bigint;
  /** What is ahead and not on the tab: taken for nothing, or given back and not seen yet. */
  lost(tab: TabMoney): bigint;
  /** Whether so much is lost that it is worth asking the miner what it gives back. */
  isShort(tab: TabMoney): boolean;
  /** The most that may be signed in all in a channel so that `amount` can be paid. 0 in one channel too many. */
  cumulativeMax(channelId: Hex, amount: bigint): bigint;
  /** A voucher of so much in all was signed; `amount` of it is new. */
  noteSigned(channelId: Hex, cumulative: bigint, amount: bigint): void;
  /** A request was answered, with a receipt or as far as its caller paid for it. */
  noteEarned(amount: bigint): void;
}

/** A miner that has earned nothing is paid ahead this part of the most. */
const FIRST_PARTS = 4n;
/** More only as a part of what it has earned: channels burn as much of it, so that nobody gains by serving himself and taking what is paid ahead. */
const EARNED_PARTS = 100n;
const DAY_MS = 86_400_000n;
/** A miner's payee may change; each one makes the gateway open another channel on chain. */
const CHANNELS_MAX = 4;

/** Trust in an operator that nothing is known of. */
export function createMinerTrust(max: bigint, nowMs: () => number = () => performance.now()): MinerTrust {
  const first = max / FIRST_PARTS;
  /** By channel: what was signed before this gateway knew the operator, and what was signed last. */
  const channels = new Map<Hex, { origin: bigint; last: bigint }>();
  let earned = 0n;
  let forgiven = 0n;
  let forgivenAtMs = nowMs();

  const ahead = () => [...channels.values()].reduce((sum, { origin, last }) => sum + last - origin, -earned);
  const limit = () => lesser(max, first + earned / EARNED_PARTS);
  const lostOf = ({ left, held }: TabMoney) => greater(0n, ahead() - left - held);
  /** What is ahead, less what of it is forgiven. */
  const counted = (tab: TabMoney): bigint => {
    const atMs = nowMs();
    const lost = lostOf(tab);
    const more = (first * BigInt(Math.floor(atMs - forgivenAtMs))) / DAY_MS;
    // Less than one base unit is not lost to rounding: the time goes on counting.
    if (more > 0n || lost === 0n) forgivenAtMs = atMs;
    forgiven = lesser(forgiven + more, lost);
    return ahead() - forgiven;
  };

  return {
    get ahead() {
      return ahead();
    },
    room: (tab) => greater(0n, limit() - counted(tab)),
    roomAlone(tab, amount) {
      const taken = counted(tab);
      return tab.held === 0n && amount > limit() && taken <= limit() ? max - taken : 0n;
    },
    lost: lostOf,
    isShort: (tab) => lostOf(tab) > first / FIRST_PARTS,
    cumulativeMax(channelId, amount) {
      const known = channels.get(channelId);
      if (known !== undefined) return known.last + amount;
      return channels.size < CHANNELS_MAX ? UNBOUND : 0n;
    },
    noteSigned(channelId, cumulative, amount) {
      const base = cumulative - amount;
      channels.set(channelId, { origin: lesser(channels.get(channelId)?.origin ?? base, base), last: cumulative });
    },
    noteEarned(amount) {
      earned += amount;
    },
  };
}

/** The first payment in a channel: how much was signed there before is not known yet. */
const UNBOUND = 2n ** 128n;
