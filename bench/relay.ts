/** What a relay costs: bytes per CPU-second of relay, node and client, directly and through it; memory of a tunnel and of a connection. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSigner, recoverAddress } from '../src/chain/index.ts';
import { openTransportIdentity, peerFetch, startPeerServer, startRelay } from '../src/connect/index.ts';
import { announcementFrom, type RelayNetwork, readRelayJson } from '../src/connect/relay-messages.ts';
import { openTunnel, type RelayPeer, type Tunnel } from '../src/connect/tunnel.ts';
import { silentLogger } from '../src/log.ts';

const MIB = 1 << 20;
const SIZE_MIB = 512;
const TUNNELS = 100;
const CONNECTIONS = 100;
const NETWORK: RelayNetwork = { chainId: 1, operators: '0x00000000000000000000000000000000000000aa' };
const signerOf = (operatorId: number) => createSigner(`0x${operatorId.toString(16).padStart(64, '0')}`);

interface Usage {
  cpuSeconds: number;
  rssBytes: number;
}
type Message = { usage?: true; relay?: RelayPeer; count?: number };

const [role, folder] = process.argv.slice(2);
if (role === undefined) await measureAll();
else await (role === 'relay' ? runRelay(folder as string) : runNode(folder as string));

function answerUsage(): void {
  process.on('message', (message: Message) => {
    if (message.usage !== true) return;
    global.gc?.();
    const { user, system } = process.cpuUsage();
    process.send?.({ cpuSeconds: (user + system) / 1e6, rssBytes: process.memoryUsage().rss } satisfies Usage);
  });
}

/** The relay as a process: every signer is an operator, whose TLS key it says when it starts. */
async function runRelay(own: string): Promise<void> {
  answerUsage();
  const operators = new Map<string, { operatorId: bigint; transportKey: string }>();
  process.on('message', (message: { enroll?: { operatorId: number; transportKey: string } }) => {
    if (message.enroll === undefined) return;
    const { operatorId, transportKey } = message.enroll;
    operators.set(signerOf(operatorId).address.toLowerCase(), { operatorId: BigInt(operatorId), transportKey });
  });
  const identity = await openTransportIdentity(own);
  const terms = { operatorId: 1n, pricePerGib: 0n, chunkBytes: 16 * MIB, streamsMax: 512, bytesPerSecond: 2 ** 40, tunnelsMax: 1000 };
  const relay = startRelay({
    identity,
    network: NETWORK,
    terms,
    signer: signerOf(1),
    recover: recoverAddress,
    operatorOf: async (nodeKey) => operators.get(nodeKey.toLowerCase()),
    heartbeatMs: 60_000,
    log: silentLogger,
  });
  const server = await startPeerServer({
    port: 0,
    identity,
    door: relay,
    connectionsMax: 10_000,
    fetch: async (request) => (await relay.fetch(request)) ?? new Response(null, { status: 404 }),
  });
  process.send?.({ port: server.port, transportKey: identity.transportKey });
}

/** A node as a process, which opens as many tunnels as it is told, each for an operator of its own. */
async function runNode(own: string): Promise<void> {
  answerUsage();
  const block = new Uint8Array(MIB).fill(7);
  const identities = await Promise.all(Array.from({ length: TUNNELS + 1 }, (_, index) => openTransportIdentity(join(own, String(index)))));
  const server = await startPeerServer({
    port: 0,
    identity: identities[0] as (typeof identities)[0],
    connectionsMax: 10_000,
    fetch(request) {
      if (new URL(request.url).pathname === '/held') return new Promise<Response>(() => {});
      let left = SIZE_MIB;
      const pull = (controller: ReadableStreamDefaultController<Uint8Array>) =>
        left-- > 0 ? controller.enqueue(block) : controller.close();
      return new Response(new ReadableStream({ pull }));
    },
  });
  process.send?.({ port: server.port, transportKeys: identities.map(({ transportKey }) => transportKey) });
  const tunnels: Tunnel[] = [];
  process.on('message', async (message: Message) => {
    if (message.count === undefined) return;
    const relay = { ...message.relay, operatorId: 1n } as RelayPeer;
    const announced = await peerFetch(relay, '/v1/relay');
    relay.announcement = announcementFrom(await readRelayJson(announced.body as ReadableStream<Uint8Array>));
    while (tunnels.length < message.count) {
      const operatorId = tunnels.length + 2;
      const { transportKey } = identities[tunnels.length] as (typeof identities)[0];
      const accept = server.accept;
      const options = { relay, network: NETWORK, operatorId: BigInt(operatorId), signer: signerOf(operatorId), transportKey, accept };
      tunnels.push(await openTunnel({ ...options, heartbeatMs: 60_000, log: silentLogger }));
    }
    process.send?.({ endpoint: tunnels[0]?.endpoint });
  });
}

async function ask<Answer>(child: ChildProcess, message: object): Promise<Answer> {
  child.send(message);
  const [answer] = (await once(child, 'message')) as [Answer];
  return answer;
}

async function start<Ready>(name: string, own: string): Promise<{ child: ChildProcess; ready: Ready }> {
  const child = fork(import.meta.filename, [name, own], { execArgv: ['--expose-gc'] });
  const [ready] = (await once(child, 'message')) as [Ready];
  return { child, ready };
}

async function transfer(
  name: string,
  peer: { endpoint: string; transportKey: string },
  children: Record<string, ChildProcess>,
): Promise<void> {
  const names = Object.keys(children);
  const usages = () => Promise.all(names.map((child) => ask<Usage>(children[child] as ChildProcess, { usage: true })));
  const before = await usages();
  const own = process.cpuUsage();
  const startedAt = performance.now();
  const response = await peerFetch(peer, '/bytes');
  let sizeBytes = 0;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) sizeBytes += chunk.length;
  const seconds = (performance.now() - startedAt) / 1000;
  if (sizeBytes !== SIZE_MIB * MIB) throw new RangeError('got another size');
  const { user, system } = process.cpuUsage(own);
  const after = await usages();
  const perCpu = names.map((child, index) => {
    const cpuSeconds = (after[index] as Usage).cpuSeconds - (before[index] as Usage).cpuSeconds;
    return `${child} ${(SIZE_MIB / cpuSeconds).toFixed(0)}`;
  });
  const client = (SIZE_MIB / ((user + system) / 1e6)).toFixed(0);
  process.stdout.write(
    `${name.padEnd(20)} ${(SIZE_MIB / seconds).toFixed(0).padStart(5)} MiB/s; MiB per CPU-second: ${[...perCpu, `client ${client}`].join(', ')}\n`,
  );
}

async function measureAll(): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'millrace-bench-relay-'));
  const children: ChildProcess[] = [];
  try {
    const relay = await start<{ port: number; transportKey: string }>('relay', join(root, 'relay'));
    const node = await start<{ port: number; transportKeys: string[] }>('node', join(root, 'node'));
    children.push(relay.child, node.child);
    node.ready.transportKeys.forEach((transportKey, index) => {
      relay.child.send({ enroll: { operatorId: index + 2, transportKey } });
    });
    const [transportKey] = node.ready.transportKeys as [string];
    const at = { endpoint: `https://127.0.0.1:${relay.ready.port}`, transportKey: relay.ready.transportKey };
    const { endpoint } = await ask<{ endpoint: string }>(node.child, { relay: at, count: 1 });
    const direct = { endpoint: `https://127.0.0.1:${node.ready.port}`, transportKey };
    for (const round of ['first', 'second']) {
      await transfer(`direct, ${round}`, direct, { node: node.child });
      await transfer(`by relay, ${round}`, { endpoint, transportKey }, { relay: relay.child, node: node.child });
    }
    await measureMemory({ relay: relay.child, node: node.child, at, endpoint, transportKey });
  } finally {
    for (const child of children) child.kill();
    await rm(root, { recursive: true, force: true });
  }
}

async function measureMemory(given: {
  relay: ChildProcess;
  node: ChildProcess;
  at: { endpoint: string; transportKey: string };
  endpoint: string;
  transportKey: string;
}): Promise<void> {
  const { relay, node, at, endpoint, transportKey } = given;
  const memory = async () =>
    [(await ask<Usage>(relay, { usage: true })).rssBytes, (await ask<Usage>(node, { usage: true })).rssBytes] as const;
  const say = (what: string, count: number, [relayBefore, nodeBefore]: readonly number[], [relayAfter, nodeAfter]: readonly number[]) => {
    const each = (before = 0, after = 0) => `${((after - before) / 1024 / count).toFixed(0)} KiB`;
    process.stdout.write(
      `memory of each of ${count} ${what}: relay ${each(relayBefore, relayAfter)}, node ${each(nodeBefore, nodeAfter)}\n`,
    );
  };
  const idle = await memory();
  await ask(node, { relay: at, count: TUNNELS });
  const tunnels = await memory();
  say('idle tunnels', TUNNELS - 1, idle, tunnels);
  const over = new AbortController();
  for (let index = 0; index < CONNECTIONS; index += 1) {
    void peerFetch({ endpoint, transportKey }, '/held', { signal: over.signal, headers: { connection: 'close' } }).catch(() => {});
  }
  await new Promise((resolve) => setTimeout(resolve, 3000));
  say('connections through one tunnel', Math.min(CONNECTIONS, 64), tunnels, await memory());
  over.abort();
}
