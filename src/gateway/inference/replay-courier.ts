import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { contentDigest, peerFetch, signRequest } from '../../connect/index.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { toMillraceError } from '../../errors.ts';
import { CHANNEL_HEADER, channelHeader, SHOWN_LIMITS, SHOWN_PATH, SHOWN_SIGNED_HEADERS, writeShown } from '../../inference/index.ts';
import type { Logger } from '../../log.ts';
import { readAtMost } from '../../read-at-most.ts';
import type { Payer } from '../../token/index.ts';
import type { PaidRequest, ReplaySample } from './inference-gateway.ts';
import { type ValidatorEntry, validatorsOf } from './network-validators.ts';

/** How users' requests come to validators. */
export interface ReplayCourierOptions {
  client: ChainClient;
  /** Pays the miners; its key signs what is shown. */
  payer: Pick<Payer, 'channels' | 'codec'>;
  signer: Signer;
  /** Counts that no validator has taken yet outlive the process here. */
  folder: string;
  /** Between two rounds, milliseconds; 0: only `flush` shows. Default 15,000. */
  everyMs?: number;
  log: Logger;
}

/** Takes what a gateway may show, and brings it to the validators that judge the miner. */
export interface ReplayCourier {
  onPaid(paid: PaidRequest): void;
  /** Keeps a request that its caller lets validators repeat; of many of one miner some are drawn, too long ones are left out. */
  onSample(sample: ReplaySample): void;
  /** Shows what waits, now. Never throws: what nobody takes is logged. @returns to how many validators, and how many requests they believed */
  flush(signal?: AbortSignal): Promise<{ validators: number; accepted: number }>;
  close(): Promise<void>;
}

const EVERY_MS = 15_000;
/** Counts alone are worth a message so often. */
const COUNTS_MS = 300_000;
/** Of one channel between two rounds. */
const SAMPLES_MAX = 16;
/** A message is base64 of this, and a little more. */
const SAMPLE_BYTES_MAX = 5 << 20;
/** Of all channels together. */
const HELD_BYTES_MAX = 64 << 20;
const CHANNELS_MAX = 64;
const VALIDATORS_MAX = 16;
const KNOWN_MS = 60_000;
const SEND_MS = 10_000;
const ANSWER_BYTES_MAX = 16 << 10;

interface Waiting {
  channelId: Hex;
  path: string;
  operatorId: bigint;
  paid: number;
  /** Allowed since the last round, of which `samples` were drawn. */
  offered: number;
  samples: ReplaySample[];
}

/**
 * Opens the way from a gateway to validators: every request that was paid is counted, a drawn part of those that callers let validators repeat is
 * shown, to the permit holders of the subnets in which the miner holds a uid and to nobody else, over TLS pinned to their keys. Requests wait in
 * memory only. Requests under zero retention never come here.
 */
export function openReplayCourier(options: ReplayCourierOptions): ReplayCourier {
  const courier = new Courier(options);
  return {
    onPaid: (paid) => courier.onPaid(paid),
    onSample: (sample) => courier.onSample(sample),
    flush: (signal) => courier.flush(signal),
    close: () => courier.close(),
  };
}

class Courier implements ReplayCourier {
  readonly #options: ReplayCourierOptions;
  readonly #path: string;
  /** By channel and path. */
  readonly #waiting = new Map<string, Waiting>();
  readonly #validators = new Map<string, { sinceMs: number; entries: ValidatorEntry[] }>();
  readonly #timer: NodeJS.Timeout | undefined;
  #round: Promise<unknown> = Promise.resolve();
  #countsMs = performance.now();

  constructor(options: ReplayCourierOptions) {
    this.#options = options;
    this.#path = join(options.folder, 'paid-requests.json');
    for (const { channelId, path, operatorId, paid } of readCounts(this.#path)) {
      this.#of({ channelId, path, operatorId: BigInt(operatorId) }).paid = paid;
    }
    const everyMs = options.everyMs ?? EVERY_MS;
    if (everyMs === 0) return;
    this.#timer = setInterval(() => {
      const hasSamples = [...this.#waiting.values()].some(({ samples }) => samples.length > 0);
      if (hasSamples || performance.now() - this.#countsMs > COUNTS_MS) void this.flush();
    }, everyMs);
    this.#timer.unref();
  }

  onPaid(request: PaidRequest): void {
    const waiting = this.#of(request);
    waiting.paid = Math.min(SHOWN_LIMITS.paid, waiting.paid + 1);
  }

  onSample(sample: ReplaySample): void {
    const size = sizeOf(sample);
    const waiting = this.#of(sample);
    if (size > SHOWN_LIMITS.requestBytes || this.#heldBytes() + size > HELD_BYTES_MAX) return;
    waiting.offered += 1;
    const held = bytesOf(waiting) + size;
    if (waiting.samples.length < SAMPLES_MAX && held <= SAMPLE_BYTES_MAX) {
      waiting.samples.push(sample);
      return;
    }
    // Each that was offered has the same chance to be among the kept.
    const at = randomInt(waiting.offered);
    const former = waiting.samples[at];
    if (former !== undefined && held - sizeOf(former) <= SAMPLE_BYTES_MAX) waiting.samples[at] = sample;
  }

  flush(signal?: AbortSignal): Promise<{ validators: number; accepted: number }> {
    const round = this.#round.then(() => this.#show(signal));
    this.#round = round;
    return round;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#round;
    const counts = [...this.#waiting.values()].flatMap(({ channelId, path, operatorId, paid }) =>
      paid === 0 ? [] : [{ channelId, path, operatorId: operatorId.toString(), paid }],
    );
    const known = readCounts(this.#path);
    if (counts.length > 0 || known.length > 0) writeFileDurably(this.#path, `${JSON.stringify(counts)}\n`);
  }

  #heldBytes(): number {
    return [...this.#waiting.values()].reduce((sum, waiting) => sum + bytesOf(waiting), 0);
  }

  #of({ channelId, path, operatorId }: PaidRequest): Waiting {
    const key = `${channelId}|${path}`;
    let waiting = this.#waiting.get(key);
    if (waiting === undefined) {
      waiting = { channelId, path, operatorId, paid: 0, offered: 0, samples: [] };
      this.#waiting.set(key, waiting);
      if (this.#waiting.size > CHANNELS_MAX) this.#waiting.delete(this.#waiting.keys().next().value as string);
    }
    return waiting;
  }

  async #show(signal: AbortSignal | undefined): Promise<{ validators: number; accepted: number }> {
    this.#countsMs = performance.now();
    const shown = { validators: new Set<bigint>(), accepted: 0 };
    for (const waiting of [...this.#waiting.values()]) {
      const { channelId, paid, samples } = waiting;
      if (paid === 0 && samples.length === 0) continue;
      Object.assign(waiting, { paid: 0, offered: 0, samples: [] });
      try {
        const taken = await this.#showChannel({ ...waiting, paid, samples }, signal);
        for (const { operatorId, accepted } of taken) {
          if (accepted > 0) shown.validators.add(operatorId);
          shown.accepted = Math.max(shown.accepted, accepted);
        }
        // Nobody took it: the count is told another time, the requests are not.
        if (taken.length === 0) waiting.paid += paid;
      } catch (error) {
        waiting.paid += paid;
        this.#options.log.warn('requests-not-shown', { channelId, reason: toMillraceError(error).message.slice(0, 200) });
      }
    }
    return { validators: shown.validators.size, accepted: shown.accepted };
  }

  async #showChannel({ channelId, path, operatorId, paid, samples }: Waiting, signal: AbortSignal | undefined) {
    const { payer, log } = this.#options;
    const channel = payer.channels().find(({ config }) => payer.codec.channelId(config) === channelId);
    if (channel === undefined) return [];
    const requests = samples.map(({ query, contentType, requestBody, answer, receipt }) => ({
      query,
      contentType,
      requestBody,
      answer,
      receipt,
    }));
    const body = writeShown({ path, paid, requests });
    const headers = {
      'content-type': 'application/json',
      'content-length': String(body.length),
      'content-digest': contentDigest(body),
      [CHANNEL_HEADER]: channelHeader(channel.config),
    };
    const sent = await Promise.allSettled(
      (await this.#judgesOf({ operatorId, path })).map(async (validator) => {
        const accepted = await this.#send(validator, { headers, body }, signal);
        return { operatorId: validator.operatorId, accepted };
      }),
    );
    return sent.flatMap((one) => {
      if (one.status === 'fulfilled') return [one.value];
      log.info('validator-took-nothing', { operatorId, reason: toMillraceError(one.reason).message.slice(0, 200) });
      return [];
    });
  }

  async #send(
    validator: ValidatorEntry,
    { headers, body }: { headers: Record<string, string>; body: Buffer },
    given: AbortSignal | undefined,
  ): Promise<number> {
    const url = new URL(SHOWN_PATH, validator.endpoint).href;
    const signature = await signRequest({ method: 'POST', url, headers }, this.#options.signer, { covered: SHOWN_SIGNED_HEADERS });
    const signal = AbortSignal.any([AbortSignal.timeout(SEND_MS), ...(given === undefined ? [] : [given])]);
    const response = await peerFetch(validator, SHOWN_PATH, { method: 'POST', headers: { ...headers, ...signature }, body, signal });
    const text = (await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8');
    if (!response.ok) throw new TypeError(`status ${response.status}: ${text.slice(0, 160)}`);
    const { accepted } = JSON.parse(text) as { accepted?: unknown };
    return typeof accepted === 'number' ? accepted : 0;
  }

  /** At most so many validators, drawn anew every minute. */
  async #judgesOf(asked: { operatorId: bigint; path: string }): Promise<ValidatorEntry[]> {
    const key = `${asked.operatorId}|${asked.path}`;
    const known = this.#validators.get(key);
    if (known !== undefined && performance.now() - known.sinceMs < KNOWN_MS) return known.entries;
    const all = await validatorsOf(this.#options.client, asked);
    const entries: ValidatorEntry[] = [];
    while (all.length > 0 && entries.length < VALIDATORS_MAX) entries.push(...all.splice(randomInt(all.length), 1));
    if (this.#validators.size > CHANNELS_MAX) this.#validators.clear();
    this.#validators.set(key, { sinceMs: performance.now(), entries });
    return entries;
  }
}

function bytesOf({ samples }: Waiting): number {
  return samples.reduce((sum, one) => sum + sizeOf(one), 0);
}

function sizeOf({ requestBody, answer }: ReplaySample): number {
  return requestBody.length + answer.length;
}

interface PaidCount {
  channelId: Hex;
  path: string;
  operatorId: string;
  paid: number;
}

/** Counts that wait from an earlier time; none where the file is not there or not ours. */
function readCounts(file: string): PaidCount[] {
  try {
    const counts = JSON.parse(readFileSync(file, 'utf8')) as PaidCount[];
    return counts.filter(
      ({ channelId, path, operatorId, paid }) =>
        /^0x[0-9a-f]{64}$/.test(channelId) && typeof path === 'string' && /^\d{1,20}$/.test(operatorId) && paid > 0,
    );
  } catch {
    return [];
  }
}
