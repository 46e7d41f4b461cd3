import { type Clock, systemClock } from '../../clock.ts';
import { RECEIPT_HEADER } from '../serving/receipt.ts';
import type { ProbeOutcome } from './judging-ports.ts';
import type { PlannedProbe } from './probe-plan.ts';

/** Where a probe goes, and what goes with it besides its own headers: the key of an account, the wish for one miner. */
export interface ProbeRoute {
  /** Of a gateway, or of a miner itself. */
  url: string;
  headers: Readonly<Record<string, string>>;
  fetch?: typeof fetch;
  clock?: Clock;
}

const ANSWER_BYTES_MAX = 32 << 20;
const RECEIPT_IN_STREAM = /\n: millrace-receipt (\S+)/;
/** Errors of a gateway that say something of the miner; what else goes wrong is nobody's fault that a validator could name. */
const MINER_FAULTS: ReadonlySet<string> = new Set(['no-miner', 'miner-failed', 'miner-busy', 'serving-busy', 'engine-busy']);

/**
 * Sends a probe as any client would, and measures what a client sees. `failed` is the miner's fault: no answer, a broken one, none in time.
 * `excused` is everything that it may have no part in: the gateway does not answer, the account has no money, the request was refused. Never throws.
 */
export async function sendProbe(probe: PlannedProbe, route: ProbeRoute, signal: AbortSignal): Promise<ProbeOutcome> {
  const clock = route.clock ?? systemClock;
  const send = route.fetch ?? fetch;
  const startedMs = clock.nowMs();
  let response: Response;
  try {
    const headers = { 'content-type': probe.contentType, ...probe.headers, ...route.headers };
    const body = probe.body as Uint8Array<ArrayBuffer>;
    response = await send(new URL(probe.path, route.url), { method: 'POST', headers, body, signal, redirect: 'error' });
  } catch {
    return signal.aborted ? { outcome: 'failed', code: 'probe-timeout' } : { outcome: 'excused', code: 'gateway-unreachable' };
  }
  try {
    const { bytes, firstMs, lastMs } = await readTimed(response, clock);
    if (response.status !== 200) return refusal(response.status, bytes);
    const answerType = response.headers.get('content-type') ?? 'application/octet-stream';
    const isStream = answerType.startsWith('text/event-stream');
    const receipt = isStream ? RECEIPT_IN_STREAM.exec(bytes.toString('latin1'))?.[1] : response.headers.get(RECEIPT_HEADER);
    const { path, contentType, body: requestBody } = probe;
    const answered = { path, contentType, requestBody, answerType, answer: bytes, receipt: receipt ?? '' };
    const frames = isStream ? bytes.toString('latin1').split('\n\n').length - 1 : 0;
    return {
      outcome: 'ok',
      ttftMs: Math.round((firstMs ?? lastMs) - startedMs),
      ...(frames > 1 && firstMs !== undefined ? { tpotUs: Math.round(((lastMs - firstMs) * 1000) / (frames - 1)) } : {}),
      answered,
    };
  } catch {
    return { outcome: 'failed', code: signal.aborted ? 'probe-timeout' : 'answer-broken' };
  }
}

async function readTimed(response: Response, clock: Clock): Promise<{ bytes: Buffer; firstMs: number | undefined; lastMs: number }> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  let firstMs: number | undefined;
  for await (const chunk of response.body ?? []) {
    firstMs ??= clock.nowMs();
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) throw new RangeError('too long an answer');
    chunks.push(chunk);
  }
  return { bytes: Buffer.concat(chunks, size), firstMs, lastMs: clock.nowMs() };
}

function refusal(status: number, bytes: Buffer): ProbeOutcome {
  let code = `status-${status}`;
  try {
    const { error } = JSON.parse(bytes.toString('utf8')) as { error?: { code?: unknown } };
    if (typeof error?.code === 'string') code = error.code.slice(0, 64);
  } catch {
    // The status says enough.
  }
  return { outcome: MINER_FAULTS.has(code) ? 'failed' : 'excused', code };
}
