import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import tls from 'node:tls';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { createReplayGuard, type RequestSigner, verifyRequest } from './http-signature.ts';
import { peerFetch } from './peer-fetch.ts';
import type { PeerDoor } from './peer-server.ts';
import { openRelayCarrier, type RelayCarrier, type RelayGuest, type RelayTill } from './relay-carrier.ts';
import {
  announcementDigest,
  type RelayAnnouncement,
  type RelayNetwork,
  type RelayReceipt,
  type RelayTerms,
  relayHeader,
  toRelayJson,
} from './relay-messages.ts';
import { relayLabel, relayLabelIn, TUNNEL_NAME } from './relay-name.ts';
import type { TransportIdentity } from './transport-identity.ts';

/** What the chain knows of the operator behind a node key. */
export interface RelayOperator {
  operatorId: bigint;
  transportKey: string;
}

/** What a relay needs. */
export interface RelayOptions {
  identity: TransportIdentity;
  network: RelayNetwork;
  terms: RelayTerms;
  signer: RequestSigner;
  /** The address that signed a digest. */
  recover: (digest: `0x${string}`, signature: `0x${string}`) => string;
  /** The operator whose node key this is now, as the chain says; undefined when there is none. */
  operatorOf(nodeKey: string): Promise<RelayOperator | undefined>;
  /** Takes payments; needed when the terms have a price. */
  till?: RelayTill;
  /** Is given each tunnel's last receipt, to keep it. */
  onReceipt?: (receipt: RelayReceipt & { signature: string }) => void;
  heartbeatMs?: number;
  log: Logger;
}

/** A relay at work. */
export interface Relay extends PeerDoor {
  /** Answers under `/v1/relay`; undefined for other paths. */
  fetch(request: Request): Promise<Response> | undefined;
  tunnels(): readonly RelayCarrier[];
  /** Bytes carried since the start, of all tunnels. */
  bytesCarried(): bigint;
  /** Whether new tunnels are taken. */
  setOpen(isOpen: boolean): void;
  /** Has what was carried acknowledged and paid, as far as nodes answer within 5 s. */
  settle(): Promise<void>;
  stop(): Promise<void>;
}

const HEARTBEAT_MS = 5000;
const TICKET_LIFETIME_MS = 30_000;
const TICKETS_MAX = 1000;
/** TLS connections that are not yet tunnels, at once. */
const OPENING_MAX = 64;
const OPENING_TIMEOUT_MS = 15_000;
const ANNOUNCEMENT_SECONDS = 120;
const PROBE_TIMEOUT_MS = 5000;
const PROBE_INTERVAL_MS = 2000;
const PROBERS_MAX = 10_000;
const SETTLE_TIMEOUT_MS = 5000;
/** TLS alert `unrecognized_name` (RFC 6066, 3): fatal, in a record of its own. */
const UNRECOGNIZED_NAME = Buffer.from('15030300020270', 'hex');

/**
 * A relay: nodes open tunnels to it, and it carries TLS connections that ask for a node by name through the node's tunnel, byte by byte.
 * It holds no key of any node, so it can neither read nor change what it carries; whoever connects checks the node's key by the chain.
 */
export function startRelay(options: RelayOptions): Relay {
  const { identity, network, terms, log } = options;
  const carriers = new Map<string, RelayCarrier>();
  const tickets = new Map<string, { guest: RelayGuest; expiresAt: number }>();
  const guard = createReplayGuard();
  const startedAtSeconds = Math.floor(Date.now() / 1000);
  const probes = new Map<string, number>();
  const opening = new Set<string>();
  let isOpen = true;
  let bytesBefore = 0n;

  const admit = (ticket: string) => {
    const found = tickets.get(ticket);
    tickets.delete(ticket);
    return found !== undefined && found.expiresAt > performance.now() ? found.guest : undefined;
  };
  const keep = (carrier: RelayCarrier) => {
    const { label } = carrier.guest;
    carriers.get(label)?.close('replaced');
    carriers.set(label, carrier);
    log.info('tunnel-opened', { operatorId: carrier.guest.operatorId, tunnels: carriers.size });
    void carrier.closed.then(() => {
      bytesBefore += carrier.bytesCarried();
      const receipt = carrier.receipt();
      if (receipt !== undefined) options.onReceipt?.(receipt);
      if (carriers.get(label) === carrier) carriers.delete(label);
    });
  };
  const doorServer = tls.createServer(
    { key: identity.keyPem, cert: identity.certificatePem, minVersion: 'TLSv1.3', handshakeTimeout: OPENING_TIMEOUT_MS },
    (socket) => {
      const peer = addressOf(socket);
      socket.setTimeout(0);
      openRelayCarrier(socket, admit, { ...options, heartbeatMs: options.heartbeatMs ?? HEARTBEAT_MS })
        .then(keep)
        .catch((error) => log.info('tunnel-refused', { code: toMillraceError(error).code, message: toMillraceError(error).message }))
        .finally(() => opening.delete(peer));
    },
  );
  doorServer.on('tlsClientError', (_error, socket) => socket.destroy());

  const openTunnel = (connection: Socket) => {
    if (opening.size >= OPENING_MAX) return void connection.destroy();
    const peer = addressOf(connection);
    opening.add(peer);
    connection.setTimeout(0);
    const late = setTimeout(() => opening.delete(peer), OPENING_TIMEOUT_MS).unref();
    connection.once('close', () => {
      clearTimeout(late);
      opening.delete(peer);
    });
    doorServer.emit('connection', connection);
  };
  /** Who signed a request for this purpose: an operator on chain. A signature older than this process may be a replay, and is refused. */
  const callerOf = async (request: Request, purpose: 'tunnel' | 'probe'): Promise<RelayOperator & { nodeKey: string }> => {
    const headers = Object.fromEntries(request.headers);
    const ports = { recover: options.recover, guard };
    const signed = verifyRequest({ method: request.method, url: request.url, headers }, ports, {
      required: purpose === 'probe' ? ['millrace-relay', 'millrace-endpoint'] : ['millrace-relay'],
    });
    const expected = relayHeader(network, terms.operatorId, purpose);
    if (headers['millrace-relay'] !== expected || signed.createdAt < startedAtSeconds) {
      throw refused(
        'relay-request-foreign',
        `Got a request signed for "${headers['millrace-relay']}" at ${signed.createdAt}, expected "${expected}" from ${startedAtSeconds} on`,
      );
    }
    const operator = await options.operatorOf(signed.address);
    if (operator === undefined) throw refused('relay-unknown-operator', `The node key ${signed.address} belongs to no operator`);
    return { ...operator, nodeKey: signed.address };
  };
  const grant = async (request: Request): Promise<Response> => {
    const caller = await callerOf(request, 'tunnel');
    const label = relayLabel(caller.transportKey);
    const now = performance.now();
    for (const [ticket, { expiresAt }] of tickets) if (expiresAt < now) tickets.delete(ticket);
    const isFull = carriers.size >= terms.tunnelsMax && !carriers.has(label);
    if (!isOpen || isFull || tickets.size >= TICKETS_MAX)
      throw refused('relay-full', `This relay carries ${carriers.size} tunnels and takes no more`);
    const ticket = randomWord();
    const session = randomWord();
    tickets.set(ticket, {
      guest: { operatorId: caller.operatorId, nodeKey: caller.nodeKey, label, session },
      expiresAt: now + TICKET_LIFETIME_MS,
    });
    return json({ ticket, session }, 201);
  };
  /** Tells an operator whether its node is reached from here at an endpoint that it names: no more than yes or no, at its own key only. */
  const probe = async (request: Request): Promise<Response> => {
    const { operatorId, transportKey } = await callerOf(request, 'probe');
    const now = performance.now();
    const last = probes.get(String(operatorId)) ?? Number.NEGATIVE_INFINITY;
    if (probes.size >= PROBERS_MAX) probes.clear();
    if (now - last < PROBE_INTERVAL_MS) throw refused('relay-too-often', `A probe is made every ${PROBE_INTERVAL_MS} ms at most`);
    probes.set(String(operatorId), now);
    const endpoint = request.headers.get('millrace-endpoint') ?? '';
    const isReached = await peerFetch({ endpoint, transportKey }, '/healthz', {
      headersTimeoutMs: PROBE_TIMEOUT_MS,
      idleTimeoutMs: PROBE_TIMEOUT_MS,
    })
      .then(async (response) => {
        await response.body?.cancel();
        return true;
      })
      .catch(() => false);
    return json({ isReached });
  };
  const settle = async () => {
    const settled = Promise.allSettled([...carriers.values()].map((carrier) => carrier.settle()));
    await Promise.race([settled, new Promise((resolve) => setTimeout(resolve, SETTLE_TIMEOUT_MS).unref())]);
  };
  const announce = async (): Promise<Response> => {
    const tunnelsFree = isOpen ? Math.max(0, terms.tunnelsMax - carriers.size) : 0;
    const plain = { ...terms, tunnelsFree, expiry: Math.floor(Date.now() / 1000) + ANNOUNCEMENT_SECONDS };
    const announcement: RelayAnnouncement = { ...plain, signature: await options.signer.signDigest(announcementDigest(network, plain)) };
    return json(announcement);
  };
  return {
    take(name, connection) {
      if (name === TUNNEL_NAME) {
        openTunnel(connection);
        return true;
      }
      const label = relayLabelIn(name);
      if (label === undefined || label === relayLabel(identity.transportKey)) return false;
      const carrier = carriers.get(label);
      if (carrier === undefined) connection.end(UNRECOGNIZED_NAME, () => connection.destroy());
      else carrier.carry(connection);
      return true;
    },
    fetch(request) {
      const { pathname } = new URL(request.url);
      if (pathname === '/v1/relay' && request.method === 'GET') return announce();
      if (pathname === '/v1/relay/tunnels' && request.method === 'POST') return grant(request);
      if (pathname === '/v1/relay/probes' && request.method === 'POST') return probe(request);
      return undefined;
    },
    tunnels: () => [...carriers.values()],
    bytesCarried: () => [...carriers.values()].reduce((sum, carrier) => sum + carrier.bytesCarried(), bytesBefore),
    setOpen(open) {
      isOpen = open;
    },
    settle,
    async stop() {
      isOpen = false;
      await settle();
      const all = [...carriers.values()];
      for (const carrier of all) carrier.close('relay-stopped');
      await Promise.all(all.map((carrier) => carrier.closed));
    },
  };
}

function json(value: object, status = 200): Response {
  return new Response(toRelayJson(value), { status, headers: { 'content-type': 'application/json', 'cache-control': 'no-store' } });
}

function addressOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function randomWord(): `0x${string}` {
  return `0x${randomBytes(32).toString('hex')}`;
}

function refused(code: string, message: string): MillraceError {
  return new MillraceError(code, { actor: 'caller', message, hint: 'Ask another relay, or this one later.' });
}
