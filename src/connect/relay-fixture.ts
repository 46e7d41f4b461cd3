import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from '../log.ts';
import { silentLogger } from '../log.ts';
import type { RequestSigner } from './http-signature.ts';
import { peerFetch } from './peer-fetch.ts';
import { type PeerDoor, type PeerServer, startPeerServer } from './peer-server.ts';
import { type Relay, type RelayOptions, startRelay } from './relay.ts';
import { announcementFrom, type RelayNetwork, type RelayTerms, readRelayJson } from './relay-messages.ts';
import { openTransportIdentity, type TransportIdentity } from './transport-identity.ts';
import { openTunnel, type RelayPeer, type Tunnel, type TunnelOptions } from './tunnel.ts';

/** Keys of test operators, by number, and how their signatures are checked; the chain's code gives them. */
export interface TestKeys {
  signer(operatorId: bigint): RequestSigner;
  recover: RelayOptions['recover'];
}

/** The network of the tests. */
export const TEST_NETWORK: RelayNetwork = { chainId: 31337, operators: '0x00000000000000000000000000000000000000aa' };

/** Free, and small enough that a test reaches every limit. */
export const TEST_TERMS: RelayTerms = {
  operatorId: 1n,
  pricePerGib: 0n,
  chunkBytes: 1 << 20,
  streamsMax: 32,
  bytesPerSecond: 1 << 30,
  tunnelsMax: 4,
};

/** Relays and nodes in one process, with real sockets and TLS; who is an operator is a table instead of the chain. */
export interface RelayWorld {
  startRelay(
    operatorId: bigint,
    terms?: Partial<RelayTerms>,
    changes?: Partial<RelayOptions> & { door?: (honest: PeerDoor) => PeerDoor },
  ): Promise<{ relay: Relay; server: PeerServer; peer: RelayPeer }>;
  /** A node that no port leads to: its server listens nowhere that the test uses. */
  startNode(operatorId: bigint, fetch: (request: Request) => Response | Promise<Response>): Promise<TestHome>;
  /** A new folder. */
  folder(name: string): string;
  stop(): Promise<void>;
}

/** A node at home. */
export interface TestHome {
  identity: TransportIdentity;
  server: PeerServer;
  open(relay: RelayPeer, changes?: Partial<TunnelOptions>): Promise<Tunnel>;
}

/** An empty world. */
export function relayWorld(keys: TestKeys, log: Logger = silentLogger): RelayWorld {
  const root = mkdtempSync(join(tmpdir(), 'millrace-relay-'));
  const operators = new Map<string, { operatorId: bigint; transportKey: string }>();
  const endings: (() => Promise<void>)[] = [];
  const enroll = async (operatorId: bigint) => {
    const identity = await openTransportIdentity(mkdtempSync(join(root, 'operator-')));
    operators.set(keys.signer(operatorId).address.toLowerCase(), { operatorId, transportKey: identity.transportKey });
    return identity;
  };
  return {
    async startRelay(operatorId, terms = {}, { door, ...changes } = {}) {
      const identity = await enroll(operatorId);
      const relay = startRelay({
        identity,
        network: TEST_NETWORK,
        terms: { ...TEST_TERMS, operatorId, ...terms },
        signer: keys.signer(operatorId),
        recover: keys.recover,
        operatorOf: async (nodeKey) => operators.get(nodeKey.toLowerCase()),
        log,
        ...changes,
      });
      const server = await startPeerServer({
        port: 0,
        identity,
        door: door?.(relay) ?? relay,
        fetch: async (request) => {
          try {
            return (await relay.fetch(request)) ?? new Response('the relay itself');
          } catch (error) {
            const { code, message } = error as { code?: string; message: string };
            return Response.json({ code, title: message }, { status: 400 });
          }
        },
      });
      endings.push(async () => {
        await relay.stop();
        await server.stop(0);
      });
      const address = { operatorId, endpoint: `https://127.0.0.1:${server.port}`, transportKey: identity.transportKey };
      const announced = await peerFetch(address, '/v1/relay');
      const peer = { ...address, announcement: announcementFrom(await readRelayJson(announced.body as ReadableStream<Uint8Array>)) };
      return { relay, server, peer };
    },
    async startNode(operatorId, fetch) {
      const identity = await enroll(operatorId);
      const server = await startPeerServer({ port: 0, identity, fetch });
      endings.unshift(() => server.stop(0));
      const open = (relay: RelayPeer, changes: Partial<TunnelOptions> = {}) =>
        openTunnel({
          relay,
          network: TEST_NETWORK,
          operatorId,
          signer: keys.signer(operatorId),
          transportKey: identity.transportKey,
          accept: server.accept,
          heartbeatMs: 1000,
          log,
          ...changes,
        });
      return { identity, server, open };
    },
    folder: (name) => mkdtempSync(join(root, `${name}-`)),
    async stop() {
      for (const end of endings) await end();
      rmSync(root, { recursive: true, force: true });
    },
  };
}
