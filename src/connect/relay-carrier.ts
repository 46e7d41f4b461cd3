import http2 from 'node:http2';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { carryBytes, createRelayGate } from './relay-gate.ts';
import {
  acknowledgementFrom,
  type RelayNetwork,
  type RelayReceipt,
  type RelayTerms,
  readRelayJson,
  receiptDigest,
  relayAmountDown,
  toRelayJson,
} from './relay-messages.ts';

/** A node that may open a tunnel: what the chain says of it, and the session that the relay gave it. */
export interface RelayGuest {
  operatorId: bigint;
  nodeKey: string;
  /** Its label in host names. */
  label: string;
  session: `0x${string}`;
}

/** Takes payments for bytes carried. */
export interface RelayTill {
  /** The till of one session. */
  open(guest: Pick<RelayGuest, 'operatorId' | 'nodeKey' | 'session'>): RelaySessionTill;
}

/** Takes payments for one session; amounts are cumulative. */
export interface RelaySessionTill {
  /** How `amount` in all is to be paid, as text for the node's purse. */
  demand(amount: bigint): string;
  /**
   * Takes a payment, durably. Gives undefined when the session's payments are `amount` now, else the demand that puts right the node's
   * account of the channel. @throws the payments' codes, when it is no payment for this session
   */
  accept(paid: { amount: bigint; payment: string | undefined }): Promise<string | undefined>;
}

/** The relay's end of a tunnel. */
export interface RelayCarrier {
  guest: RelayGuest;
  streams(): number;
  bytesCarried(): bigint;
  unacknowledgedBytes(): number;
  /** The last receipt that the node signed. */
  receipt(): (RelayReceipt & { signature: string }) | undefined;
  /** Carries a connection to the node; closes it when a limit is reached. */
  carry(connection: Socket): void;
  /** Has what was carried acknowledged and paid now. */
  settle(): Promise<void>;
  close(reason: string): void;
  /** Resolves with the reason when the tunnel is over. */
  closed: Promise<string>;
}

/** What a carrier needs. */
export interface RelayCarrierOptions {
  network: RelayNetwork;
  terms: RelayTerms;
  recover: (digest: `0x${string}`, signature: `0x${string}`) => string;
  till?: RelayTill;
  /** Milliseconds between two heartbeats; a tunnel that misses one is over. */
  heartbeatMs: number;
  log: Logger;
}

/** The names of what a relay asks a node inside a tunnel. */
export const TUNNEL_PATHS = { ticket: '/ticket', account: '/account' } as const;
/** HTTP/2 settings of both ends: windows bound what waits in memory, per connection and per tunnel. */
export const TUNNEL_SETTINGS = { enablePush: false, initialWindowSize: 512 << 10, maxFrameSize: 64 << 10 } as const;
/** The window of a whole tunnel, bytes. */
export const TUNNEL_WINDOW_BYTES: number = 8 << 20;

const ASK_TIMEOUT_MS = 10_000;
const CONNECTION_IDLE_MS = 75_000;
/** A node that acknowledges nothing for so long, while connections wait for it, does not pay. */
const UNPAID_MS = 30_000;
const RETRY_MS = 100;
/** Where bytes have a price, what is below half a chunk is settled this often. */
const SETTLE_MS = 30_000;
/** A node may send a transaction before it pays: its channel's deposit. */
const PAY_TIMEOUT_MS = 90_000;
/** How often a node's account of its channel is put right before the tunnel is cut. */
const CORRECTIONS_MAX = 5;
const CORRECTION_MS = 600;
const TICKET = /^0x[0-9a-f]{64}$/;
/** One address may hold this part of a tunnel's connections. */
const STREAMS_PART_PER_ADDRESS = 0.5;

/**
 * Opens the relay's end on a TLS connection that a node made: HTTP/2 in which the relay is the client. `admit` exchanges the ticket that the
 * node shows for who it is. @throws relay-ticket-wrong, relay-tunnel-broken
 */
export async function openRelayCarrier(
  socket: TLSSocket,
  admit: (ticket: string) => RelayGuest | undefined,
  options: RelayCarrierOptions,
): Promise<RelayCarrier> {
  const session = http2.connect('https://node.relay.alt', {
    createConnection: () => socket,
    settings: TUNNEL_SETTINGS,
    maxSessionMemory: 64,
    maxSendHeaderBlockLength: 4096,
  });
  const over = Promise.withResolvers<string>();
  session.on('error', (error) => over.resolve(`broken: ${error.message}`));
  session.on('close', () => over.resolve('closed'));
  session.once('connect', () => session.setLocalWindowSize(TUNNEL_WINDOW_BYTES));
  try {
    const ticket = (await askNode(session, TUNNEL_PATHS.ticket, {})) as { ticket?: unknown };
    const guest = typeof ticket?.ticket === 'string' && TICKET.test(ticket.ticket) ? admit(ticket.ticket) : undefined;
    if (guest === undefined)
      throw new MillraceError('relay-ticket-wrong', { actor: 'peer', message: 'The ticket is unknown, used or old' });
    const carrier = carrierOn(session, guest, over, options);
    await carrier.account();
    return carrier;
  } catch (error) {
    session.destroy();
    socket.destroy();
    throw error;
  }
}

function carrierOn(
  session: http2.ClientHttp2Session,
  guest: RelayGuest,
  over: PromiseWithResolvers<string>,
  options: RelayCarrierOptions,
): RelayCarrier & { account(): Promise<void> } {
  const { network, terms, recover, heartbeatMs, log } = options;
  const perAddress = new Map<string, number>();
  let streams = 0;
  let receipt: (RelayReceipt & { signature: string }) | undefined;
  let accounting: Promise<void> | undefined;
  let paidAt = performance.now();
  const gate = createRelayGate({
    ...terms,
    onCarried: () => {
      if (gate.unacknowledged() >= terms.chunkBytes / 2) accountSoon();
    },
  });
  const close = (reason: string) => {
    over.resolve(reason);
    gate.close();
    session.destroy();
  };
  const till = terms.pricePerGib > 0n ? options.till?.open(guest) : undefined;
  /** One claim and its answer; a demand comes back when the payment was not taken and the node may try again. */
  const accountOnce = async (correction?: string): Promise<string | undefined> => {
    const claimed = gate.carried();
    const wanted = relayAmountDown(claimed, terms.pricePerGib);
    const demand = correction ?? (wanted > 0n ? till?.demand(wanted) : undefined);
    const body = toRelayJson({ bytesCarried: claimed, amount: wanted, demand });
    const timeoutMs = demand === undefined ? ASK_TIMEOUT_MS : PAY_TIMEOUT_MS;
    const answer = acknowledgementFrom(await askNode(session, TUNNEL_PATHS.account, { body, timeoutMs }));
    const said: RelayReceipt = {
      relayOperatorId: terms.operatorId,
      operatorId: guest.operatorId,
      session: guest.session,
      bytesCarried: answer.bytesCarried,
      amount: answer.amount,
    };
    const isOwn = recover(receiptDigest(network, said), answer.signature).toLowerCase() === guest.nodeKey.toLowerCase();
    const before = receipt?.bytesCarried ?? 0n;
    const owed = relayAmountDown(answer.bytesCarried, terms.pricePerGib);
    if (!isOwn || answer.bytesCarried < before || answer.bytesCarried > claimed || answer.amount !== owed) throw wrongReceipt(said);
    const refusal = owed > 0n ? await till?.accept({ amount: owed, payment: answer.payment }) : undefined;
    if (refusal !== undefined) return refusal;
    receipt = { ...said, signature: answer.signature };
    if (answer.bytesCarried > before) paidAt = performance.now();
    gate.acknowledge(answer.bytesCarried);
    return undefined;
  };
  const account = async () => {
    let correction = await accountOnce();
    for (let corrections = 1; correction !== undefined; corrections += 1) {
      if (corrections > CORRECTIONS_MAX || session.destroyed) throw unpaid(guest, gate.unacknowledged());
      await new Promise((resolve) => setTimeout(resolve, CORRECTION_MS));
      correction = await accountOnce(correction);
    }
  };
  const accountSoon = () => {
    if (accounting !== undefined || session.destroyed) return;
    if (!gate.isHeld()) paidAt = performance.now();
    const repeat = async () => {
      while (!session.destroyed) {
        await account();
        if (gate.unacknowledged() < terms.chunkBytes / 2) return;
        if (gate.isHeld() && performance.now() - paidAt > UNPAID_MS) throw unpaid(guest, gate.unacknowledged());
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    };
    accounting = repeat()
      .catch((error) => close(toMillraceError(error).code))
      .finally(() => {
        accounting = undefined;
      });
  };
  const beat = keepAlive(session, heartbeatMs, close);
  const settling = setInterval(() => {
    if (till !== undefined && gate.unacknowledged() > 0) accountSoon();
  }, SETTLE_MS).unref();
  void over.promise.then((reason) => {
    clearInterval(beat);
    clearInterval(settling);
    gate.close();
    log.info('tunnel-closed', { operatorId: guest.operatorId, reason, bytesCarried: gate.carried() });
  });
  return {
    guest,
    streams: () => streams,
    bytesCarried: gate.carried,
    unacknowledgedBytes: gate.unacknowledged,
    receipt: () => receipt,
    account,
    async settle() {
      await accounting;
      if (gate.unacknowledged() > 0) accountSoon();
      await accounting;
    },
    close,
    closed: over.promise,
    carry(connection) {
      const address = connection.remoteAddress ?? '';
      const held = perAddress.get(address) ?? 0;
      const isFull = streams >= terms.streamsMax || held >= Math.ceil(terms.streamsMax * STREAMS_PART_PER_ADDRESS);
      if (isFull || session.destroyed) return void connection.destroy();
      perAddress.set(address, held + 1);
      streams += 1;
      const stream = session.request({ ':method': 'CONNECT', ':authority': guest.label });
      connection.setTimeout(CONNECTION_IDLE_MS, () => connection.destroy());
      stream.on('response', (headers) => {
        if (headers[':status'] !== 200) connection.destroy();
      });
      const sent = carryBytes(connection, stream, gate);
      const received = carryBytes(stream, connection, gate);
      connection.once('close', () => {
        streams -= 1;
        const left = (perAddress.get(address) ?? 1) - 1;
        if (left === 0) perAddress.delete(address);
        else perAddress.set(address, left);
        if (!stream.destroyed) stream.close(http2.constants.NGHTTP2_CANCEL);
        log.debug('connection-carried', { operatorId: guest.operatorId, bytesToNode: sent(), bytesFromNode: received() });
      });
    },
  };
}

/** Sends a heartbeat at every interval; a side that leaves one unanswered until the next is gone. */
export function keepAlive(session: http2.Http2Session, heartbeatMs: number, close: (reason: string) => void): NodeJS.Timeout {
  let isWaiting = false;
  const timer = setInterval(() => {
    if (session.destroyed) return clearInterval(timer);
    if (isWaiting) return close('heartbeat-missed');
    isWaiting = true;
    session.ping((error) => {
      if (error === null) isWaiting = false;
    });
  }, heartbeatMs);
  timer.unref();
  return timer;
}

/** One short question to the node, with bounds on time and size. */
async function askNode(session: http2.ClientHttp2Session, path: string, ask: { body?: string; timeoutMs?: number }): Promise<unknown> {
  const { body, timeoutMs = ASK_TIMEOUT_MS } = ask;
  const stream = session.request({ ':method': body === undefined ? 'GET' : 'POST', ':path': path }, { endStream: body === undefined });
  stream.setTimeout(timeoutMs, () => stream.close(http2.constants.NGHTTP2_CANCEL));
  const late = setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), timeoutMs);
  try {
    if (body !== undefined) stream.end(body);
    return await readRelayJson(stream);
  } catch (cause) {
    if (cause instanceof MillraceError) throw cause;
    throw new MillraceError('relay-tunnel-broken', { actor: 'peer', message: 'The tunnel broke while the node was asked', cause });
  } finally {
    clearTimeout(late);
  }
}

function wrongReceipt({ bytesCarried, amount }: RelayReceipt): MillraceError {
  return new MillraceError('relay-receipt-wrong', {
    actor: 'peer',
    message: `The node’s receipt of ${bytesCarried} bytes for ${amount} is not signed by it, goes back, or is no fair count`,
    values: { bytesCarried, amount },
  });
}

function unpaid({ operatorId }: RelayGuest, unacknowledgedBytes: number): MillraceError {
  return new MillraceError('relay-unpaid', {
    actor: 'peer',
    message: `Operator ${operatorId} does not acknowledge ${unacknowledgedBytes} bytes that were carried for it`,
    values: { operatorId, unacknowledgedBytes },
  });
}
