/**
 * The journey of a bare machine that joins the compute network, inside a network namespace that stands for the internet: chain and the founder's
 * nodes, a relay, and a newcomer behind a router whose node listens on its own loopback only. Started by `test/journeys/compute-join.test.ts`.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { localNetwork } from './journeys/local-network.ts';
import { type Person, person } from './journeys/person.ts';

const MACHINES = ['relay', 'newcomer'] as const;
const RPC_PORT = 8545;
const FIRST_JOB_SECONDS = 60;
const WAIT_MS = 180_000;
type Machine = (typeof MACHINES)[number];

const root = mkdtempSync(join(tmpdir(), 'millrace-joining-'));
const network = localNetwork();
const running: ChildProcess[] = [];
const ip = (...args: string[]) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
const addressOf = (machine: Machine) => `10.78.0.${MACHINES.indexOf(machine) + 2}`;
const say = (text: string) => process.stdout.write(`compute join: ${text}\n`);
const people = Object.fromEntries(
  MACHINES.map((machine) => [machine, person(root, machine, `password of ${machine}`, {}, ['nsenter', `--net=/run/netns/${machine}`])]),
) as Record<Machine, Person>;

function makeInternet(): void {
  execFileSync('mount', ['-t', 'tmpfs', 'none', '/run']);
  ip('link', 'set', 'lo', 'up');
  ip('link', 'add', 'internet', 'type', 'bridge');
  ip('addr', 'add', '10.78.0.1/24', 'dev', 'internet');
  ip('link', 'set', 'internet', 'up');
  for (const [index, machine] of MACHINES.entries()) {
    ip('netns', 'add', machine);
    ip('link', 'add', `c${index}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', machine);
    ip('link', 'set', `c${index}`, 'master', 'internet', 'up');
    const inside = (...command: string[]) => execFileSync('nsenter', [`--net=/run/netns/${machine}`, 'ip', ...command]);
    inside('link', 'set', 'lo', 'up');
    inside('addr', 'add', `${addressOf(machine)}/24`, 'dev', 'eth0');
    inside('link', 'set', 'eth0', 'up');
  }
}

/** The chain's RPC for the machines of the internet: the chain itself listens on the loopback. */
async function publishRpc(rpcUrl: string): Promise<Server> {
  const server = createServer((socket) => {
    const chain = connect(Number(new URL(rpcUrl).port), '127.0.0.1');
    for (const end of [socket, chain]) end.on('error', () => end.destroy());
    socket.pipe(chain).pipe(socket);
  });
  server.listen(RPC_PORT, '10.78.0.1');
  await once(server, 'listening');
  return server;
}

async function startRelay(rpc: string, manifest: string): Promise<void> {
  const relay = people.relay;
  await relay.json('--rpc-url', rpc, 'join', manifest);
  const { address } = await relay.json('wallet', 'create');
  await network.json('wallet', 'send', address, '10', '--gas');
  await network.json('wallet', 'send', address, '1500');
  const { nodeKey } = await relay.json('provider', 'init', '--stake', '1400', '--endpoint', `https://${addressOf('relay')}:9000`);
  await network.json('wallet', 'send', nodeKey, '1', '--gas');
  const child = relay.start('provider', 'run', '--listen', '0.0.0.0:9000', '--roles', 'relay');
  running.push(child);
  await relay.ready(child);
}

/** Whether anything takes a connection at the newcomer's port, seen from the internet. */
function isOpen(): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: addressOf('newcomer'), port: 9500, timeout: 2000 });
    const answers = { connect: true, error: false, timeout: false };
    for (const [event, answer] of Object.entries(answers)) {
      socket.once(event, () => {
        socket.destroy();
        resolve(answer);
      });
    }
  });
}

/** A stranger's document for the newcomer alone; its content is handed over from the example's folder. */
function strangersJob(operatorId: string): string {
  const examples = fileURLToPath(new URL('../examples', import.meta.url));
  const document = readFileSync(join(examples, 'word-count.yaml'), 'utf8');
  const folder = join(root, 'stranger');
  execFileSync('cp', ['-r', examples, folder]);
  const path = join(folder, 'for-newcomer.yaml');
  writeFileSync(path, `${document}device: {attributes: {operator: "${operatorId}"}}\n`);
  return path;
}

/** Has the stranger's job run as soon as the newcomer offers to; gives the result with which the stranger's command ends. */
// biome-ignore lint/suspicious/noExplicitAny: a test reads what the command promises
async function runStrangersJob(operatorId: string): Promise<any> {
  const path = strangersJob(operatorId);
  const deadline = performance.now() + WAIT_MS;
  for (;;) {
    const { code, stdout, stderr } = await network.run('--json', 'run', path, '--auditors', '2', '--output', join(root, 'output'));
    if (code === 0) return JSON.parse(stdout);
    const error = JSON.parse(stderr.trim().split('\n').at(-1) ?? '{}');
    assert.equal(error.code, 'no-job-provider', stderr);
    assert.ok(performance.now() < deadline, 'the newcomer offers nothing');
  }
}

/** When the node has done a job, by its own log, milliseconds since 1970; undefined until then. */
function doneAt(jobId: string): number | undefined {
  const log = join(people.newcomer.home, 'friends', 'logs', 'compute.log');
  const lines = existsSync(log) ? readFileSync(log, 'utf8').split('\n') : [];
  const line = lines.find((each) => each.includes('"job-done"') && each.includes(jobId));
  return line === undefined ? undefined : Date.parse((JSON.parse(line) as { time: string }).time);
}

async function journey(): Promise<void> {
  const { rpcUrl } = await network.json('up', '--detach', '--with', 'storage,compute');
  const rpc = await publishRpc(rpcUrl);
  const [url, manifest] = [`http://10.78.0.1:${RPC_PORT}`, join(network.home, 'data', 'dev', 'network.json')];
  await startRelay(url, manifest);
  say('chain, three nodes and a relay run; the newcomer has nothing');
  const startedAt = Date.now();
  // A machine with more work than processors takes as many times longer.
  const limit = FIRST_JOB_SECONDS * Math.max(1, (loadavg()[0] as number) / availableParallelism());
  const joining = people.newcomer.json('--rpc-url', url, 'join', manifest, '--compute', '--detach');
  joining.catch(() => undefined);
  // Three nodes and the relay are operators 1 to 4.
  const strangers = await runStrangersJob('5');
  const joined = await joining;
  assert.deepEqual([joined.operatorId, joined.selfTest.evidence, strangers.operatorId], ['5', 'replayed', '5']);
  say(`joined as ${joined.deviceClass}; the self-test was replayed by others`);
  const firstDone = doneAt(strangers.jobId) as number;
  const seconds = (firstDone - startedAt) / 1000;
  say(
    `a stranger's paid job was done ${seconds.toFixed(1)} s after the command was given, and settled with the evidence ${strangers.evidence}`,
  );
  assert.equal(strangers.evidence, 'replayed');
  assert.ok(seconds < limit, `${seconds} s, at most ${limit}`);
  assert.equal(await isOpen(), false, 'the newcomer accepts no connection from outside');
  assert.ok(joined.offers.length > 0, 'a device is on offer');
  await explainTo(joined.offers[0].deviceId);
  const { items } = await people.newcomer.json('compute', 'earnings', '--withdraw');
  const stable = items.find(({ token }: { token: string }) => token === 'stable');
  assert.ok(BigInt(stable.amount) > 0n, 'the stranger has paid');
  say(`paid: ${stable.amount} base units of ${stable.unit}, withdrawn to the wallet`);
  if (process.env.MILLRACE_FULL === '1') await again(manifest);
  await gone();
  rpc.close();
}

/** A stranger's Akash file, weighed by the market: the newcomer's device would do, or says why not. */
async function explainTo(deviceId: string): Promise<void> {
  const sdl = fileURLToPath(new URL('../src/compute/spec/sdl-files/valid/one-web-server.yaml', import.meta.url));
  const { units } = await network.json('explain', sdl);
  const own = units[0].answers.find((answer: { deviceId: string }) => answer.deviceId === deviceId);
  assert.ok(own !== undefined && (own.place !== null || own.why.length > 0), JSON.stringify(units));
  say(
    `to an Akash file device ${deviceId} says: ${own.place === null ? `${own.code}, ${own.why}` : `place ${own.place} of ${units[0].answers.length}`}`,
  );
}

/** The same command again finds everything there. */
async function again(manifest: string): Promise<void> {
  const { operatorId, selfTest } = await people.newcomer.json('join', manifest, '--compute', '--detach');
  assert.deepEqual([operatorId, selfTest.evidence], ['5', 'replayed']);
  say('the command was repeated: same operator, another self-test');
}

async function gone(): Promise<void> {
  const { stopped, unstaked, left } = await people.newcomer.json('leave');
  // Seats that were given up still lock their stake for a while.
  assert.ok(stopped && BigInt(unstaked) > 0n && BigInt(left) < BigInt(unstaked), `${stopped} ${unstaked} ${left}`);
  assert.equal(await people.newcomer.codeOf('compute', 'status'), 'compute-node-not-running');
  say('it left with one command: nothing runs, its stake is on the way out');
}

makeInternet();
try {
  await journey();
  say('done');
} finally {
  await people.newcomer.run('leave', '--keep-stake');
  for (const child of running) child.kill('SIGKILL');
  await network.remove();
  rmSync(root, { recursive: true, force: true });
}
process.exit();
