import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { developmentSigner, recoverAddress } from '../chain/index.ts';
import { keepReachable, type PeerDoor, peerFetch, type Reach, type ReachStatus, type RelayCandidate } from './index.ts';
import { type RelayWorld, relayWorld, TEST_NETWORK, type TestHome } from './relay-fixture.ts';

type MadeRelay = Awaited<ReturnType<RelayWorld['startRelay']>>;

let world: RelayWorld;
let home: TestHome;
const kept: Reach[] = [];
const signer = (operatorId: bigint) => developmentSigner(Number(operatorId), 'dev');

before(async () => {
  world = relayWorld({ signer, recover: recoverAddress });
  home = await world.startNode(2n, () => new Response('at home'));
});
after(async () => {
  for (const reach of kept) await reach.stop();
  await world.stop();
});

async function until(isSo: () => boolean): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!isSo()) {
    if (performance.now() > deadline) assert.fail(`waited for half a minute: ${isSo}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Keeps the node of this file reachable; `chain` stands for its endpoint on chain. */
function reachBy(
  relays: MadeRelay[],
  changes: Partial<Parameters<typeof keepReachable>[0]> = {},
): { reach: Reach; chain: { endpoint: string; writes: number } } {
  const chain = { endpoint: '', writes: 0 };
  const candidates: RelayCandidate[] = relays.map(({ peer }) => ({ ...peer, nodeKey: signer(peer.operatorId).address }));
  const reach = keepReachable({
    mode: 'auto',
    directEndpoint: undefined,
    network: TEST_NETWORK,
    operatorId: 2n,
    signer: signer(2n),
    transportKey: home.identity.transportKey,
    accept: home.server.accept,
    candidates: async () => candidates,
    published: async () => chain.endpoint,
    publish: async (endpoint) => {
      chain.endpoint = endpoint;
      chain.writes += 1;
    },
    recover: recoverAddress,
    pricePerGibMax: 0n,
    recordsPath: join(world.folder('records'), 'relays.json'),
    heartbeatMs: 300,
    tickMs: 50,
    probeMs: 200,
    log: { debug() {}, info() {}, warn() {}, error() {} },
    ...changes,
  });
  kept.push(reach);
  return { reach, chain };
}

const portOf = ({ peer }: MadeRelay) => new URL(peer.endpoint).port;
const isAt = (endpoint: string, relay: MadeRelay) => endpoint.endsWith(`:${portOf(relay)}`);
const faultOf = (status: ReachStatus, { peer }: MadeRelay) => status.remembered.find(({ relay }) => relay === peer.operatorId)?.reason;
const answerAt = async (endpoint: string) =>
  (await peerFetch({ endpoint, transportKey: home.identity.transportKey }, '/', { headers: { connection: 'close' } })).text();

/** A relay whose door does with connections for nodes what a test wants. */
function doorOf(take: (connection: Socket, honest: () => boolean) => boolean): (relay: PeerDoor) => PeerDoor {
  return (relay) => ({
    take: (name, connection) =>
      name.startsWith('mr-') ? take(connection, () => relay.take(name, connection)) : relay.take(name, connection),
  });
}

test('a node publishes one of two relays, moves to the other when that one stops, and remembers it', async () => {
  const relays = [await world.startRelay(20n), await world.startRelay(21n)];
  const { reach, chain } = reachBy(relays);
  await until(() => chain.endpoint !== '' && reach.status().tunnels.length === 2);
  assert.equal(await answerAt(chain.endpoint), 'at home');
  const dying = relays.find((relay) => isAt(chain.endpoint, relay)) as MadeRelay;
  const other = relays.find((relay) => relay !== dying) as MadeRelay;
  await dying.server.stop(0);
  await until(() => isAt(chain.endpoint, other));
  assert.equal(await answerAt(chain.endpoint), 'at home');
  assert.notEqual(faultOf(reach.status(), dying), undefined);
  assert.equal(faultOf(reach.status(), other), undefined);
  assert.equal(reach.status().via, 'relay');
  await reach.stop();
});

test('a relay that drops connections is found out by the node’s own probe, left and remembered; the honest one beside it is not', async () => {
  const dropping = await world.startRelay(22n, {}, { door: doorOf(() => true) });
  const honest = await world.startRelay(23n);
  const { reach, chain } = reachBy([dropping, honest]);
  await until(() => isAt(chain.endpoint, honest) && faultOf(reach.status(), dropping) !== undefined);
  assert.equal(faultOf(reach.status(), dropping), 'peer-timeout');
  assert.equal(faultOf(reach.status(), honest), undefined);
  assert.equal(await answerAt(chain.endpoint), 'at home');
  await reach.stop();
});

test('a relay that closes connections, and one that answers itself, are left; the second for long', async () => {
  const closing = await world.startRelay(
    24n,
    {},
    {
      door: doorOf((connection) => {
        connection.destroy();
        return true;
      }),
    },
  );
  const reading = await world.startRelay(25n, {}, { door: doorOf(() => false) });
  const honest = await world.startRelay(26n);
  const { reach, chain } = reachBy([closing, reading, honest], { tunnelsWanted: 3 });
  await until(
    () => isAt(chain.endpoint, honest) && faultOf(reach.status(), closing) !== undefined && faultOf(reach.status(), reading) !== undefined,
  );
  assert.equal(faultOf(reach.status(), closing), 'peer-unreachable');
  const record = reach.status().remembered.find(({ relay }) => relay === 25n);
  assert.equal(record?.reason, 'peer-key-mismatch');
  assert.ok(Date.parse(record.until) > Date.now() + 29 * 86_400_000);
  assert.equal(faultOf(reach.status(), honest), undefined);
  await reach.stop();
});

test('a relay that delays loses its place to a faster one', async () => {
  const delaying = await world.startRelay(27n, {}, { door: doorOf((_connection, honest) => void setTimeout(honest, 700) === undefined) });
  const honest = await world.startRelay(28n);
  const { reach, chain } = reachBy([delaying, honest]);
  await until(() => reach.status().tunnels.filter(({ latencyMs }) => latencyMs !== undefined).length === 2);
  await until(() => isAt(chain.endpoint, honest));
  const latency = (relay: MadeRelay) => reach.status().tunnels.find(({ relay: id }) => id === relay.peer.operatorId)?.latencyMs ?? 0;
  assert.ok(latency(delaying) > 3 * latency(honest));
  const { writes } = chain;
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assert.equal(chain.writes, writes, 'it does not move to and fro');
  await reach.stop();
});

test('a relay that lets nobody but the node’s own probe through is given away by two witnesses; one alone is not believed', async () => {
  let connections = 0;
  // Each round the node itself connects first and the witnesses after it.
  const shady = (witnesses: number) =>
    doorOf((connection, honest) => {
      connections += 1;
      if (connections % (witnesses + 1) === 1) return honest();
      connection.destroy();
      return true;
    });
  const favouring = await world.startRelay(29n, {}, { door: shady(2) });
  const witnesses = [await world.startRelay(30n), await world.startRelay(31n)];
  const two = reachBy([favouring, ...witnesses], { mode: [29n], tunnelsWanted: 1 });
  await until(() => faultOf(two.reach.status(), favouring) === 'witnesses-not-let-through');
  await two.reach.stop();
  connections = 0;
  const alone = await world.startRelay(37n, {}, { door: shady(1) });
  const one = reachBy([alone, witnesses[0] as MadeRelay], { mode: [37n], tunnelsWanted: 1 });
  await until(() => connections >= 6);
  assert.equal(faultOf(one.reach.status(), alone), undefined);
  await one.reach.stop();
});

test('a node that others reach directly uses no relay, and one that they do not reach does', async () => {
  const relays = [await world.startRelay(32n), await world.startRelay(33n)];
  const direct = `https://127.0.0.1:${home.server.port}`;
  const open = reachBy(relays, { directEndpoint: direct });
  await until(() => open.chain.endpoint !== '');
  assert.equal(open.chain.endpoint, direct);
  assert.deepEqual(open.reach.status().tunnels, []);
  assert.equal(open.reach.status().via, 'direct');
  await open.reach.stop();
  const shut = reachBy([await world.startRelay(34n), await world.startRelay(35n)], { directEndpoint: 'https://127.0.0.1:1' });
  await until(() => shut.chain.endpoint !== '');
  assert.equal(shut.reach.status().via, 'relay');
  await shut.reach.stop();
});

test('what is remembered survives a restart; a file that cannot be read is nothing remembered', async () => {
  const dropping = await world.startRelay(36n, {}, { door: doorOf(() => false) });
  const recordsPath = join(world.folder('memory'), 'relays.json');
  const first = reachBy([dropping], { recordsPath });
  await until(() => faultOf(first.reach.status(), dropping) === 'peer-key-mismatch');
  await first.reach.stop();
  assert.ok(existsSync(recordsPath));
  const second = reachBy([dropping], { recordsPath });
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.deepEqual(second.reach.status().tunnels, []);
  assert.equal(faultOf(second.reach.status(), dropping), 'peer-key-mismatch');
  await second.reach.stop();
});
