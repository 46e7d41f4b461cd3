/**
 * The journey of nodes behind routers, inside a network namespace that stands for the internet: chain, relays, and a namespace for each home,
 * whose node listens on its own loopback only. Started by `test/journeys/behind-routers.test.ts`.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { localNetwork } from './journeys/local-network.ts';
import { type Person, person } from './journeys/person.ts';

const MACHINES = ['relay-1', 'relay-2', 'home-1', 'home-2', 'laptop'] as const;
const WAIT_MS = 90_000;
const RPC_PORT = 8545;
type Machine = (typeof MACHINES)[number];

const root = mkdtempSync(join(tmpdir(), 'millrace-routers-'));
const network = localNetwork();
const running: ChildProcess[] = [];
const ip = (...args: string[]) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });
const addressOf = (machine: Machine) => `10.77.0.${MACHINES.indexOf(machine) + 2}`;
const say = (text: string) => process.stdout.write(`behind routers: ${text}\n`);

function makeInternet(): void {
  execFileSync('mount', ['-t', 'tmpfs', 'none', '/run']);
  ip('link', 'set', 'lo', 'up');
  ip('link', 'add', 'internet', 'type', 'bridge');
  ip('addr', 'add', '10.77.0.1/24', 'dev', 'internet');
  ip('link', 'set', 'internet', 'up');
  for (const machine of MACHINES) {
    ip('netns', 'add', machine);
    const cable = `c${MACHINES.indexOf(machine)}`;
    ip('link', 'add', cable, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', machine);
    ip('link', 'set', cable, 'master', 'internet', 'up');
    inside(machine, 'ip', 'link', 'set', 'lo', 'up');
    inside(machine, 'ip', 'addr', 'add', `${addressOf(machine)}/24`, 'dev', 'eth0');
    inside(machine, 'ip', 'link', 'set', 'eth0', 'up');
  }
}

function inside(machine: Machine, ...command: string[]): void {
  execFileSync('nsenter', [`--net=/run/netns/${machine}`, ...command]);
}

/** The chain's RPC for the machines of the internet: the chain itself listens on the loopback. */
async function publishRpc(rpcUrl: string): Promise<Server> {
  const server = createServer((socket) => {
    const chain = connect(Number(new URL(rpcUrl).port), '127.0.0.1');
    for (const end of [socket, chain]) end.on('error', () => end.destroy());
    socket.pipe(chain).pipe(socket);
  });
  server.listen(RPC_PORT, '10.77.0.1');
  await once(server, 'listening');
  return server;
}

const people = Object.fromEntries(
  MACHINES.map((machine) => [machine, person(root, machine, `password of ${machine}`, {}, ['nsenter', `--net=/run/netns/${machine}`])]),
) as Record<Machine, Person>;

async function joinNetwork(machine: Machine, rpcUrl: string): Promise<void> {
  const manifest = join(network.home, 'data', 'dev', 'network.json');
  await people[machine].json('--rpc-url', rpcUrl, 'join', manifest);
  const { address } = await people[machine].json('wallet', 'create');
  await network.json('wallet', 'send', address, '10', '--gas');
  await network.json('wallet', 'send', address, '1800');
}

async function startOperator(machine: Machine, init: string[], run: string[]): Promise<ChildProcess> {
  const { nodeKey } = await people[machine].json('provider', 'init', '--stake', '1500', ...init);
  await network.json('wallet', 'send', nodeKey, '1', '--gas');
  return runOperator(machine, run);
}

async function runOperator(machine: Machine, run: string[]): Promise<ChildProcess> {
  const child = people[machine].start('provider', 'run', ...run);
  running.push(child);
  await people[machine].ready(child);
  return child;
}

const startRelay = (machine: Machine) =>
  startOperator(machine, ['--endpoint', `https://${addressOf(machine)}:9000`], ['--listen', '0.0.0.0:9000', '--roles', 'relay']);
const startHome = (machine: Machine) => startOperator(machine, [], ['--listen', '127.0.0.1:9000', '--relay', 'auto']);

async function waitFor(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) assert.fail(`waited ${WAIT_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

async function behind(home: Machine, relay: Machine): Promise<boolean> {
  const { roles } = await people[home].json('provider', 'status');
  return roles.reach.via === 'relay' && roles.reach.endpoint.endsWith(`${addressOf(relay).replaceAll('.', '-')}.ip4.alt:9000`);
}

/** Whether anything takes a connection at a machine's node port, seen from the internet. */
function isOpen(machine: Machine): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: addressOf(machine), port: 9000, timeout: 2000 });
    for (const [event, answer] of [
      ['connect', true],
      ['error', false],
      ['timeout', false],
    ] as const) {
      socket.once(event, () => {
        socket.destroy();
        resolve(answer);
      });
    }
  });
}

async function journey(): Promise<void> {
  const { rpcUrl } = await network.json('up', '--detach', '--nodes', '1');
  await network.json('provider', 'drain', '--node', '1');
  const rpc = await publishRpc(rpcUrl);
  for (const machine of MACHINES) await joinNetwork(machine, `http://10.77.0.1:${RPC_PORT}`);
  say('the chain runs; every machine has joined');
  const relay = await startRelay('relay-1');
  for (const home of ['home-1', 'home-2'] as const) await startHome(home);
  for (const home of ['home-1', 'home-2'] as const) await waitFor(`${home} is behind relay-1`, () => behind(home, 'relay-1'));
  assert.deepEqual(await Promise.all(MACHINES.map(isOpen)), [true, false, false, false, false]);
  say('only relay-1 accepts connections; both homes are reached through it');
  const letter = join(root, 'letter.bin');
  writeFileSync(letter, randomBytes(3_000_000));
  const { cid } = await people.laptop.json('put', letter, '--copies', '2');
  await getAgain(cid, letter);
  const carried = (await people['relay-1'].json('provider', 'status')).roles.relay;
  assert.ok(BigInt(carried.bytesCarried) > 9_000_000n, `carried ${carried.bytesCarried}`);
  assert.deepEqual(carried.tunnels.length, 2);
  say(`put and get work; relay-1 carried ${carried.bytesCarried} bytes`);
  relay.kill('SIGKILL');
  await once(relay, 'exit');
  assert.deepEqual(await Promise.all(MACHINES.map(isOpen)), [false, false, false, false, false]);
  say('relay-1 is killed: nobody accepts connections');
  await startRelay('relay-2');
  for (const home of ['home-1', 'home-2'] as const) await waitFor(`${home} is behind relay-2`, () => behind(home, 'relay-2'));
  const { remembered } = (await people['home-1'].json('provider', 'status')).roles.reach;
  assert.equal(remembered.length, 1);
  say(`both homes moved to relay-2; of relay-1 home-1 remembers: ${remembered[0].reason}`);
  await getAgain(cid, letter);
  const second = join(root, 'second.bin');
  writeFileSync(second, randomBytes(100_000));
  await getAgain((await people.laptop.json('put', second, '--copies', '2')).cid, second);
  say('get and put work through relay-2');
  rpc.close();
}

async function getAgain(cid: string, original: string): Promise<void> {
  const got = `${original}.got`;
  rmSync(got, { force: true });
  await people.laptop.json('get', cid, '-o', got);
  assert.ok(readFileSync(got).equals(readFileSync(original)));
}

makeInternet();
try {
  await journey();
  say('done');
} finally {
  for (const child of running) child.kill('SIGKILL');
  await network.remove();
  rmSync(root, { recursive: true, force: true });
}
process.exit();
