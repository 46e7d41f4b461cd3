import { type Hex, isAddressEqual } from 'viem';
import { type ChainClient, type ReceiptCodec, recoverAddress } from '../../chain/index.ts';
import { contentDigest, createReplayGuard, verifyRequest } from '../../connect/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type ChannelConfig, createVoucherCodec, readChannel } from '../../token/index.ts';
import { createByteBudget, readBody } from '../serving/exchange.ts';
import { failureAnswer } from '../serving/failure.ts';
import { createInferenceReceipts, type InferenceReceipt } from '../serving/receipt.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';
import type { ShownRequest } from './judging-ports.ts';
import { receiptOfSample } from './replay.ts';
import { askedPath } from './seat-survey.ts';
import { CHANNEL_HEADER, readChannelHeader, readShown, SHOWN_LIMITS, SHOWN_SIGNED_HEADERS, type ShownMessage } from './shown-requests.ts';
import type { SubnetJudge } from './subnet-judge.ts';

/** What takes users' requests that gateways show. */
export interface ShownDesk {
  /** Answers one message. Never throws. */
  take(request: Request): Promise<Response>;
}

const TAKEN_BYTES_MAX = 64 << 20;
const KNOWN_MAX = 4096;
const MINUTE_MS = 60_000;
const MESSAGES_A_MINUTE = 30;
const BYTES_A_MINUTE = 32 << 20;
/** An answer is shown soon or not at all. */
const AGE_SECONDS_MAX = 3600n;
const SKEW_SECONDS = 300n;
const CHANNEL_LOOKS_A_MINUTE = 600;

/**
 * The door at which gateways show users' requests to a validator. Who may: the payer of a channel with money in it to a miner that is judged here,
 * by a signature of its own (RFC 9421), for what was paid from that channel. What is believed: requests whose bytes their miner's receipt covers,
 * whose caller allowed it, which were paid, within the hour, once. Everything else about a message is read only after its signature and channel
 * are good; bodies share a budget, each payer has so many messages and bytes a minute, nothing is written to disk.
 */
export function createShownDesk(options: {
  client: ChainClient;
  judges: () => Iterable<Pick<SubnetJudge, 'seatOf' | 'show'>>;
  /** Gets every receipt that was shown, also those that are not believed: they may convict. */
  onReceipt?: (encoded: string) => void;
  log: Logger;
}): ShownDesk {
  const { client, judges, log } = options;
  const guard = createReplayGuard();
  const budget = createByteBudget(TAKEN_BYTES_MAX);
  const channels = createChannelBook(client);
  const quota = createQuota();
  const codec = createInferenceReceipts(inferenceReceiptDomain(client));
  const seen = new Set<string>();

  async function take(request: Request): Promise<object> {
    const config = readChannelHeader(request.headers.get(CHANNEL_HEADER));
    const headers = Object.fromEntries(request.headers);
    const signed = verifyRequest(
      { method: request.method, url: request.url, headers },
      { recover: recoverAddress, guard },
      { required: SHOWN_SIGNED_HEADERS },
    );
    if (!isAddressEqual(signed.address, config.payer)) throw refused('not-the-payer', `${signed.address} does not pay this channel`);
    const seats = [...judges()].flatMap((judge) => {
      const seat = judge.seatOf(config.receiver);
      return seat === undefined ? [] : [{ judge, ...seat }];
    });
    if (seats.length === 0) throw notJudged(config);
    quota.take(config.payer, Number(request.headers.get('content-length') ?? SHOWN_LIMITS.messageBytes));
    const channelId = await channels.idOf(config);
    const body = (request.body ?? []) as unknown as AsyncIterable<Uint8Array>;
    const held = await readBody(
      { method: 'POST', path: '', query: '', headers, body, signal: request.signal },
      { bytesMax: SHOWN_LIMITS.messageBytes, budget },
    );
    try {
      if (contentDigest(held.bytes) !== request.headers.get('content-digest'))
        throw refused('wrong-digest', 'The body is not the signed one');
      const message = readShown(held.bytes);
      const judged = seats.filter(({ paths }) => paths.includes(askedPath(message.path)));
      if (judged.length === 0) throw notJudged(config);
      const { accepted, reasons } = sift(message, { channelId, config, operatorId: seats[0]?.operatorId as bigint });
      for (const { judge, uid } of judged) {
        judge.show(
          accepted.map((one): ShownRequest => ({ ...one, path: message.path, uid, payer: config.payer })),
          message.paid,
        );
      }
      const refusals = Object.entries(reasons)
        .map(([reason, count]) => `${count} ${reason}`)
        .join(', ');
      log.info('requests-shown', { payer: config.payer, uid: seats[0]?.uid, accepted: accepted.length, paid: message.paid, refusals });
      return { accepted: accepted.length, refused: reasons };
    } finally {
      held.release();
    }
  }

  function sift(message: ShownMessage, of: { channelId: Hex; config: ChannelConfig; operatorId: bigint }) {
    const accepted: ShownMessage['requests'] = [];
    const reasons: Record<string, number> = {};
    for (const one of message.requests) {
      options.onReceipt?.(one.receipt);
      const reason = faultOf({ ...one, path: message.path }, of, { codec, seen });
      if (reason === undefined) accepted.push(one);
      else reasons[reason] = (reasons[reason] ?? 0) + 1;
    }
    return { accepted, reasons };
  }

  return {
    async take(request) {
      try {
        return Response.json(await take(request));
      } catch (thrown) {
        const error = toMillraceError(thrown);
        log.info('shown-refused', { code: error.code, reason: error.message.slice(0, 200) });
        const { status, headers, body } = failureAnswer(error);
        return new Response(body as string, { status, headers });
      }
    },
  };
}

/** Why a shown request is not believed; notes it as seen when it is. */
function faultOf(
  sample: Omit<ShownRequest, 'uid' | 'payer'>,
  of: { channelId: Hex; config: ChannelConfig; operatorId: bigint },
  { codec, seen }: { codec: ReceiptCodec<InferenceReceipt>; seen: Set<string> },
): string | undefined {
  const receipt = receiptOfSample(sample, codec);
  if (typeof receipt === 'string') return receipt;
  const { subject, inputs, outputs } = receipt;
  if (subject.operatorId !== of.operatorId || !isAddressEqual(subject.miner, of.config.receiver)) return 'other-miner';
  if (inputs.channelId !== of.channelId || outputs.price === 0n) return 'not-paid';
  if (inputs.zeroRetention || !inputs.replayAllowed) return 'not-allowed';
  const age = BigInt(Math.floor(Date.now() / 1000)) - outputs.finishedAt;
  if (age > AGE_SECONDS_MAX || age < -SKEW_SECONDS) return 'not-recent';
  if (seen.has(inputs.receiptId)) return 'shown-before';
  seen.add(inputs.receiptId);
  if (seen.size > KNOWN_MAX) seen.delete(seen.values().next().value as string);
  return undefined;
}

/** Channels that there are on chain, with money in them. */
function createChannelBook(client: ChainClient): { idOf(config: ChannelConfig): Promise<Hex> } {
  const codec = createVoucherCodec(client.chainId, client.address('channels'));
  const funded = new Map<Hex, number>();
  let [looks, sinceMs] = [0, performance.now()];
  return {
    async idOf(config) {
      const channelId = codec.channelId(config);
      const now = performance.now();
      if (now - (funded.get(channelId) ?? Number.NEGATIVE_INFINITY) < MINUTE_MS) return channelId;
      if (now - sinceMs > MINUTE_MS) [looks, sinceMs] = [0, now];
      looks += 1;
      if (looks > CHANNEL_LOOKS_A_MINUTE) throw tooMany('channels of strangers');
      const { balance } = await readChannel(client, channelId);
      if (balance === 0n || !isAddressEqual(config.token, client.address('networkToken'))) {
        throw refused('channel-empty', `The channel ${channelId} has no money of this network`);
      }
      funded.delete(channelId);
      funded.set(channelId, now);
      if (funded.size > KNOWN_MAX) funded.delete(funded.keys().next().value as Hex);
      return channelId;
    },
  };
}

/** So many messages and bytes of one payer in a minute. */
function createQuota(): { take(payer: string, bytes: number): void } {
  const used = new Map<string, { sinceMs: number; messages: number; bytes: number }>();
  return {
    take(payer, bytes) {
      const now = performance.now();
      let own = used.get(payer.toLowerCase());
      if (own === undefined || now - own.sinceMs > MINUTE_MS) own = { sinceMs: now, messages: 0, bytes: 0 };
      own.messages += 1;
      own.bytes += Number.isFinite(bytes) ? Math.max(0, bytes) : SHOWN_LIMITS.messageBytes;
      used.delete(payer.toLowerCase());
      used.set(payer.toLowerCase(), own);
      if (used.size > KNOWN_MAX) used.delete(used.keys().next().value as string);
      if (own.messages > MESSAGES_A_MINUTE || own.bytes > BYTES_A_MINUTE) throw tooMany('messages of this payer');
    },
  };
}

function refused(code: string, message: string): MillraceError {
  return new MillraceError(code, {
    actor: 'caller',
    message,
    hint: 'Only who paid a miner from a channel shows the requests that it paid from it, to validators that judge that miner.',
  });
}

function notJudged({ receiver }: ChannelConfig): MillraceError {
  return refused('not-judged-here', `No miner that is paid at ${receiver} is judged here for such requests`);
}

function tooMany(what: string): MillraceError {
  return new MillraceError('payer-busy', {
    actor: 'caller',
    message: `Too many ${what} in a minute`,
    hint: 'Show fewer; which ones does not matter.',
  });
}
