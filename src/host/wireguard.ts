import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { enterNamespace, type NetNamespace } from './net-namespace.ts';
import { runProgram } from './run-program.ts';

/** The two keys of one end of a WireGuard link, in the form of `wg`: 32 bytes each, base64. */
export interface WireguardKeys {
  /** Never leaves the machine that made it. */
  privateKey: string;
  publicKey: string;
}

/** Another end. */
export interface WireguardPeer {
  publicKey: string;
  /** `host:port`, UDP; undefined when it will call first. */
  endpoint: string | undefined;
  /** The only address that packets from it may carry, and to which packets go to it. */
  address: string;
}

/** What WireGuard knows of one peer. */
export interface WireguardPeerState {
  publicKey: string;
  /** Seconds since 1970 of the last handshake; 0 when there was none. */
  handshakeAt: number;
  receivedBytes: number;
  sentBytes: number;
}

/** An interface in a namespace whose encrypted packets leave by the network of the process that made it. */
export interface WireguardLink {
  /** Name of the interface within the namespace. */
  name: string;
  /** `kernel`, or the program wireguard-go, which is several times slower. */
  kind: 'kernel' | 'userspace';
  /** UDP. */
  listenPort: number;
  /** From now on these are the peers and no others; those that stay keep their sessions. */
  setPeers(peers: readonly WireguardPeer[]): Promise<void>;
  peers(): Promise<WireguardPeerState[]>;
  close(): Promise<void>;
}

/** What an interface is made from. */
export interface WireguardOptions {
  /** At most 15 characters, and unique on this machine: wireguard-go's sockets are in one folder for all namespaces. */
  name: string;
  namespace: NetNamespace;
  /** With the length of the network: `10.90.0.1/16`. */
  address: string;
  keys: WireguardKeys;
  /** A free one when left out. */
  listenPort?: number;
  clock?: Clock;
}

const SOCKETS = '/var/run/wireguard';
/** 1,500 less the greatest overhead of WireGuard (IPv6: 80). */
const MTU = '1420';
/** Keeps the way through routers open that forget silent UDP; and finds lost peers. */
const KEEPALIVE_SECONDS = 5;
const START_PATIENCE_MS = 5_000;
const LOOK_MS = 10;

/** New keys, from this machine's own randomness (X25519, RFC 7748). */
export function makeWireguardKeys(): WireguardKeys {
  const { x, d } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' }) as { x: string; d: string };
  const base64 = (text: string) => Buffer.from(text, 'base64url').toString('base64');
  return { privateKey: base64(d), publicKey: base64(x) };
}

/**
 * Makes a WireGuard interface here and moves it into a namespace: its UDP socket stays in the network where it was born (wireguard.com,
 * "Routing & Network Namespaces"), so the namespace reaches its peers and nothing else. The kernel's WireGuard where there is one, else
 * wireguard-go. As root only.
 * @throws wireguard-missing, program-missing, program-failed
 */
export async function openWireguard(options: WireguardOptions): Promise<WireguardLink> {
  const { name, namespace, address } = options;
  await removeLink(name);
  const child = (await addKernelLink(name)) ? undefined : await startUserspace(name, options.clock ?? systemClock);
  const configure = (port: number, peers: readonly WireguardPeer[], [command, ...args]: [string, ...string[]]) =>
    runProgram(command, args, { input: configurationOf(options.keys, port, peers) });
  const inside = (...command: string[]) => enterNamespace(namespace.path, command);
  const show = async (what: string) => {
    const [command, ...args] = inside('wg', 'show', name, what);
    return await runProgram(command, args);
  };
  try {
    await configure(options.listenPort ?? 0, [], readConfiguration('setconf', name));
    await runProgram('ip', ['link', 'set', name, 'netns', namespace.name]);
    await runProgram('ip', ['-n', namespace.name, 'address', 'add', address, 'dev', name]);
    await runProgram('ip', ['-n', namespace.name, 'link', 'set', name, 'mtu', MTU, 'up']);
    const listenPort = await portOf(show, options.clock ?? systemClock);
    return {
      name,
      kind: child === undefined ? 'kernel' : 'userspace',
      listenPort,
      setPeers: async (peers) => void (await configure(listenPort, peers, inside(...readConfiguration('syncconf', name)))),
      peers: async () => parseDump(await show('dump')),
      close: () => closeLink(name, namespace, child),
    };
  } catch (error) {
    await closeLink(name, namespace, child);
    throw error;
  }
}

/** What a machine has for meshes: the way that {@link openWireguard} would go, or what is missing. */
export async function inspectWireguard(): Promise<{ kind: 'kernel' | 'userspace' | undefined; missing: { what: string; fix: string }[] }> {
  const has = (command: string) =>
    runProgram(command, ['--version']).then(
      () => true,
      (error: MillraceError) => error.code !== 'program-missing',
    );
  const missing: { what: string; fix: string }[] = [];
  if (process.getuid?.() !== 0)
    missing.push({ what: 'this process is not root', fix: 'Run the node as root: it makes network namespaces.' });
  if (!(await has('wg'))) missing.push({ what: 'the program wg', fix: 'apt-get install wireguard-tools.' });
  if (!(await has('ip'))) missing.push({ what: 'the program ip', fix: 'apt-get install iproute2.' });
  if (missing.length > 0) return { kind: undefined, missing };
  const probe = `wgp${process.pid % 100_000}`;
  const isKernel = await addKernelLink(probe);
  if (isKernel) await removeLink(probe);
  else if (!(await has('wireguard-go')))
    missing.push({ what: 'WireGuard in the kernel, or wireguard-go', fix: 'apt-get install wireguard-go.' });
  return { kind: isKernel ? 'kernel' : missing.length === 0 ? 'userspace' : undefined, missing };
}

/** `wg` opens a file, and what Node gives a child to read is a socket, which cannot be opened: `cat` makes a pipe of it. */
function readConfiguration(verb: 'setconf' | 'syncconf', name: string): [string, ...string[]] {
  return ['sh', '-c', `cat | wg ${verb} "$1" /dev/stdin`, 'wg', name];
}

function configurationOf(keys: WireguardKeys, port: number, peers: readonly WireguardPeer[]): string {
  const sections = peers.map(({ publicKey, endpoint, address }) =>
    [
      '[Peer]',
      `PublicKey = ${publicKey}`,
      `AllowedIPs = ${address}/32`,
      ...(endpoint === undefined ? [] : [`Endpoint = ${endpoint}`]),
      `PersistentKeepalive = ${KEEPALIVE_SECONDS}`,
    ].join('\n'),
  );
  return `${['[Interface]', `PrivateKey = ${keys.privateKey}`, `ListenPort = ${port}`, ...sections].join('\n')}\n`;
}

async function addKernelLink(name: string): Promise<boolean> {
  return await runProgram('ip', ['link', 'add', name, 'type', 'wireguard']).then(
    () => true,
    (error: MillraceError) => {
      if (error.code === 'program-missing') throw error;
      return false;
    },
  );
}

async function startUserspace(name: string, clock: Clock): Promise<ChildProcess> {
  rmSync(socketOf(name), { force: true });
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', 'wireguard-go', '-f', name], {
    stdio: 'ignore',
    env: { PATH: process.env.PATH, LOG_LEVEL: 'error' },
  });
  let hasEnded = false;
  const end = () => {
    hasEnded = true;
  };
  child.once('error', end).once('exit', end);
  const deadlineMs = clock.nowMs() + START_PATIENCE_MS;
  while (!existsSync(socketOf(name)) && !hasEnded && clock.nowMs() < deadlineMs) await clock.sleep(LOOK_MS);
  if (existsSync(socketOf(name)) && !hasEnded) return child;
  child.kill('SIGKILL');
  throw new MillraceError('wireguard-missing', {
    actor: 'host',
    message: 'The kernel has no WireGuard, and wireguard-go does not start',
    values: { interface: name },
    hint: 'apt-get install wireguard-tools wireguard-go, and let this process use /dev/net/tun.',
  });
}

/** The port is taken when the interface comes up; wireguard-go notices that a little later. */
async function portOf(show: (what: string) => Promise<string>, clock: Clock): Promise<number> {
  const deadlineMs = clock.nowMs() + START_PATIENCE_MS;
  for (;;) {
    const port = Number(await show('listen-port'));
    if (port > 0) return port;
    if (clock.nowMs() >= deadlineMs) {
      throw new MillraceError('wireguard-missing', { actor: 'host', message: 'WireGuard took no port within 5 s' });
    }
    await clock.sleep(LOOK_MS);
  }
}

function parseDump(text: string): WireguardPeerState[] {
  return text
    .split('\n')
    .slice(1)
    .filter((line) => line !== '')
    .map((line) => {
      const [publicKey = '', , , , handshakeAt, receivedBytes, sentBytes] = line.split('\t');
      return { publicKey, handshakeAt: Number(handshakeAt), receivedBytes: Number(receivedBytes), sentBytes: Number(sentBytes) };
    });
}

async function closeLink(name: string, namespace: NetNamespace, child: ChildProcess | undefined): Promise<void> {
  if (child === undefined) await runProgram('ip', ['-n', namespace.name, 'link', 'delete', name]).catch(() => {});
  else child.kill('SIGTERM');
  await removeLink(name);
}

/** One that was left in this network before it could be moved. */
async function removeLink(name: string): Promise<void> {
  if (existsSync(`/sys/class/net/${name}`)) await runProgram('ip', ['link', 'delete', name]).catch(() => {});
}

const socketOf = (name: string) => `${SOCKETS}/${name}.sock`;
