import { hkdfSync } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { toHex } from 'viem';
import { developmentSigner } from '../chain/index.ts';
import type { LocalBeacon } from '../inference/index.ts';

/** A development account of its own: 0 to 4 are faucet, client, founder and sink. */
const KEY_INDEX = 5;
const PERIOD_SECONDS = 3;
const URL_CHARACTERS_MAX = 128;

/** Where the beacon of a development network keeps its key, and says where it is reached. */
export function beaconFolder(networkRoot: string): string {
  return join(networkRoot, 'beacon');
}

/**
 * The beacon of a development network, one for all its subnets. Its key is drawn once and lies encrypted under one that is derived from a development
 * key: everybody has that, so what keeps it is the folder's mode, and whoever runs the network can read weights early. The label says it.
 * @throws development-key-refused for other profiles than `dev`, beacon-key-broken
 */
export async function openNetworkBeacon(options: { networkRoot: string; profile: string; now(): Promise<bigint> }): Promise<LocalBeacon> {
  const { networkRoot, profile, now } = options;
  const { openLocalBeacon } = await import('../inference/index.ts');
  const signature = await developmentSigner(KEY_INDEX, profile).signDigest(toHex('Millrace local beacon', { size: 32 }));
  const wrapKey = new Uint8Array(hkdfSync('sha256', Buffer.from(signature.slice(2), 'hex'), '', 'Millrace local beacon key', 32));
  return openLocalBeacon({ folder: beaconFolder(networkRoot), wrapKey, genesis: 0n, periodSeconds: PERIOD_SECONDS, now });
}

/** File in which the beacon's process says where it is reached: read anew each time, since its port may change when it is started again. */
export function beaconUrlPath(networkRoot: string): string {
  return join(beaconFolder(networkRoot), 'url');
}

/** Where the network's own beacon is reached on this machine; none where it has none. */
export function localPulseUrls(networkRoot: string): string[] {
  const path = beaconUrlPath(networkRoot);
  if (!existsSync(path)) return [];
  const url = readFileSync(path, 'utf8').trim();
  return url.length <= URL_CHARACTERS_MAX && URL.canParse(url) ? [url] : [];
}
