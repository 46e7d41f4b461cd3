import { randomBytes } from 'node:crypto';
import { peerFetch } from '../../connect/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import type { Payer } from '../../token/index.ts';
import { readJsonObject } from '../serving/call.ts';
import { WITNESS_HEADER } from '../serving/miner.ts';
import { priceUp } from '../serving/price.ts';
import type { ProbeOutcome } from './judging-ports.ts';
import { sendProbe } from './probe-carrier.ts';
import type { PlannedProbe } from './probe-plan.ts';
import { PATH_OF_TASK, type Seat } from './seat-survey.ts';

/** An account that probes are sent from. */
export interface ProbeAccount {
  /** How much of the users' traffic goes the same way. */
  weight: number;
  send(probe: PlannedProbe, seat: Seat, signal: AbortSignal): Promise<ProbeOutcome>;
  close(): Promise<void>;
}

/** A gateway that a validator has a key for, as any other caller. */
export interface GatewayKey {
  url: string;
  key?: string;
  weight?: number;
}

/** A tab holds so many requests, as those of `millrace ask` do. */
const TAB_REQUESTS = 256n;
const SLACK_UNITS = 1024n;
/** No voice takes longer for a character, milliseconds. */
const SPOKEN_MS_MAX = 1000n;
/** What a miner says of a tab. */
const TAB_BYTES_MAX = 16 << 10;

/**
 * An account at a gateway: the miner sees the gateway's channel and nothing else. The wish for one miner goes in a header that the gateway keeps
 * to itself.
 */
export function gatewayAccount({ url, key, weight = 1 }: GatewayKey): ProbeAccount {
  return {
    weight,
    send(probe, seat, signal) {
      const wish = JSON.stringify({ only: [`operator-${seat.operatorId}`], allow_fallbacks: false });
      const headers = { 'millrace-provider': wish, ...(key === undefined ? {} : { authorization: `Bearer ${key}` }) };
      return sendProbe(probe, { url, headers }, signal);
    },
    async close() {},
  };
}

/**
 * The account of somebody who asks with a gateway of their own, as `millrace ask` does: a channel with each miner; for each question a tab that a
 * voucher pays, ended with the answer.
 */
export function ownAccount(payer: Payer, options: { weight?: number; amountMax: bigint }): ProbeAccount {
  return {
    weight: options.weight ?? 1,
    async send(probe, seat, signal) {
      let tab: string | undefined;
      try {
        tab = await openTab(seat, probe, { payer, amountMax: options.amountMax });
      } catch (error) {
        return { outcome: 'excused', code: toMillraceError(error).code };
      }
      const headers = { ...(tab === undefined ? {} : { 'millrace-tab': tab }), ...witnessOf(seat, probe) };
      const outcome = await sendProbe(probe, { url: seat.endpoint, headers, fetch: fetchOfPeer(seat) }, signal);
      if (tab !== undefined) await endTab(seat, tab);
      // Here nothing stands between: who does not answer is silent by itself.
      return outcome.code === 'gateway-unreachable' ? { ...outcome, outcome: 'failed', code: 'miner-unreachable' } : outcome;
    },
    close: () => payer.close(),
  };
}

/** As gateways do with every request to an exact model. */
function witnessOf({ offer }: Seat, { path }: PlannedProbe): Record<string, string> {
  const isExact = offer?.models.some(({ task, evidence }) => PATH_OF_TASK[task] === path && evidence === 'replayed') === true;
  return isExact ? { [WITNESS_HEADER]: `0x${randomBytes(32).toString('hex')}` } : {};
}

/** `fetch` that reaches one seat over TLS pinned to its key, whatever host a URL names. */
function fetchOfPeer(seat: Seat): typeof fetch {
  return (async (to: string | URL, init: RequestInit = {}) => {
    const { pathname, search } = new URL(to, seat.endpoint);
    const headers = Object.fromEntries(new Headers(init.headers));
    const body = (init.body ?? '') as Uint8Array | string;
    return peerFetch(seat, `${pathname}${search}`, { method: init.method, headers, body, signal: init.signal ?? undefined });
  }) as typeof fetch;
}

async function openTab(
  seat: Seat,
  probe: PlannedProbe,
  { payer, amountMax }: { payer: Payer; amountMax: bigint },
): Promise<string | undefined> {
  const dearest = priceOf(seat, probe);
  if (dearest === 0n) return undefined;
  if (dearest > amountMax) {
    throw new MillraceError('price-above-limit', {
      actor: 'peer',
      message: `A request may cost ${dearest} at uid ${seat.uid}, at most ${amountMax} is paid for a probe`,
      values: { uid: seat.uid, price: dearest, limit: amountMax },
    });
  }
  const amount = dearest * TAB_REQUESTS < amountMax ? dearest * TAB_REQUESTS : amountMax;
  const path = `/v1/inference/tabs?amount=${amount}`;
  const response = await payer.fetch(path, { amountMax: amount, init: { method: 'POST' }, fetch: fetchOfPeer(seat) });
  const { tab, error } = readJsonObject(await readAtMost(response.body, TAB_BYTES_MAX));
  if (response.status === 201 && typeof tab === 'string') return tab;
  throw new MillraceError('tab-refused', {
    actor: 'peer',
    message: `The miner at uid ${seat.uid} opened no tab: status ${response.status}, ${String((error as { code?: unknown } | undefined)?.code)}`,
    values: { uid: seat.uid, status: response.status },
  });
}

async function endTab(seat: Seat, tab: string): Promise<void> {
  try {
    const response = await fetchOfPeer(seat)('/v1/inference/tabs', { method: 'DELETE', headers: { 'millrace-tab': tab } });
    await readAtMost(response.body, TAB_BYTES_MAX);
  } catch {
    // It ends by itself when nobody uses it.
  }
}

/** The most that a probe can cost, by the miner's own offer. */
function priceOf({ offer }: Seat, { body, path }: PlannedProbe): bigint {
  const size = BigInt(body.length);
  const prices = (offer?.models ?? [])
    .filter(({ task }) => PATH_OF_TASK[task] === path)
    .map((model) =>
      priceUp(model, { input: size + SLACK_UNITS, output: model.task === 'speech' ? size * SPOKEN_MS_MAX : model.outputUnitsMax }),
    );
  return prices.sort((one, other) => (one < other ? -1 : 1)).at(-1) ?? 0n;
}
