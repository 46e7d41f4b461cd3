import { randomBytes } from 'node:crypto';
import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import { readJsonObject } from '../../inference/index.ts';
import { readAtMost } from '../../read-at-most.ts';
import { PAYMENT_REQUIRED, PAYMENT_SIGNATURE, type Payer, type Payment } from '../../token/index.ts';
import { greater, lesser } from '../../units.ts';
import type { MinerTrust, TabMoney } from './miner-trust.ts';

/** Money for one request, from the tab that is open at a miner. */
export interface TabLease {
  token: string;
  /** What was charged of it. */
  settle(actual: bigint): void;
  /** The miner may have taken all of it, and signed for nothing; `worth` of it the caller paid for. */
  forfeit(worth: bigint): void;
  /** The miner does not know the tab, or says that it is used up: it is not used again. */
  broken(): void;
}

/** What a gateway pays one miner with: a tab, which vouchers fill, and from which many requests are paid. */
export interface MinerPurse {
  /** Whether a request that costs at most `amount` can be paid now, without waiting for another one to end. */
  hasRoom(amount: bigint): boolean;
  /**
   * Money for a request that costs at most `amount`. Who comes first is served first: it waits until the tab is filled, and, where all that may be
   * paid ahead is held by requests under way, until one of them ends. @throws what the payer throws, tab-refused, purse-too-small, purse-spent, the
   * signal's reason
   */
  lease(amount: bigint, signal: AbortSignal): Promise<TabLease>;
  close(): Promise<void>;
}

/** How a purse reaches its miner. */
export interface PurseOptions {
  payer: Payer;
  /** Sends a request to the miner. */
  send: (path: string, init?: RequestInit) => Promise<Response>;
  trust: MinerTrust;
  /** The most that one request may cost. */
  max: bigint;
  nowMs?: () => number;
}

interface OpenTab extends TabMoney {
  token: string;
}

interface Waiter {
  amount: bigint;
  grant(lease: TabLease): void;
  refuse(error: unknown): void;
}

const TABS_PATH = '/v1/inference/tabs';
const TAB_HEADER = 'millrace-tab';
/** A payment is for so many requests like the one that needs it, or for all that wait; more, where payments follow one another fast. */
const REQUESTS_MIN = 8n;
const REQUESTS_MAX = 256n;
const FAST_MS = 1_000;
const SLOW_MS = 30_000;
/** The price, then payments: again after the miner has said what it gave back, which may be more each time while requests end. */
const PAYMENTS_MAX = 8;
/** What a miner says of a tab. */
const ANSWER_BYTES_MAX = 16 << 10;

/** The paying side of a miner's tabs. */
export function createMinerPurse(options: PurseOptions): MinerPurse {
  return new Purse(options);
}

class Purse implements MinerPurse {
  readonly #options: PurseOptions;
  readonly #nowMs: () => number;
  readonly #waiting = new Set<Waiter>();
  #waitingAmount = 0n;
  #tab: OpenTab | undefined;
  /** Was replaced; the miner gives back what is left when its requests are over. */
  #ending: OpenTab | undefined;
  #isPaying = false;
  #requests = REQUESTS_MIN;
  /** What was lost when the miner was last asked what it gave back. */
  #lostSeen = 0n;
  #paid = { amount: 0n, atMs: 0 };

  constructor(options: PurseOptions) {
    this.#options = options;
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  hasRoom(amount: bigint): boolean {
    const money = this.#money();
    const { trust, max } = this.#options;
    if (amount > max) return false;
    if (money.left + trust.room(money) - this.#waitingAmount >= amount) return true;
    return this.#waiting.size === 0 && money.left + trust.roomAlone(money, amount) >= amount;
  }

  lease(amount: bigint, signal: AbortSignal): Promise<TabLease> {
    const { max } = this.#options;
    if (amount > max) return Promise.reject(tooDear(amount, max));
    if (this.#waiting.size === 0 && this.#tab !== undefined && this.#tab.left >= amount) {
      const lease = this.#leaseFrom(this.#tab, amount);
      this.#fillAhead(amount);
      return Promise.resolve(lease);
    }
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const leave = () => {
        this.#waiting.delete(waiter);
        this.#waitingAmount -= amount;
        signal.removeEventListener('abort', onAbort);
      };
      const waiter: Waiter = {
        amount,
        grant(lease) {
          leave();
          resolve(lease);
        },
        refuse(error) {
          leave();
          reject(error);
        },
      };
      const onAbort = () => waiter.refuse(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.add(waiter);
      this.#waitingAmount += amount;
      this.#serve();
    });
  }

  async close(): Promise<void> {
    const last = this.#tab;
    this.#tab = undefined;
    if (last !== undefined) await this.#end(last);
  }

  /** What the miner has of us that is still good for something. */
  #money(): TabMoney {
    return { left: this.#tab?.left ?? 0n, held: (this.#tab?.held ?? 0n) + (this.#ending?.held ?? 0n) };
  }

  /** Gives money to whoever waits, in order, and pays for more where that is allowed. */
  #serve(): void {
    for (const waiter of this.#waiting) {
      const tab = this.#tab;
      if (tab === undefined || tab.left < waiter.amount) {
        const size = this.#sizeFor(waiter.amount);
        if (size === 0n && !this.#isPaying && this.#money().held === 0n) {
          waiter.refuse(spent());
          continue;
        }
        if (size > 0n) this.#fill(size);
        return;
      }
      waiter.grant(this.#leaseFrom(tab, waiter.amount));
    }
  }

  /** How much is paid so that a request for `amount` can begin; 0 where that is not allowed now. */
  #sizeFor(amount: bigint): bigint {
    const { trust } = this.#options;
    const money = this.#money();
    const needed = amount - money.left;
    const room = trust.room(money);
    if (room < needed) return trust.roomAlone(money, amount) >= needed ? needed : this.#sizeOfLook(money);
    return lesser(room, greater(this.#waitingAmount - money.left, amount * this.#requests));
  }

  /** The smallest payment: its answer shows what the miner gave back of tabs that are over. Once for the same loss. */
  #sizeOfLook(money: TabMoney): bigint {
    const { trust } = this.#options;
    const lost = trust.lost(money);
    if (money.held > 0n || lost === 0n || lost === this.#lostSeen || trust.room(money) === 0n) return 0n;
    this.#lostSeen = lost;
    return 1n;
  }

  /** Pays while the tab still has money, so that no request waits for it. */
  #fillAhead(amount: bigint): void {
    const money = this.#money();
    const wanted = amount * this.#requests;
    if (this.#isPaying || money.left > wanted / REQUESTS_MIN) return;
    if (this.#options.trust.room(money) >= wanted) this.#fill(wanted);
  }

  #fill(size: bigint): void {
    if (this.#isPaying) return;
    this.#isPaying = true;
    const nowMs = this.#nowMs();
    const lastedMs = nowMs - this.#paid.atMs;
    if (this.#paid.amount > 0n && lastedMs < FAST_MS) this.#requests = lesser(this.#requests * 2n, REQUESTS_MAX);
    else if (lastedMs > SLOW_MS) this.#requests = greater(this.#requests / 2n, REQUESTS_MIN);
    this.#paid = { amount: size, atMs: nowMs };
    void this.#pay(size)
      .then(() => {
        this.#isPaying = false;
        this.#serve();
      })
      .catch((error) => {
        this.#isPaying = false;
        this.#refuse(error);
      });
  }

  #refuse(error: unknown): void {
    for (const waiter of this.#waiting) waiter.refuse(error);
  }

  async #pay(size: bigint): Promise<void> {
    const answer = await this.#sendPayment(size, this.#tabToFill()?.token);
    const bytes = await readAtMost(answer.body, ANSWER_BYTES_MAX);
    const token = answer.status === 201 ? readJsonObject(bytes).tab : undefined;
    if (typeof token !== 'string') throw refused(answer.status);
    if (this.#tab?.token === token) {
      this.#tab.left += size;
      return;
    }
    const last = this.#tab;
    this.#tab = { token, left: size, held: 0n };
    if (last === undefined) return;
    this.#ending = last;
    void this.#end(last);
  }

  /** The tab that a payment is for; undefined where a new one shall show what the miner gives back of the one that there was. */
  #tabToFill(): OpenTab | undefined {
    const isAlone = this.#ending === undefined || this.#ending.held === 0n;
    return isAlone && this.#options.trust.isShort(this.#money()) ? undefined : this.#tab;
  }

  /** Asks for the price of a tab and pays it; again, when the miner shows that it has charged less than we knew. */
  async #sendPayment(size: bigint, token: string | undefined): Promise<Response> {
    const { payer, send, trust } = this.#options;
    const path = `${TABS_PATH}?amount=${size}`;
    const known: Record<string, string> = token === undefined ? {} : { [TAB_HEADER]: token };
    let signed: Payment | undefined;
    // The second time it is for no more than the first, in the same channel.
    const cumulativeMax = (channelId: Hex): bigint => {
      if (signed === undefined) return trust.cumulativeMax(channelId, size);
      return signed.channelId === channelId ? signed.cumulative : 0n;
    };
    const idempotencyKey = `pay_${randomBytes(16).toString('hex')}`;
    let answer = await send(path, { method: 'POST', headers: known });
    for (let attempt = 0; attempt < PAYMENTS_MAX && answer.status === 402; attempt += 1) {
      const required = answer.headers.get(PAYMENT_REQUIRED);
      await answer.body?.cancel();
      if (required === null) throw refused(answer.status);
      const payment = await payer.payment({ required, amountMax: size, cumulativeMax, idempotencyKey });
      signed = payment;
      trust.noteSigned(payment.channelId, payment.cumulative, payment.amount);
      try {
        if (payment.amount !== size) throw refused(answer.status);
        answer = await send(path, { method: 'POST', headers: { ...known, [PAYMENT_SIGNATURE]: payment.header } });
      } catch (error) {
        payment.abandon();
        throw error;
      }
      const { status, headers } = answer;
      const outcome = await payment.finish({ status, header: (name) => headers.get(name) });
      if (outcome.kind !== 'corrected') break;
    }
    return answer;
  }

  async #end(tab: OpenTab): Promise<void> {
    try {
      const answer = await this.#options.send(TABS_PATH, { method: 'DELETE', headers: { [TAB_HEADER]: tab.token } });
      await readAtMost(answer.body, ANSWER_BYTES_MAX);
    } catch {
      // It ends by itself when nobody uses it.
    }
  }

  #leaseFrom(tab: OpenTab, amount: bigint): TabLease {
    tab.left -= amount;
    tab.held += amount;
    let isOver = false;
    const end = (spent: bigint, worth: bigint) => {
      if (isOver) return;
      isOver = true;
      tab.held -= amount;
      tab.left += amount - spent;
      this.#options.trust.noteEarned(worth);
      this.#serve();
    };
    return {
      token: tab.token,
      settle: (actual) => end(lesser(actual, amount), lesser(actual, amount)),
      forfeit: (worth) => end(amount, lesser(worth, amount)),
      broken: () => {
        if (this.#tab === tab) this.#tab = undefined;
        end(0n, 0n);
      },
    };
  }
}

function tooDear(amount: bigint, max: bigint): MillraceError {
  return new MillraceError('purse-too-small', {
    actor: 'caller',
    message: `The request may cost ${amount} base units at this miner, at most ${max} is paid ahead to one miner`,
    values: { amount, max },
    hint: 'Ask for less, or let whoever runs the gateway raise the most that is paid ahead (`--tab-max`).',
  });
}

/** Nothing is under way that could give anything back: waiting helps nobody. */
function spent(): MillraceError {
  return new MillraceError('purse-spent', {
    actor: 'peer',
    message: 'What may be paid ahead at this miner was taken there for nothing',
    hint: 'Ask another miner; what was lost is forgiven within days.',
  });
}

function refused(status: number): MillraceError {
  return new MillraceError('tab-refused', { actor: 'peer', message: `The miner opened no tab: status ${status}`, values: { status } });
}
