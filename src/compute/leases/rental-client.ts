import type { Duplex } from 'node:stream';
import type { Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { contentDigest, type PeerAddress, peerFetch, signRequest } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { decodeFrames } from './frames.ts';
import { joinConnection } from './join-connection.ts';
import { readLease, readPeer } from './lease-chain.ts';
import type { SignedStatement } from './lease-record.ts';
import type { RentalMain } from './rental.ts';
import type { WorkspaceCommand } from './workspace.ts';

/** A rental as its renter, or a prober, reaches it. */
export interface RentalClient {
  readonly leaseId: bigint;
  /** What the machine says of it. */
  state(): Promise<Record<string, unknown>>;
  /** Whether the rental answers now; false also when the machine does not. */
  probe(): Promise<boolean>;
  /**
   * Runs a command and hands over what it prints as it comes.
   * @returns exit code; undefined when the rental's sandbox ended before it
   * @throws lease-not-running, workspace-busy, bad-command, peer-unreachable, bad-frame, the signal's reason
   */
  exec(command: WorkspaceCommand, io: ExecStreams): Promise<number | undefined>;
  /**
   * Joins a connection of this machine with one to a TCP port within the rental until both sides of it have ended. Nothing is read from it before the
   * machine is connected. It is left half open where one side has ended; whoever gave it destroys it when this throws.
   * @param connection which may be half open (`allowHalfOpen`)
   * @throws port-refused, ports-unsupported, connections-too-many, port-cut, lease-not-running, lease-unknown, peer-unreachable, bad-frame, the signal's reason
   */
  joinPort(port: number, connection: Duplex, options?: { signal?: AbortSignal }): Promise<void>;
  /** The command that runs by itself, and again with every new sandbox, in the image that it names; replaces the one before. */
  setMain(main: RentalMain): Promise<void>;
  /** What that command printed, the last mebibyte; with `follow` what it prints from now on too. */
  logs(options: { follow: boolean; signal: AbortSignal }): AsyncIterable<Uint8Array>;
  /** Gives the renter's signed word and takes the node's, not yet checked. */
  exchange(word: number, statement: SignedStatement): Promise<SignedStatement>;
}

/** Where a command reads and writes. */
export interface ExecStreams {
  stdin?: AsyncIterable<Uint8Array>;
  stdout: (bytes: Uint8Array) => Promise<void> | void;
  stderr: (bytes: Uint8Array) => Promise<void> | void;
  /** Given once it runs: sends it a signal. */
  onStarted?: (signal: (name: string) => Promise<void>) => void;
  signal?: AbortSignal;
}

const ANSWER_BYTES_MAX = 64 << 10;
const PROBE_TIMEOUT_MS = 8_000;
/** Frames come at least every fifteen seconds. */
const IDLE_TIMEOUT_MS = 50_000;
const FOLLOW_TIMEOUT_MS = 0;

/** The rental of a lease, at the machine that its operator says. @throws unknown-lease, unknown-operator, chain-unreachable */
export async function openRentalClient(client: ChainClient, options: { leaseId: bigint; signer: Signer }): Promise<RentalClient> {
  const { leaseId, signer } = options;
  const { operatorId } = await readLease(client, leaseId);
  const peer = await readPeer(client, operatorId);
  const base = `/v1/compute/leases/${leaseId}`;
  const request = (method: string, path: string, given: Sent = {}) => send(peer, signer, { method, path: `${base}${path}`, ...given });
  const json = async (method: string, path: string, body?: unknown, timeoutMs?: number): Promise<Record<string, unknown>> => {
    const signal = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs);
    const response = await request(method, path, { body: body === undefined ? undefined : JSON.stringify(body), signal });
    return JSON.parse((await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8')) as Record<string, unknown>;
  };
  return {
    leaseId,
    state: () => json('GET', ''),
    probe: () =>
      json('GET', '/probe', undefined, PROBE_TIMEOUT_MS).then(
        ({ isUp }) => isUp === true,
        () => false,
      ),
    async exec(command, io) {
      const head = JSON.stringify(command);
      const response = await request('POST', '/exec', { head, rest: io.stdin, signal: io.signal, idleTimeoutMs: IDLE_TIMEOUT_MS });
      for await (const { kind, bytes } of decodeFrames(response.body as unknown as AsyncIterable<Uint8Array>)) {
        if (kind === 'stdout') await io.stdout(bytes);
        if (kind === 'stderr') await io.stderr(bytes);
        const text = () => Buffer.from(bytes).toString('utf8');
        if (kind === 'started') {
          const run = /^[0-9a-f]{16}$/.exec(text())?.[0] ?? '';
          io.onStarted?.(async (name) => void (await json('POST', `/runs/${run}/signal`, { signal: name })));
        }
        if (kind === 'ended') return exitCodeOf(text());
      }
      throw cutOff(leaseId);
    },
    joinPort: (port, connection, { signal } = {}) =>
      joinConnection(connection, signal, (rest, left) => {
        return request('POST', `/ports/${port}`, { head: '', rest, signal: left, idleTimeoutMs: IDLE_TIMEOUT_MS });
      }),
    setMain: async (main) => void (await json('PUT', '/main', main)),
    async *logs({ follow, signal }) {
      const path = `/logs${follow ? '?follow=1' : ''}`;
      const { body } = await request('GET', path, { signal, idleTimeoutMs: follow ? FOLLOW_TIMEOUT_MS : undefined });
      yield* (body ?? []) as AsyncIterable<Uint8Array>;
    },
    async exchange(word, { spoken, up, signature }) {
      const hex = (bits: bigint) => `0x${bits.toString(16)}`;
      const answer = await json('POST', '/meter', { word, spoken: hex(spoken), up: hex(up), signature }, PROBE_TIMEOUT_MS);
      return { spoken: BigInt(String(answer.spoken)), up: BigInt(String(answer.up)), signature: String(answer.signature) as Hex };
    },
  };
}

/** Undefined where the sandbox ended before the command, and for what is no exit code. */
function exitCodeOf(text: string): number | undefined {
  const code = /^\{"exitCode":(\d{1,3})\}$/.exec(text)?.[1];
  return code === undefined ? undefined : Number(code);
}

interface Sent {
  body?: string;
  /** A first line that is signed for, and what follows it. */
  head?: string;
  rest?: AsyncIterable<Uint8Array>;
  signal?: AbortSignal;
  idleTimeoutMs?: number;
}

async function send(peer: PeerAddress, signer: Signer, sent: Sent & { method: string; path: string }): Promise<Response> {
  const { method, path, body, head, rest, signal, idleTimeoutMs } = sent;
  const signed = body ?? head;
  const headers: Record<string, string> = signed === undefined ? {} : { 'content-digest': contentDigest(signed) };
  const url = new URL(path, peer.endpoint).href;
  const signature = await signRequest({ method, url, headers }, signer, { covered: Object.keys(headers) });
  const stream = async function* () {
    yield Buffer.from(`${head}\n`);
    if (rest !== undefined) yield* rest;
  };
  const response = await peerFetch(peer, path, {
    method,
    headers: { ...headers, ...signature },
    body: head === undefined ? body : stream(),
    signal,
    idleTimeoutMs,
  });
  if (response.ok) return response;
  throw await errorOf(response);
}

async function errorOf(response: Response): Promise<MillraceError> {
  const text = (await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8');
  let given: Record<string, unknown> = {};
  try {
    given = JSON.parse(text) as Record<string, unknown>;
  } catch {
    // Not one of our answers.
  }
  const known = typeof given.code === 'string' && /^[a-z][a-z0-9-]{0,60}$/.test(given.code);
  return new MillraceError(known ? (given.code as string) : 'rental-refused', {
    actor: given.actor === 'caller' ? 'caller' : 'peer',
    message: typeof given.message === 'string' ? given.message.slice(0, 500) : `The machine answered ${response.status}`,
    values: { status: response.status },
    hint: typeof given.hint === 'string' ? given.hint.slice(0, 500) : undefined,
  });
}

function cutOff(leaseId: bigint): MillraceError {
  return new MillraceError('rental-cut-off', {
    actor: 'peer',
    message: `The machine of lease ${leaseId} stopped answering while a command ran`,
    values: { leaseId },
    hint: 'Look at `millrace rentals`: the lease may be over, or the machine down; time in which it is down is not charged.',
  });
}
