import { randomBytes } from 'node:crypto';
import type { Address, Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { Credit } from '../../token/index.ts';
import { lesser } from '../../units.ts';

/** Money that a caller paid ahead with one voucher, and that many requests use up; what is left is given back. */
export interface Tab {
  readonly token: string;
  readonly channelId: Hex;
  readonly payer: Address;
  /** The cumulative voucher behind it. */
  readonly voucher: bigint;
  /** Not spent and not held for requests under way. */
  readonly left: bigint;
  /** Holds the most that a request may cost. @throws tab-exhausted */
  hold(amount: bigint): TabHold;
}

/** Money held for one request. */
export interface TabHold {
  /** Spends so much of it, at most all; the rest is free again. Counts once. */
  settle(actual: bigint): void;
}

/** The open tabs of a miner. */
export interface Tabs {
  /** A tab on a payment that was taken; the tab of that payment where it is a repetition. @throws tabs-full, tab-unknown */
  open(credit: Credit): Promise<Tab>;
  /** @throws tab-unknown */
  find(token: string): Tab;
  /** Ends a tab as soon as its requests are over: what is left is given back. */
  end(token: string): Promise<void>;
  /** Ends tabs that nobody used for a while, or that are old. */
  sweep(): Promise<void>;
  readonly size: number;
  close(): Promise<void>;
}

/** What tabs there may be. */
export const TAB_LIMITS = { tabsMax: 2000, tabsPerChannelMax: 4, idleMs: 60_000, lifetimeMs: 600_000 } as const;

interface OpenTab extends Tab {
  credit: Credit;
  spent: bigint;
  held: bigint;
  holds: number;
  openedMs: number;
  usedMs: number;
  isEnding: boolean;
}

/** Tabs in memory. A miner that dies with open tabs keeps what was paid for them: they are small and short-lived, and payers choose how small. */
export function createTabs(nowMs: () => number = () => performance.now()): Tabs {
  const tabs = new Map<string, OpenTab>();
  const byVoucher = new Map<string, string>();

  const settle = async (tab: OpenTab): Promise<void> => {
    if (!tabs.delete(tab.token)) return;
    byVoucher.delete(`${tab.channelId}:${tab.voucher}`);
    await tab.credit.settle(tab.spent);
  };
  const end = async (tab: OpenTab): Promise<void> => {
    tab.isEnding = true;
    if (tab.holds === 0) await settle(tab);
  };
  const hold = (tab: OpenTab, amount: bigint): TabHold => {
    const left = tab.credit.charged - tab.spent - tab.held;
    if (tab.isEnding || amount > left) throw exhausted(amount, left);
    tab.held += amount;
    tab.holds += 1;
    tab.usedMs = nowMs();
    let isOver = false;
    return {
      settle(actual) {
        if (isOver) return;
        isOver = true;
        tab.held -= amount;
        tab.holds -= 1;
        tab.spent += lesser(actual, amount);
        tab.usedMs = nowMs();
        if (tab.isEnding && tab.holds === 0) void settle(tab).catch(() => {});
      },
    };
  };

  return {
    async open(credit) {
      const key = `${credit.channelId}:${credit.chargedCumulative}`;
      if (credit.isRepeat) return find(byVoucher.get(key) ?? '');
      const ofChannel = [...tabs.values()].filter((tab) => tab.channelId === credit.channelId);
      if (tabs.size >= TAB_LIMITS.tabsMax || ofChannel.length >= TAB_LIMITS.tabsPerChannelMax) {
        await credit.settle(0n);
        throw full(tabs.size);
      }
      const now = nowMs();
      const tab: OpenTab = {
        token: randomBytes(24).toString('base64url'),
        channelId: credit.channelId,
        payer: credit.payer,
        voucher: credit.chargedCumulative,
        credit,
        spent: 0n,
        held: 0n,
        holds: 0,
        openedMs: now,
        usedMs: now,
        isEnding: false,
        get left() {
          return this.credit.charged - this.spent - this.held;
        },
        hold: (amount) => hold(tab, amount),
      };
      tabs.set(tab.token, tab);
      byVoucher.set(key, tab.token);
      return tab;
    },
    find,
    async end(token) {
      await end(find(token));
    },
    async sweep() {
      const now = nowMs();
      const old = [...tabs.values()].filter(
        (tab) => now - tab.openedMs > TAB_LIMITS.lifetimeMs || (tab.holds === 0 && now - tab.usedMs > TAB_LIMITS.idleMs),
      );
      await Promise.all(old.map(end));
    },
    get size() {
      return tabs.size;
    },
    async close() {
      await Promise.all([...tabs.values()].map(settle));
    },
  };

  function find(token: string): OpenTab {
    const tab = tabs.get(token);
    if (tab !== undefined) return tab;
    throw new MillraceError('tab-unknown', {
      actor: 'caller',
      message: 'This tab is not open here: it was used up, or nobody used it for a while',
      hint: 'Open another: POST /v1/inference/tabs.',
    });
  }
}

function exhausted(amount: bigint, left: bigint): MillraceError {
  return new MillraceError('tab-exhausted', {
    actor: 'caller',
    message: `The request may cost ${amount} base units, the tab has ${left} left`,
    values: { amount, left },
    hint: 'Open another: POST /v1/inference/tabs.',
  });
}

function full(open: number): MillraceError {
  return new MillraceError('serving-busy', {
    actor: 'peer',
    message: `There are ${open} open tabs here, or too many of this channel`,
    values: { open, max: TAB_LIMITS.tabsMax, perChannel: TAB_LIMITS.tabsPerChannelMax },
    hint: 'End a tab, or pay by request.',
  });
}
