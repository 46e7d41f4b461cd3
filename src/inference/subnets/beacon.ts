import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { beaconPublicKey, isPulse, signRound } from './time-lock.ts';

/** A beacon as a subnet declares it: round r, from 1, is due at `genesis + (r - 1) * periodSeconds`, in seconds of Unix time. */
export interface Beacon {
  genesis: bigint;
  periodSeconds: number;
  /** 96 bytes; empty where there is none: then validators open their own commits. */
  publicKey: Uint8Array;
  /** What its users must know of it. */
  label: string;
}

/** Where the signatures of rounds come from. */
export interface PulseSource {
  /** The signature of a round; undefined while it is not out, or does not come. Never one that is not the beacon's. */
  pulse(round: bigint, signal?: AbortSignal): Promise<Uint8Array | undefined>;
}

/** Drand's quicknet, which a production subnet declares: a threshold of independent operators holds its key. */
export const QUICKNET: Beacon = {
  genesis: 1_692_803_367n,
  periodSeconds: 3,
  publicKey: Buffer.from(
    '83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a',
    'hex',
  ),
  label: 'drand quicknet: a threshold of its operators together can read weights early',
};

/** What a local beacon's label says. */
export const LOCAL_BEACON_LABEL = 'local: operator can read weights early';

const SECRET_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const ANSWER_BYTES_MAX = 4096;
const FETCH_TIMEOUT_MS = 10_000;
const PATH = /^\/public\/(\d{1,18})$/;

/** The first round that is due at a time (seconds) or later. */
export function roundAt(beacon: Pick<Beacon, 'genesis' | 'periodSeconds'>, time: bigint): bigint {
  const period = BigInt(beacon.periodSeconds);
  return time <= beacon.genesis ? 1n : (time - beacon.genesis + period - 1n) / period + 1n;
}

/** When a round is due, seconds. */
export function roundTime(beacon: Pick<Beacon, 'genesis' | 'periodSeconds'>, round: bigint): bigint {
  return beacon.genesis + (round - 1n) * BigInt(beacon.periodSeconds);
}

/** A beacon whose one key lies in a folder of this machine. */
export interface LocalBeacon extends PulseSource {
  readonly declaration: Beacon;
  /** Answers `GET /public/{round}` as drand's HTTP API does. */
  answer(request: Request): Promise<Response>;
}

/**
 * A local beacon for development: its key is made once and kept in `folder`, encrypted under `wrapKey` (32 bytes). It signs no round before
 * protocol time `now()` has reached it, but whoever has both can: its label says so.
 * @throws beacon-key-broken
 */
export function openLocalBeacon(options: {
  folder: string;
  wrapKey: Uint8Array;
  genesis: bigint;
  periodSeconds: number;
  now(): Promise<bigint>;
}): LocalBeacon {
  const { folder, wrapKey, genesis, periodSeconds, now } = options;
  const secret = readSecret(join(folder, 'beacon.key'), wrapKey);
  const declaration = { genesis, periodSeconds, publicKey: beaconPublicKey(secret), label: LOCAL_BEACON_LABEL };
  const pulse = async (round: bigint) =>
    round >= 1n && roundTime(declaration, round) <= (await now()) ? signRound(secret, round) : undefined;
  return {
    declaration,
    pulse,
    async answer(request) {
      const round = PATH.exec(new URL(request.url).pathname)?.[1];
      const signature = round === undefined || request.method !== 'GET' ? undefined : await pulse(BigInt(round));
      if (signature === undefined) return Response.json({ error: 'no such round yet' }, { status: 404 });
      return Response.json({ round: Number(round), signature: Buffer.from(signature).toString('hex') });
    },
  };
}

/** Pulses from servers with drand's HTTP API, asked in order; each signature is checked against the beacon's key. */
export function fetchPulses(beacon: Beacon, urls: readonly string[]): PulseSource {
  return {
    async pulse(round, signal) {
      for (const url of urls) {
        const signature = await fetchPulse(new URL(`public/${round}`, url.endsWith('/') ? url : `${url}/`), signal);
        if (signature !== undefined && isPulse(beacon.publicKey, round, signature)) return signature;
      }
      return undefined;
    },
  };
}

async function fetchPulse(url: URL, signal: AbortSignal | undefined): Promise<Uint8Array | undefined> {
  try {
    const limits = AbortSignal.any([AbortSignal.timeout(FETCH_TIMEOUT_MS), ...(signal === undefined ? [] : [signal])]);
    const response = await fetch(url, { signal: limits, redirect: 'error' });
    if (!response.ok) return undefined;
    const text = (await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8');
    const { signature } = JSON.parse(text) as { signature?: unknown };
    return typeof signature === 'string' && /^[0-9a-f]{96}$/.test(signature) ? Buffer.from(signature, 'hex') : undefined;
  } catch {
    return undefined; // a pulse that does not come is waited for; the next server is asked
  }
}

function readSecret(path: string, wrapKey: Uint8Array): bigint {
  if (!existsSync(path)) {
    // 2^248 and more scalars are enough, and none of them is at or above the group's order.
    const drawn = randomBytes(SECRET_BYTES);
    drawn[0] = 0;
    try {
      writeFileDurably(path, `${wrap(drawn, wrapKey).toString('hex')}\n`, { mode: 0o600, exclusive: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error; // another process was first
    }
  }
  try {
    const secret = unwrap(Buffer.from(readFileSync(path, 'utf8').trim(), 'hex'), wrapKey);
    const value = BigInt(`0x${secret.toString('hex')}`);
    if (secret.length === SECRET_BYTES && secret[0] === 0 && value !== 0n) return value;
  } catch {
    // reported below, without what lies in the file
  }
  throw new MillraceError('beacon-key-broken', {
    actor: 'host',
    message: `${path} holds no key of a beacon`,
    values: { path },
    hint: 'Restore it, or move it away and declare a new beacon for the subnet.',
  });
}

function wrap(secret: Uint8Array, wrapKey: Uint8Array): Buffer {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', wrapKey, nonce);
  return Buffer.concat([nonce, cipher.update(secret), cipher.final(), cipher.getAuthTag()]);
}

function unwrap(wrapped: Buffer, wrapKey: Uint8Array): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', wrapKey, wrapped.subarray(0, NONCE_BYTES));
  decipher.setAuthTag(wrapped.subarray(-TAG_BYTES));
  return Buffer.concat([decipher.update(wrapped.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
}
