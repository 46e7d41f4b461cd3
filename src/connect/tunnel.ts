import { createHash } from 'node:crypto';
import http2 from 'node:http2';
import { Duplex } from 'node:stream';
import tls from 'node:tls';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type RequestSigner, signRequest } from './http-signature.ts';
import { type PeerAddress, peerFetch } from './peer-fetch.ts';
import { keepAlive, TUNNEL_PATHS, TUNNEL_SETTINGS, TUNNEL_WINDOW_BYTES } from './relay-carrier.ts';
import {
  claimFrom,
  grantFrom,
  type RelayAnnouncement,
  type RelayNetwork,
  type RelayReceipt,
  readRelayJson,
  receiptDigest,
  relayAmountDown,
  relayHeader,
  toRelayJson,
} from './relay-messages.ts';
import { relayedEndpoint, TUNNEL_NAME } from './relay-name.ts';

/** Pays relays for bytes carried. */
export interface RelayPurse {
  /** The purse of one session. */
  open(session: { relayOperatorId: bigint; session: string }): RelaySessionPurse;
}

/** Pays for one session. */
export interface RelaySessionPurse {
  /**
   * A payment (text) that makes the session's payments `amount` in all, to the terms of the relay's `demand`; undefined when they are that
   * already. A demand may say that the payment before was not taken.
   */
  pay(owed: { amount: bigint; demand: string }): Promise<string | undefined>;
}

/** A relay as the chain knows it, and what it announced. */
export interface RelayPeer extends PeerAddress {
  operatorId: bigint;
  announcement: RelayAnnouncement;
}

/** What a tunnel needs of the node that opens it. */
export interface TunnelOptions {
  relay: RelayPeer;
  network: RelayNetwork;
  operatorId: bigint;
  /** The node key. */
  signer: RequestSigner;
  /** The node's own TLS key, which names it at the relay. */
  transportKey: string;
  /** Serves a connection that came through the tunnel. */
  accept(connection: Duplex): void;
  /** Pays; needed for relays that are not free. */
  purse?: RelayPurse;
  heartbeatMs: number;
  log: Logger;
}

/** The node's end of a tunnel. */
export interface Tunnel {
  relay: RelayPeer;
  /** Where the node is reached through this tunnel. */
  endpoint: string;
  /** Bytes in both directions, as this side counted them. */
  bytesCarried(): bigint;
  streams(): number;
  close(reason: string): void;
  /** Resolves with the reason when the tunnel is over. */
  closed: Promise<string>;
}

const OPEN_TIMEOUT_MS = 15_000;
const STREAM_IDLE_MS = 75_000;
/** What a connection wrote last gets so long to leave after it closed. */
const LINGER_MS = 10_000;
/** Connections that a relay may send at once, whatever it announces. */
const STREAMS_MAX = 512;
/** Room for the relay's own questions beside the connections. */
const QUESTIONS_MAX = 8;

/**
 * Opens a tunnel at a relay: asks for a ticket by a request signed with the node key, makes a TLS connection to the relay's key on chain,
 * and serves what the relay sends through it (HTTP/2 with the node as server). Resolves when the relay has accepted the tunnel.
 * @throws peer-unreachable, peer-timeout, peer-key-mismatch, relay-refused, relay-answer-bad, relay-tunnel-broken
 */
export async function openTunnel(options: TunnelOptions): Promise<Tunnel> {
  const { relay } = options;
  const endpoint = relayedEndpoint(relay.endpoint, options.transportKey);
  const { ticket, session } = await askTicket(options);
  const socket = await connectPinned(relay);
  const maxConcurrentStreams = Math.min(relay.announcement.streamsMax, STREAMS_MAX) + QUESTIONS_MAX;
  const connection = http2.performServerHandshake(socket, { settings: { ...TUNNEL_SETTINGS, maxConcurrentStreams }, maxSessionMemory: 64 });
  connection.setLocalWindowSize(TUNNEL_WINDOW_BYTES);
  return serveTunnel(connection, { ...options, endpoint, ticket, session });
}

/** Sends a request to a relay, signed for it and for one purpose, and gives the JSON that it answers. @throws relay-refused, relay-answer-bad and the errors of peerFetch */
export async function askRelay(
  { relay, network, signer }: Pick<TunnelOptions, 'network' | 'signer'> & { relay: PeerAddress & { operatorId: bigint } },
  purpose: 'tunnel' | 'probe',
  further: Record<string, string> = {},
): Promise<unknown> {
  const path = `/v1/relay/${purpose}s`;
  const headers = { 'millrace-relay': relayHeader(network, relay.operatorId, purpose), 'content-length': '0', ...further };
  const covered = ['millrace-relay', ...Object.keys(further)];
  const signature = await signRequest({ method: 'POST', url: new URL(path, relay.endpoint).href, headers }, signer, { covered });
  const limits = { headersTimeoutMs: OPEN_TIMEOUT_MS, idleTimeoutMs: OPEN_TIMEOUT_MS };
  const response = await peerFetch(relay, path, { method: 'POST', headers: { ...headers, ...signature }, ...limits });
  const answer = await readRelayJson(response.body as ReadableStream<Uint8Array> | null);
  if (response.ok) return answer;
  const { code, title } = answer as { code?: unknown; title?: unknown };
  throw new MillraceError('relay-refused', {
    actor: 'peer',
    message: `Relay ${relay.operatorId} refused: ${String(title).slice(0, 200)}`,
    values: { relay: relay.operatorId, reason: String(code).slice(0, 60) },
    hint: 'Another relay may take this node.',
  });
}

async function askTicket(options: TunnelOptions): Promise<{ ticket: string; session: `0x${string}` }> {
  return grantFrom(await askRelay(options, 'tunnel'));
}

/** A TLS connection to the relay's tunnel door, of which the key is the one on chain. */
function connectPinned(relay: RelayPeer): Promise<tls.TLSSocket> {
  const { hostname, port } = new URL(relay.endpoint);
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      host: hostname.replace(/^\[|\]$/g, ''),
      port: port === '' ? 443 : Number(port),
      servername: TUNNEL_NAME,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.3',
      ALPNProtocols: [],
    });
    const fail = (error: Error) => {
      socket.destroy();
      reject(
        error instanceof MillraceError
          ? error
          : new MillraceError('peer-unreachable', {
              actor: 'peer',
              message: `${relay.endpoint} does not let a tunnel be opened: ${error.message}`,
              values: { endpoint: relay.endpoint },
              cause: error,
            }),
      );
    };
    const late = setTimeout(() => fail(new RangeError(`no TLS within ${OPEN_TIMEOUT_MS} ms`)), OPEN_TIMEOUT_MS);
    socket.once('error', fail);
    socket.once('close', () => clearTimeout(late));
    socket.once('secureConnect', () => {
      clearTimeout(late);
      const spki = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' });
      const shown = spki === undefined ? 'none' : `0x${createHash('sha256').update(spki).digest('hex')}`;
      if (shown === relay.transportKey.toLowerCase()) {
        socket.off('error', fail);
        return resolve(socket);
      }
      fail(
        new MillraceError('peer-key-mismatch', {
          actor: 'peer',
          message: `${relay.endpoint} showed TLS key ${shown}, the chain says ${relay.transportKey}`,
          values: { endpoint: relay.endpoint, got: shown, expected: relay.transportKey },
        }),
      );
    });
  });
}

interface ServedTunnel extends TunnelOptions {
  endpoint: string;
  ticket: string;
  session: `0x${string}`;
}

function serveTunnel(connection: http2.ServerHttp2Session, options: ServedTunnel): Promise<Tunnel> {
  const { relay, log } = options;
  const accepted = Promise.withResolvers<void>();
  const over = Promise.withResolvers<string>();
  const counter = { bytes: 0, streams: 0 };
  const purse = options.purse?.open({ relayOperatorId: relay.operatorId, session: options.session });
  const close = (reason: string) => {
    over.resolve(reason);
    connection.destroy();
  };
  connection.on('error', (error) => over.resolve(`broken: ${error.message}`));
  connection.on('close', () => over.resolve('closed by the relay'));
  connection.on('stream', (stream, headers) => {
    stream.on('error', () => stream.destroy());
    stream.setTimeout(STREAM_IDLE_MS, () => stream.close(http2.constants.NGHTTP2_CANCEL));
    const method = headers[':method'];
    const path = headers[':path'];
    if (method === 'CONNECT') return serveConnection(stream, counter, options);
    if (method === 'GET' && path === TUNNEL_PATHS.ticket) return answer(stream, { ticket: options.ticket });
    if (method !== 'POST' || path !== TUNNEL_PATHS.account) return void stream.respond({ ':status': 404 }, { endStream: true });
    acknowledge(stream, counter, { ...options, purse }).then(accepted.resolve, (error) => close(toMillraceError(error).code));
  });
  const beat = keepAlive(connection, options.heartbeatMs, close);
  const late = setTimeout(() => close('not accepted in time'), OPEN_TIMEOUT_MS);
  void over.promise.then((reason) => {
    clearInterval(beat);
    clearTimeout(late);
    log.info('relay-tunnel-closed', { relay: relay.operatorId, reason, bytesCarried: counter.bytes });
    accepted.reject(
      new MillraceError('relay-tunnel-broken', {
        actor: 'peer',
        message: `Relay ${relay.operatorId} did not accept the tunnel: ${reason}`,
        values: { relay: relay.operatorId, reason },
      }),
    );
  });
  return accepted.promise.then(() => {
    clearTimeout(late);
    return {
      relay,
      endpoint: options.endpoint,
      bytesCarried: () => BigInt(counter.bytes),
      streams: () => counter.streams,
      close,
      closed: over.promise,
    };
  });
}

function serveConnection(stream: http2.ServerHttp2Stream, counter: { bytes: number; streams: number }, options: ServedTunnel): void {
  stream.respond({ ':status': 200 });
  const counted = new CountedStream(stream, counter);
  counter.streams += 1;
  stream.once('close', () => {
    counter.streams -= 1;
    options.log.debug('relayed-connection-closed', { relay: options.relay.operatorId, bytes: counted.bytes });
  });
  options.accept(counted);
}

/** Answers a relay's claim with a receipt of what this side counted, never of more; a claim beyond what can be on its way is a lie. */
async function acknowledge(
  stream: http2.ServerHttp2Stream,
  counter: { bytes: number },
  options: Omit<ServedTunnel, 'purse'> & { purse: RelaySessionPurse | undefined },
): Promise<void> {
  const { relay, network, operatorId, session, signer, purse } = options;
  const { chunkBytes, pricePerGib } = relay.announcement;
  const { bytesCarried: claimed, amount: wanted, demand } = claimFrom(await readRelayJson(stream));
  const counted = BigInt(counter.bytes);
  if (claimed > counted + BigInt(chunkBytes) || wanted > relayAmountDown(claimed, pricePerGib)) {
    throw new MillraceError('relay-overcharges', {
      actor: 'peer',
      message: `Relay ${relay.operatorId} claims ${claimed} bytes and ${wanted} for them, ${counted} were seen here at ${pricePerGib} a GiB`,
      values: { relay: relay.operatorId, claimed, wanted, counted, chunkBytes, pricePerGib },
    });
  }
  const bytesCarried = claimed < counted ? claimed : counted;
  const amount = relayAmountDown(bytesCarried, pricePerGib);
  const receipt: RelayReceipt = { relayOperatorId: relay.operatorId, operatorId, session, bytesCarried, amount };
  const signature = await signer.signDigest(receiptDigest(network, receipt));
  const payment = amount === 0n || demand === undefined ? undefined : await purse?.pay({ amount, demand });
  answer(stream, { bytesCarried, amount, signature, payment });
}

function answer(stream: http2.ServerHttp2Stream, body: object): void {
  if (stream.destroyed) return;
  stream.respond({ ':status': 200, 'content-type': 'application/json' });
  stream.end(toRelayJson(body));
}

/** A stream of a tunnel that counts its bytes in both directions. */
class CountedStream extends Duplex {
  bytes = 0;
  readonly #stream: http2.ServerHttp2Stream;
  readonly #counter: { bytes: number };

  constructor(stream: http2.ServerHttp2Stream, counter: { bytes: number }) {
    super({ allowHalfOpen: true });
    this.#stream = stream;
    this.#counter = counter;
    stream.on('data', (chunk: Buffer) => {
      this.#count(chunk.length);
      if (!this.destroyed && !this.push(chunk)) stream.pause();
    });
    stream.on('end', () => this.push(null));
    stream.on('error', (error) => this.destroy(error));
    stream.on('close', () => this.destroy());
  }

  override _read(): void {
    this.#stream.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#count(chunk.length);
    this.#stream.write(chunk, callback);
  }

  /** Several TLS records in one frame: fewer frames, and fewer records of the tunnel's own TLS. */
  override _writev(parts: { chunk: Buffer }[], callback: (error?: Error | null) => void): void {
    const whole = Buffer.concat(parts.map(({ chunk }) => chunk));
    this.#count(whole.length);
    this.#stream.write(whole, callback);
  }

  override _final(callback: () => void): void {
    this.#stream.end(() => callback());
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    const stream = this.#stream;
    const cancel = () => stream.close(http2.constants.NGHTTP2_CANCEL);
    if (error === null && this.writableFinished && !stream.destroyed) {
      // What was written may still wait for the relay's window: a cancelled stream would lose it.
      const late = setTimeout(cancel, LINGER_MS).unref();
      stream.once('close', () => clearTimeout(late));
      stream.resume();
    } else if (!stream.destroyed) cancel();
    callback(error);
  }

  #count(bytes: number): void {
    this.bytes += bytes;
    this.#counter.bytes += bytes;
  }
}
