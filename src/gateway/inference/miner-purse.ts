import { MillraceError } from '../../errors.ts';
import { readJsonObject } from '../../inference/index.ts';
import { readAtMost } from '../../read-at-most.ts';
import type { Payer } from '../../token/index.ts';
import { greater, lesser } from '../../units.ts';

/** Money for one request, from a tab that is open at a miner. */
export interface TabLease {
  token: string;
  /** What was charged of it. */
  settle(actual: bigint): void;
  /** The miner does not know the tab, or says that it is used up: it is not used again. */
  broken(): void;
}

/** The tabs that a gateway has open at one miner: one voucher pays for many requests. */
export interface MinerPurse {
  /** Money for a request that costs at most `amount`; opens a tab when it must. @throws what the payer throws, tab-refused */
  lease(amount: bigint): Promise<TabLease>;
  close(): Promise<void>;
}

interface OpenTab {
  token: string;
  size: bigint;
  left: bigint;
  isBroken: boolean;
}

/** So many requests are paid ahead at a miner that has earned nothing here yet: what it may get away with, once. */
const REQUESTS_FIRST = 8n;
/** More is paid ahead only within this part of what it has earned: channels burn as much of it, so that nobody gains by taking a tab. */
const EARNED_PARTS = 100n;
/** What a miner says of a tab. */
const ANSWER_BYTES_MAX = 16 << 10;

/** How much is paid ahead at most. */
export interface PurseRules {
  /** A tab is at most so many times the price of the request that opens it. */
  requests: bigint;
  /** And at most so much, unless one request costs more. */
  amountMax: bigint;
}

/** The paying side of a miner's tabs. `send` reaches the miner. */
export function createMinerPurse(options: {
  payer: Payer;
  /** Base of URLs, as the miner names its resources. */
  send: (path: string, init?: RequestInit) => Promise<Response>;
  rules: PurseRules;
}): MinerPurse {
  const { payer, send, rules } = options;
  let current: OpenTab | undefined;
  let [requestsAhead, earned] = [REQUESTS_FIRST, 0n];
  let opening: Promise<OpenTab> | undefined;

  const openTab = async (amount: bigint): Promise<OpenTab> => {
    const trusted = greater(amount * requestsAhead, earned / EARNED_PARTS);
    const size = greater(amount, lesser(trusted, lesser(amount * rules.requests, rules.amountMax)));
    const path = `/v1/inference/tabs?amount=${size}`;
    const answer = await payer.fetch(path, {
      amountMax: size,
      init: { method: 'POST' },
      fetch: ((url: string, init?: RequestInit) => send(url, init)) as typeof fetch,
    });
    const bytes = await readAtMost(answer.body, ANSWER_BYTES_MAX);
    const { tab } = answer.status === 201 ? readJsonObject(bytes) : { tab: undefined };
    if (typeof tab !== 'string') throw refused(answer.status);
    const before = current;
    current = { token: tab, size, left: size, isBroken: false };
    if (before !== undefined && !before.isBroken) void endTab(before);
    return current;
  };
  const endTab = async ({ token }: OpenTab): Promise<void> => {
    try {
      const answer = await send('/v1/inference/tabs', { method: 'DELETE', headers: { 'millrace-tab': token } });
      await readAtMost(answer.body, ANSWER_BYTES_MAX);
    } catch {
      // It ends by itself when nobody uses it.
    }
  };
  const renew = (amount: bigint): Promise<OpenTab> => {
    opening ??= openTab(amount).finally(() => {
      opening = undefined;
    });
    return opening;
  };

  return {
    async lease(amount) {
      let tab = current;
      while (tab === undefined || tab.isBroken || tab.left < amount) tab = await renew(amount);
      const used = tab;
      used.left -= amount;
      // The next tab is opened while this one still has money, so that no request waits for it.
      if (used.size >= amount * 8n && used.left < used.size / 8n) void renew(amount).catch(() => {});
      let isOver = false;
      return {
        token: used.token,
        settle(actual) {
          if (!isOver) {
            used.left += amount - actual;
            earned += actual;
          }
          isOver = true;
        },
        broken() {
          used.isBroken = true;
          [requestsAhead, earned] = [1n, 0n];
        },
      };
    },
    async close() {
      const last = current;
      current = undefined;
      if (last !== undefined && !last.isBroken) await endTab(last);
    },
  };
}

function refused(status: number): MillraceError {
  return new MillraceError('tab-refused', { actor: 'peer', message: `The miner opened no tab: status ${status}`, values: { status } });
}
