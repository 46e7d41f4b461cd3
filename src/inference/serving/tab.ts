import { randomBytes } from 'node:crypto';
import type { Address, Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { Credit } from '../../token/index.ts';
import { lesser } from '../../units.ts';

/** Money that a caller pays ahead by vouchers of one channel, and that many requests use up; what is left is given back. */
export interface Tab {
  readonly token: string;
  readonly channelId: Hex;
  readonly payer: Address;
  /** The last cumulative voucher behind it. */
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
  /**
   * Puts a payment that was taken on the open tab `token` of its channel, else on a new one; a repeated payment gives the tab that it is on.
   * @throws serving-busy, tab-unknown
   */
  open(credit: Credit, token?: string): Promise<Tab>;
  /** @throws tab-unknown */
  find(token: string): Tab;
  /** Ends a tab as soon as its requests are over: what is left is given back. @throws tab-unknown */
  end(token: string): Promise<void>;
  /** Ends tabs that nobody used for a while. */
  sweep(): Promise<void>;
  readonly size: number;
  close(): Promise<void>;
}

/** What tabs there may be. */
export const TAB_LIMITS = { tabsMax: 2000, tabsPerChannelMax: 4, creditsMax: 64, idleMs: 60_000 } as const;

/** Tabs in memory. A miner that dies with open tabs keeps what was paid for them: they are small and short-lived, and payers choose how small. */
export function createTabs(nowMs: () => number = () => performance.now()): Tabs {
  const tabs = new Map<string, OpenTab>();
  const byPayment = new Map<string, string>();

  const close = async (tab: OpenTab): Promise<void> => {
    if (!tabs.delete(tab.token)) return;
    for (const payment of tab.payments) byPayment.delete(payment);
    await tab.giveBack();
  };
  const end = async (tab: OpenTab): Promise<void> => {
    tab.end(() => void close(tab).catch(() => {}));
    if (tab.holds === 0) await close(tab);
  };
  /** The tab that a payment is for: the named one of its channel, or a new one; undefined where there is no more room. */
  const tabFor = ({ channelId, payer }: Credit, token: string): OpenTab | undefined => {
    const named = tabs.get(token);
    if (named?.channelId === channelId && !named.isEnding) return named.credits.length < TAB_LIMITS.creditsMax ? named : undefined;
    const ofChannel = [...tabs.values()].filter((tab) => tab.channelId === channelId);
    if (tabs.size >= TAB_LIMITS.tabsMax || ofChannel.length >= TAB_LIMITS.tabsPerChannelMax) return undefined;
    const tab = new OpenTab(channelId, payer, nowMs);
    tabs.set(tab.token, tab);
    return tab;
  };
  const find = (token: string): OpenTab => {
    const tab = tabs.get(token);
    if (tab === undefined) throw unknown();
    return tab;
  };

  return {
    async open(credit, token = '') {
      const payment = `${credit.channelId}:${credit.chargedCumulative}`;
      if (credit.isRepeat) return find(byPayment.get(payment) ?? '');
      const tab = tabFor(credit, token);
      if (tab === undefined) {
        await credit.settle(0n);
        throw full(tabs.size);
      }
      const forgotten = tab.put(credit, payment);
      byPayment.set(payment, tab.token);
      if (forgotten !== undefined) byPayment.delete(forgotten);
      return tab;
    },
    find,
    end: async (token) => end(find(token)),
    async sweep() {
      const now = nowMs();
      const idle = [...tabs.values()].filter((tab) => tab.holds === 0 && now - tab.usedMs > TAB_LIMITS.idleMs);
      await Promise.all(idle.map(end));
    },
    get size() {
      return tabs.size;
    },
    async close() {
      await Promise.all([...tabs.values()].map(close));
    },
  };
}

class OpenTab implements Tab {
  readonly token = randomBytes(24).toString('base64url');
  readonly channelId: Hex;
  readonly payer: Address;
  voucher = 0n;
  /** Payments on it that are not used up, oldest first. */
  readonly credits: Credit[] = [];
  /** The last payments, used up or not: what a repeated one is known by. */
  readonly payments: string[] = [];
  holds = 0;
  usedMs = 0;
  /** The sum of `credits`, and what of it is not spent. */
  #paid = 0n;
  #unspent = 0n;
  #held = 0n;
  #onOver: (() => void) | undefined;
  readonly #nowMs: () => number;

  constructor(channelId: Hex, payer: Address, nowMs: () => number) {
    this.channelId = channelId;
    this.payer = payer;
    this.#nowMs = nowMs;
  }

  get left(): bigint {
    return this.#unspent - this.#held;
  }

  get isEnding(): boolean {
    return this.#onOver !== undefined;
  }

  /** Gives a payment that is no longer remembered, if there are too many. */
  put(credit: Credit, payment: string): string | undefined {
    this.credits.push(credit);
    this.#paid += credit.charged;
    this.#unspent += credit.charged;
    this.voucher = credit.chargedCumulative;
    this.usedMs = this.#nowMs();
    return this.payments.push(payment) > TAB_LIMITS.creditsMax ? this.payments.shift() : undefined;
  }

  hold(amount: bigint): TabHold {
    if (this.isEnding || amount > this.left) throw exhausted(amount, this.left);
    this.#held += amount;
    this.holds += 1;
    this.usedMs = this.#nowMs();
    let isOver = false;
    return {
      settle: (actual) => {
        if (isOver) return;
        isOver = true;
        this.#held -= amount;
        this.holds -= 1;
        this.usedMs = this.#nowMs();
        this.#spend(lesser(actual, amount));
        if (this.holds === 0) this.#onOver?.();
      },
    };
  }

  /** Takes no more requests; `onOver` is called when the last of those under way is over. */
  end(onOver: () => void): void {
    this.#onOver ??= onOver;
  }

  /** Gives back what was not spent: it is of the newest payments. */
  async giveBack(): Promise<void> {
    for (const credit of this.credits.reverse()) {
      const back = lesser(this.#unspent, credit.charged);
      this.#unspent -= back;
      await credit.settle(credit.charged - back);
    }
  }

  /** Takes what was spent from the oldest payments. One that is used up can be claimed at once, while the tab stays open. */
  #spend(amount: bigint): void {
    this.#unspent -= amount;
    for (let oldest = this.credits[0]; oldest !== undefined && this.#paid - oldest.charged >= this.#unspent; oldest = this.credits[0]) {
      this.credits.shift();
      this.#paid -= oldest.charged;
      void oldest.settle(oldest.charged).catch(() => {});
    }
  }
}

function unknown(): MillraceError {
  return new MillraceError('tab-unknown', {
    actor: 'caller',
    message: 'This tab is not open here: it was used up, or nobody used it for a while',
    hint: 'Open another: POST /v1/inference/tabs.',
  });
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
