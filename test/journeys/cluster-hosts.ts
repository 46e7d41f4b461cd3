/**
 * Machines for journeys of clusters, made of this one: a network namespace each, joined by a bridge, with a Docker Engine of its own (Debian's
 * docker.io, started by hand without systemd). They share this machine's processors, disk and kernel; their networks are their own.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** One machine. */
export interface TestHost {
  name: string;
  /** In the network that all machines and this one share. */
  address: string;
  folder: string;
  socketPath: string;
  /** What comes before a command that runs on that machine. */
  prefix: readonly string[];
  /** Starts its engine, or starts it anew. */
  startEngine(options?: readonly string[]): Promise<void>;
  /** As if the plug were pulled: its link goes down, and every process on it and in its containers is killed at once. */
  pullPlug(): void;
}

/** Several machines, and the address at which this process is reached by them. */
export interface TestHosts {
  hosts: TestHost[];
  hubAddress: string;
  close(): Promise<void>;
}

const ENGINE_PATIENCE_MS = 40_000;
const HUB = 'crhub';
const PROCESSOR_SHARES = 64;

/** What of {@link startHosts} is missing on this machine, as a reason to skip; undefined when nothing is. */
export function missingForHosts(programs: readonly string[] = ['dockerd', 'ip', 'nsenter', 'wg']): string | undefined {
  if (process.getuid?.() !== 0) return 'network namespaces and Docker Engines are started as root only';
  const missing = programs.filter((program) => spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0);
  if (missing.length > 0) return `${missing.join(', ')} not installed (apt-get install docker.io iproute2 wireguard-tools wireguard-go)`;
  return spawnSync('unshare', ['--net', 'true']).status === 0 ? undefined : 'this machine gives no network namespaces';
}

/** Makes the machines; their engines are started by `startEngine`. `subnet` is the first three bytes of their network. */
export async function startHosts(folder: string, count: number, subnet = '10.77.3'): Promise<TestHosts> {
  const tag = subnet.split('.').at(-1) as string;
  const bridge = `${HUB}${tag}`;
  removeLeft(bridge, tag, count);
  ip('link', 'add', bridge, 'type', 'bridge');
  ip('address', 'add', `${subnet}.254/24`, 'dev', bridge);
  ip('link', 'set', bridge, 'up');
  const before = namespaces();
  const hosts = Array.from({ length: count }, (_, index) => makeHost({ folder, bridge, tag, subnet, number: index + 1 }));
  return {
    hosts,
    hubAddress: `${subnet}.254`,
    close: async () => {
      for (const host of hosts) host.pullPlug();
      await sleep(300);
      removeLeft(bridge, tag, count);
      // Names that killed nodes gave to the networks of their rentals.
      for (const name of namespaces().filter((each) => each.startsWith('mr-') && !before.includes(each))) {
        spawnSync('ip', ['netns', 'delete', name]);
      }
      for (const host of hosts) unmountBelow(host.folder);
      for (const { name } of hosts) spawnSync('sh', ['-c', `rmdir /sys/fs/cgroup/cpu/${name}/* /sys/fs/cgroup/*/${name} 2>/dev/null`]);
    },
  };
}

function makeHost(parts: { folder: string; bridge: string; tag: string; subnet: string; number: number }): TestHost {
  const { bridge, tag, subnet, number } = parts;
  const name = `crh${tag}-${number}`;
  const link = `crv${tag}-${number}`;
  const folder = join(parts.folder, name);
  mkdirSync(join(folder, 'docker'), { recursive: true });
  // In memory: four engines unpack the same image, and a machine that has other work has a slow disk.
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4g', 'millrace', join(folder, 'docker')]);
  ip('netns', 'add', name);
  ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'up0', 'netns', name);
  ip('link', 'set', link, 'master', bridge, 'up');
  ip('-n', name, 'link', 'set', 'lo', 'up');
  ip('-n', name, 'address', 'add', `${subnet}.${number}/24`, 'dev', 'up0');
  ip('-n', name, 'link', 'set', 'up0', 'up');
  const socketPath = join(folder, 'docker.sock');
  const enter = `for group in ${groupsOf(name).join(' ')}; do echo $$ >$group/cgroup.procs; done; exec "$@"`;
  // Not `ip netns exec`, which hides the control groups from what it runs.
  const prefix = ['sh', '-c', enter, name, 'nsenter', `--net=/run/netns/${name}`, '--'];
  let engine: ChildProcess | undefined;
  return {
    name,
    address: `${subnet}.${number}`,
    folder,
    socketPath,
    prefix,
    async startEngine(further = []) {
      engine?.kill('SIGKILL');
      rmSync(join(folder, 'docker.pid'), { force: true });
      const log = openSync(join(folder, 'dockerd.log'), 'a');
      const options = [
        ...['--data-root', join(folder, 'docker'), '--exec-root', join(folder, 'run'), '--pidfile', join(folder, 'docker.pid')],
        ...['-H', `unix://${socketPath}`, '--bridge', 'none', '--iptables=false', '--ip-forward=false'],
        ...['--exec-opt', 'native.cgroupdriver=cgroupfs', '--cgroup-parent', `/${name}`, '--storage-driver', 'overlay2'],
        ...further,
      ];
      const [program, ...first] = prefix as [string, ...string[]];
      engine = spawn(program, [...first, 'dockerd', ...options], { stdio: ['ignore', log, log] });
      await untilAnswers(socketPath);
    },
    pullPlug() {
      spawnSync('ip', ['link', 'set', link, 'down']);
      killAll(name);
    },
  };
}

/**
 * The control group (version 1) in which all of a machine's processes are: it weighs as much as {@link PROCESSOR_SHARES} other processes of this
 * machine together. Containers would weigh as much as one otherwise, all together, beside whatever else runs here.
 */
function groupsOf(name: string): string[] {
  const group = `/sys/fs/cgroup/cpu/${name}`;
  if (!existsSync('/sys/fs/cgroup/cpu/cpu.shares')) return [];
  mkdirSync(group, { recursive: true });
  writeFileSync(`${group}/cpu.shares`, String(PROCESSOR_SHARES * 1024));
  return [group];
}

/** Every process in the machine's network, and in the networks of the containers that its engine started. */
function killAll(name: string): void {
  if (!existsSync(`/run/netns/${name}`)) return;
  const own = inodeOf(`/run/netns/${name}`);
  const processes = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map((entry) => ({ pid: Number(entry), network: networkOf(entry), parent: parentOf(entry) }));
  const roots = new Set(processes.filter(({ network }) => network === own).map(({ pid }) => pid));
  // A container's processes are children of a shim that lies in the machine's network.
  for (let grown = true; grown; ) {
    const more = processes.filter(({ pid, parent }) => !roots.has(pid) && roots.has(parent));
    for (const { pid } of more) roots.add(pid);
    grown = more.length > 0;
  }
  for (const pid of roots) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It went with another.
    }
  }
}

const inodeOf = (path: string) => String(statSync(path).ino);

function networkOf(pid: string): string | undefined {
  try {
    return /\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/net`))?.[1];
  } catch {
    return undefined;
  }
}

function parentOf(pid: string): number {
  try {
    const status = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return Number(status.slice(status.lastIndexOf(')') + 2).split(' ')[1] ?? 0);
  } catch {
    return 0;
  }
}

async function untilAnswers(socketPath: string): Promise<void> {
  const deadline = performance.now() + ENGINE_PATIENCE_MS;
  while (!(await answers(socketPath))) {
    if (performance.now() > deadline) throw new TypeError(`no Docker Engine answers at ${socketPath}`);
    await sleep(100);
  }
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const ask = request({ socketPath, path: '/_ping', timeout: 2_000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    ask.once('timeout', () => ask.destroy()).once('error', () => resolve(false));
    ask.end();
  });
}

const namespaces = () => (existsSync('/run/netns') ? readdirSync('/run/netns') : []);

/** What a journey that was killed left. */
function removeLeft(bridge: string, tag: string, count: number): void {
  for (let number = 1; number <= count; number += 1) {
    killAll(`crh${tag}-${number}`);
    spawnSync('ip', ['netns', 'delete', `crh${tag}-${number}`]);
    spawnSync('ip', ['link', 'delete', `crv${tag}-${number}`]);
  }
  spawnSync('ip', ['link', 'delete', bridge]);
}

function unmountBelow(folder: string): void {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  const below = mounts.map((line) => line.split(' ')[1] ?? '').filter((path) => path.startsWith(`${folder}/`));
  for (const path of below.sort().reverse()) spawnSync('umount', ['-l', path]);
}

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}
