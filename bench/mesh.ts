/**
 * The mesh of a rental: bytes a second and round trips between two machines over a bare veth, over WireGuard set up by hand, and over the mesh; and
 * how long a machine takes to become a member. The machines are network namespaces of this one, so both ends share its processors, and with
 * wireguard-go (no WireGuard in the kernel) both ends' encryption too. As root, with iproute2 and wireguard-tools.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { startMeshChild } from '../src/compute/cluster/mesh-child.ts';
import {
  createNetNamespace,
  enterNamespace,
  inspectWireguard,
  makeWireguardKeys,
  mountMemory,
  type NetNamespace,
  openWireguard,
  unmountMemory,
} from '../src/host/index.ts';

const SECONDS = 4;
const ROUNDS = 5;
const PINGS = 300;
const print = (line: string) => process.stdout.write(`${line}\n`);

/** Sends for some seconds and then bounces single bytes; prints bytes a second and the round trips in microseconds. */
const CLIENT = `
const net = require('node:net');
const [address, seconds, pings] = process.argv.slice(-3);
const block = Buffer.alloc(1 << 18, 7);
const socket = net.connect(5001, address, () => {
  const end = Date.now() + seconds * 1000;
  let sent = 0;
  const pump = () => { while (Date.now() < end) { sent += block.length; if (!socket.write(block)) { socket.once('drain', pump); return; } } socket.end(); };
  const begun = process.hrtime.bigint();
  pump();
  socket.once('close', () => {
    const rate = sent / (Number(process.hrtime.bigint() - begun) / 1e9);
    const echo = net.connect(5002, address, () => {
      echo.setNoDelay(true);
      const times = []; let at;
      const ping = () => { at = process.hrtime.bigint(); echo.write('x'); };
      echo.on('data', () => {
        times.push(Number(process.hrtime.bigint() - at) / 1000);
        if (times.length < pings) return ping();
        times.sort((a, b) => a - b);
        console.log(JSON.stringify({ rate, best: times[0], median: times[times.length >> 1] }));
        process.exit(0);
      });
      ping();
    });
  });
  socket.resume();
});`;
const SERVER = `
const net = require('node:net');
const address = process.argv.at(-1);
net.createServer((socket) => { socket.on('error', () => {}); socket.on('end', () => socket.end()); socket.resume(); }).listen(5001, address);
net.createServer((socket) => { socket.setNoDelay(true); socket.on('error', () => {}); socket.pipe(socket); }).listen(5002, address, () => console.log('ready'));`;

interface Measured {
  rate: number;
  best: number;
  median: number;
}

async function measure(from: string, to: string, address: string): Promise<Measured> {
  const [serverProgram, ...serverArgs] = enterNamespace(to, [process.execPath, '-e', SERVER, address]);
  const server = spawn(serverProgram, serverArgs, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => createInterface({ input: server.stdout }).once('line', resolve));
  const [program, ...args] = enterNamespace(from, [process.execPath, '-e', CLIENT, address, String(SECONDS), String(PINGS)]);
  const output = execFileSync(program, args, { encoding: 'utf8' });
  server.kill('SIGKILL');
  return JSON.parse(output) as Measured;
}

/** That of the round in the middle by rate. */
function middleOf(rounds: readonly Measured[]): Measured {
  return rounds.toSorted((one, other) => one.rate - other.rate)[rounds.length >> 1] as Measured;
}

function tell(name: string, { rate, best, median }: Measured, bare?: Measured): void {
  const share = bare === undefined ? '' : `, ${((100 * rate) / bare.rate).toFixed(0)} % of the veth`;
  print(`${name}: ${(rate / 2 ** 20).toFixed(0)} MiB/s${share}; round trip best ${best.toFixed(0)}, median ${median.toFixed(0)} µs`);
}

const ip = (...args: string[]) => void execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'inherit'] });

/** WireGuard as its manual sets it up, directly in the two machines' own networks. */
async function wireByHand(folder: string, names: readonly [string, string]): Promise<() => void> {
  const keys = [makeWireguardKeys(), makeWireguardKeys()] as const;
  const children = names.map((name, index) => {
    const link = `bwg${index}`;
    const isKernel = spawnSync('ip', ['-n', name, 'link', 'add', link, 'type', 'wireguard']).status === 0;
    const [program, ...args] = enterNamespace(`/run/netns/${name}`, ['wireguard-go', '-f', link]);
    return isKernel ? undefined : spawn(program, args, { stdio: 'ignore' });
  });
  await sleep(500);
  for (const [index, name] of names.entries()) {
    const [own, other] = [keys[index], keys[1 - index]] as [(typeof keys)[0], (typeof keys)[0]];
    const file = join(folder, `wg${index}.conf`);
    const peer = `[Peer]\nPublicKey = ${other.publicKey}\nAllowedIPs = 10.88.0.0/24\nEndpoint = 10.77.9.${2 - index}:51820\n`;
    writeFileSync(file, `[Interface]\nPrivateKey = ${own.privateKey}\nListenPort = 51820\n${peer}`);
    const [program, ...args] = enterNamespace(`/run/netns/${name}`, ['wg', 'setconf', `bwg${index}`, file]);
    execFileSync(program, args);
    ip('-n', name, 'address', 'add', `10.88.0.${index + 1}/24`, 'dev', `bwg${index}`);
    ip('-n', name, 'link', 'set', `bwg${index}`, 'mtu', '1420', 'up');
  }
  await sleep(1_500);
  return () => {
    for (const child of children) child?.kill('SIGKILL');
  };
}

/** One end as a node makes it, but that the host's network is a namespace: the link is born there and moved into the rental's. */
interface MeshEnd {
  namespace: NetNamespace;
  kind: string;
  close(): Promise<void>;
}

/** Both ends in one process here, born in this machine's own network and bound together over its loopback: the same path but for the veth. */
async function openMesh(folder: string): Promise<{ ends: [MeshEnd, MeshEnd]; startMs: number[][] }> {
  const startMs: number[][] = [];
  const made = [];
  const keys = [makeWireguardKeys(), makeWireguardKeys()] as const;
  for (const index of [0, 1] as const) {
    const times: number[] = [];
    const timed = async <Result>(work: Promise<Result>) => {
      const start = performance.now();
      const result = await work;
      times.push(performance.now() - start);
      return result;
    };
    const namespace = await timed(createNetNamespace(`bmesh${index}`));
    const link = await timed(
      openWireguard({ name: `bmw${index}`, namespace, address: `10.90.0.${index + 1}/16`, keys: keys[index] as (typeof keys)[0] }),
    );
    const checkpointFolder = join(folder, `checkpoints-${index}`);
    execFileSync('mkdir', ['-p', checkpointFolder]);
    await mountMemory(checkpointFolder, 1 << 20);
    const settings = { address: `10.90.0.${index + 1}`, seat: index + 1, checkpointFolder, checkpointBytesMax: 1 << 20 };
    const child = await timed(startMeshChild(namespace, settings));
    startMs.push(times);
    made.push({ namespace, link, child, checkpointFolder });
  }
  for (const index of [0, 1] as const) {
    const other = made[1 - index] as (typeof made)[0];
    const peer = {
      publicKey: (keys[1 - index] as (typeof keys)[0]).publicKey,
      endpoint: `127.0.0.1:${other.link.listenPort}`,
      address: `10.90.0.${2 - index}`,
    };
    await (made[index] as (typeof made)[0]).link.setPeers([peer]);
  }
  const ends = made.map(({ namespace, link, child, checkpointFolder }) => ({
    namespace,
    kind: link.kind,
    close: async () => {
      await child.stop();
      await link.close();
      await unmountMemory(checkpointFolder);
      await namespace.remove();
    },
  }));
  return { ends: ends as [MeshEnd, MeshEnd], startMs };
}

const { kind, missing } = await inspectWireguard();
if (kind === undefined) {
  print(`not measured: ${missing.map(({ what }) => what).join(', ')} missing`);
} else {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-bench-mesh-'));
  const names = ['bmeshh0', 'bmeshh1'] as const;
  for (const name of names) await createNetNamespace(name);
  ip('link', 'add', 'up0', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'up0', 'netns', names[1]);
  for (const [index, name] of names.entries()) {
    ip('-n', name, 'address', 'add', `10.77.9.${index + 1}/24`, 'dev', 'up0');
    ip('-n', name, 'link', 'set', 'up0', 'up');
  }
  print(`WireGuard: ${kind}`);
  print(`load of this machine: ${loadavg()[0]?.toFixed(1)}`);
  const veth = await measure(`/run/netns/${names[0]}`, `/run/netns/${names[1]}`, '10.77.9.2');
  tell('bare veth', veth);
  const endByHand = await wireByHand(folder, names);
  const bare: Measured[] = [];
  const meshed: Measured[] = [];
  const times: number[][] = [];
  // In turns: other work on this machine meets both.
  for (let round = 0; round < ROUNDS; round += 1) {
    bare.push(await measure(`/run/netns/${names[0]}`, `/run/netns/${names[1]}`, '10.88.0.2'));
    const { ends, startMs } = await openMesh(folder);
    times.push(...startMs);
    meshed.push(await measure(ends[0].namespace.path, ends[1].namespace.path, '10.90.0.2'));
    for (const end of ends) await end.close();
  }
  endByHand();
  tell('bare WireGuard over it', middleOf(bare), veth);
  tell('the mesh of a rental', middleOf(meshed), veth);
  const rates = (list: readonly Measured[]) => list.map(({ rate }) => (rate / 2 ** 20).toFixed(0)).join(', ');
  print(`  of ${ROUNDS} rounds: ${rates(bare)} beside ${rates(meshed)} MiB/s`);
  print(`  the mesh has ${((100 * middleOf(meshed).rate) / middleOf(bare).rate).toFixed(0)} % of bare WireGuard`);
  const best = (index: number) => Math.min(...times.map((each) => each[index] as number)).toFixed(0);
  const median = (index: number) =>
    times
      .map((each) => each[index] as number)
      .sort((one, other) => one - other)
      [times.length >> 1]?.toFixed(0);
  print(
    `a member starts (best / median of ${times.length}): namespace ${best(0)} / ${median(0)} ms, WireGuard ${best(1)} / ${median(1)} ms, the process in the mesh ${best(2)} / ${median(2)} ms`,
  );
  print(`load of this machine: ${loadavg()[0]?.toFixed(1)}`);
  for (const name of names) ip('netns', 'delete', name);
  rmSync(folder, { recursive: true, force: true });
}
