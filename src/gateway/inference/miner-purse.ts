import { systemClock } from '../../clock.ts';
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
  /**
   * Money for a request that costs at most `amount`; opens a tab when it must. Where all that may be paid ahead is held by requests under way, it
   * waits so long for one of them to end. @throws what the payer throws, tab-refused, purse-full
   */
  lease(amount: bigint, patienceMs: number): Promise<TabLease>;
  close(): Promise<void>;
}

interface OpenTab {
  token: string;
  size: bigint;
  left: bigint;
  isBroken: boolean;
  /** Requests under way that it pays for: the miner keeps it open until they are over. */
  holds: number;
  /** The miner was told to end it. */
  isEnded: boolean;
}

/** So many requests are paid ahead at a miner that has earned nothing here yet: what it may get away with, once. */
const REQUESTS_FIRST = 8n;
/** More is paid ahead only within this part of what it has earned: channels burn as much of it, so that nobody gains by taking a tab. */
const EARNED_PARTS = 100n;
/** Miners keep so many tabs of one channel open at a time (`TAB_LIMITS`). */
const TABS_MAX = 4;
/** A tab is asked for again while others of the channel are ending. */
const OPEN_ATTEMPTS = 6;
const OPEN_AGAIN_MS = 5;
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
  /** Open at the miner, as far as is known here. */
  const open = new Set<OpenTab>();
  const waiting = new Set<() => void>();

  const askForTab = async (size: bigint): Promise<{ status: number; token: unknown }> => {
    const answer = await payer.fetch(`/v1/inference/tabs?amount=${size}`, {
      amountMax: size,
      init: { method: 'POST' },
      fetch: ((url: string, init?: RequestInit) => send(url, init)) as typeof fetch,
    });
    const bytes = await readAtMost(answer.body, ANSWER_BYTES_MAX);
    return { status: answer.status, token: answer.status === 201 ? readJsonObject(bytes).tab : undefined };
  };
  const openTab = async (amount: bigint): Promise<OpenTab> => {
    const trusted = greater(amount * requestsAhead, earned / EARNED_PARTS);
    const size = greater(amount, lesser(trusted, lesser(amount * rules.requests, rules.amountMax)));
    let asked = await askForTab(size);
    // What a tab gives back when it ends there changes the sum that the next voucher begins at: seen from here, at any moment.
    for (let attempt = 1; typeof asked.token !== 'string' && open.size > 0 && attempt < OPEN_ATTEMPTS; attempt += 1) {
      await systemClock.sleep(OPEN_AGAIN_MS * 2 ** attempt);
      asked = await askForTab(size);
    }
    if (typeof asked.token !== 'string') throw refused(asked.status);
    const before = current;
    current = { token: asked.token, size, left: size, isBroken: false, holds: 0, isEnded: false };
    open.add(current);
    if (before !== undefined && !before.isBroken) void endTab(before);
    return current;
  };
  const endTab = async (tab: OpenTab): Promise<void> => {
    try {
      const answer = await send('/v1/inference/tabs', { method: 'DELETE', headers: { 'millrace-tab': tab.token } });
      await readAtMost(answer.body, ANSWER_BYTES_MAX);
    } catch {
      // It ends by itself when nobody uses it.
    }
    tab.isEnded = true;
    tellOfRoom();
  };
  /** Something was given back, or a tab may be over: whoever waits looks again. */
  const tellOfRoom = () => {
    for (const tab of open) if (tab.isBroken || (tab.isEnded && tab.holds === 0)) open.delete(tab);
    for (const wake of [...waiting]) wake();
  };
  const roomMade = (deadlineMs: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const wake = () => {
        clearTimeout(timer);
        waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(
        () => {
          waiting.delete(wake);
          reject(full());
        },
        Math.max(0, deadlineMs - performance.now()),
      );
      waiting.add(wake);
    });
  const renew = (amount: bigint): Promise<OpenTab> => {
    opening ??= openTab(amount).finally(() => {
      opening = undefined;
    });
    return opening;
  };

  return {
    async lease(amount, patienceMs) {
      const deadlineMs = performance.now() + patienceMs;
      let tab = current;
      while (tab === undefined || tab.isBroken || tab.left < amount) {
        if (opening === undefined && open.size >= TABS_MAX) await roomMade(deadlineMs);
        else await renew(amount);
        tab = current;
      }
      const used = tab;
      used.left -= amount;
      used.holds += 1;
      // The next tab is opened while this one still has money, so that no request waits for it.
      if (open.size < TABS_MAX && used.size >= amount * 8n && used.left < used.size / 8n) void renew(amount).catch(() => {});
      let isOver = false;
      const end = () => {
        if (isOver) return false;
        isOver = true;
        used.holds -= 1;
        return true;
      };
      return {
        token: used.token,
        settle(actual) {
          if (!end()) return;
          used.left += amount - actual;
          earned += actual;
          tellOfRoom();
        },
        broken() {
          end();
          used.isBroken = true;
          [requestsAhead, earned] = [1n, 0n];
          tellOfRoom();
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

function full(): MillraceError {
  return new MillraceError('purse-full', {
    actor: 'host',
    message: 'All that may be paid ahead at this miner is held by requests under way',
    hint: 'Try again in a moment; more is paid ahead the more the miner has earned here.',
  });
}

function refused(status: number): MillraceError {
  return new MillraceError('tab-refused', { actor: 'peer', message: `The miner opened no tab: status ${status}`, values: { status } });
}
