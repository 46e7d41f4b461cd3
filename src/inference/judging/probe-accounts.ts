import { peerFetch } from '../../connect/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Payer } from '../../token/index.ts';
import { priceUp } from '../serving/price.ts';
import type { ProbeOutcome } from './judging-ports.ts';
import { sendProbe } from './probe-carrier.ts';
import type { PlannedProbe } from './probe-plan.ts';
import type { Seat } from './seat-survey.ts';

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

/** A tab holds so many requests of the price of the one that opens it, as gateways' tabs do. */
const TAB_REQUESTS = 16n;
const TAB_MS = 60_000;

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

/** The account of somebody who runs a gateway of their own, as `millrace ask` does: a channel with each miner, and a tab that a voucher pays. */
export function ownAccount(payer: Payer, options: { weight?: number; amountMax: bigint }): ProbeAccount {
  const tabs = new Map<bigint, Tab>();
  return {
    weight: options.weight ?? 1,
    async send(probe, seat, signal) {
      let tab: Tab | undefined;
      try {
        tab = await tabFor(seat, probe, { payer, tabs, amountMax: options.amountMax });
      } catch (error) {
        return { outcome: 'excused', code: toMillraceError(error).code };
      }
      const via = ((url: URL, init: RequestInit) =>
        peerFetch(seat, new URL(url).pathname, {
          method: init.method,
          headers: Object.fromEntries(new Headers(init.headers)),
          body: init.body as Uint8Array,
          signal: init.signal ?? undefined,
        })) as typeof fetch;
      const headers: Record<string, string> = tab === undefined ? {} : { 'millrace-tab': tab.token };
      const outcome = await sendProbe(probe, { url: seat.endpoint, headers, fetch: via }, signal);
      // Here nothing stands between: who does not answer is silent by itself.
      if (outcome.code === 'gateway-unreachable') return { ...outcome, outcome: 'failed', code: 'miner-unreachable' };
      if (outcome.outcome !== 'ok') tabs.delete(seat.operatorId);
      return outcome;
    },
    async close() {
      await payer.close();
    },
  };
}

interface Tab {
  token: string;
  left: bigint;
  openedMs: number;
}

async function tabFor(
  seat: Seat,
  probe: PlannedProbe,
  { payer, tabs, amountMax }: { payer: Payer; tabs: Map<bigint, Tab>; amountMax: bigint },
): Promise<Tab | undefined> {
  const dearest = priceOf(seat, probe);
  if (dearest === 0n) return undefined;
  const known = tabs.get(seat.operatorId);
  if (known !== undefined && known.left >= dearest && performance.now() - known.openedMs < TAB_MS) {
    known.left -= dearest;
    return known;
  }
  const wanted = dearest * TAB_REQUESTS;
  const amount = wanted > amountMax && dearest <= amountMax ? amountMax : wanted;
  const send = ((path: string, init?: RequestInit) =>
    peerFetch(seat, path, { method: init?.method, headers: Object.fromEntries(new Headers(init?.headers)), body: '' })) as typeof fetch;
  const response = await payer.fetch(`/v1/inference/tabs?amount=${amount}`, { amountMax: amount, init: { method: 'POST' }, fetch: send });
  const { tab: token } = (await response.json()) as { tab?: unknown };
  if (typeof token !== 'string') return undefined;
  const tab = { token, left: amount - dearest, openedMs: performance.now() };
  tabs.set(seat.operatorId, tab);
  return tab;
}

/** The most that a probe can cost, by the miner's own offer. */
function priceOf({ offer }: Seat, { body }: PlannedProbe): bigint {
  const prices = (offer?.models ?? []).map((model) =>
    priceUp(model, {
      input: BigInt(body.length + 1024),
      output: model.task === 'speech' ? BigInt(body.length) * 1000n : model.outputUnitsMax,
    }),
  );
  return prices.sort((one, other) => (one < other ? -1 : 1)).at(-1) ?? 0n;
}
