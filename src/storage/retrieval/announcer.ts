import { existsSync, readFileSync } from 'node:fs';
import type { Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { systemClock } from '../../clock.ts';
import { writeFileDurably } from '../../durable-file.ts';
import type { Logger } from '../../log.ts';
import { DAG_PB, parseCid } from '../content/block.ts';
import { listOperators, storageDomainOf } from '../market/chain-view.ts';
import { ANNOUNCEMENT_LIMITS, announcementToJson, PROTOCOL, type SignedAnnouncement, signAnnouncement } from './announcement.ts';
import type { BlockCache } from './block-cache.ts';
import { askPeer, sample } from './holdings.ts';

const ANNOUNCED_TO = 8;
const CHECK_MS = 5_000;

/** What an announcer stands on. */
export interface AnnouncerOptions {
  client: ChainClient;
  signer: Signer;
  transportKey: Hex;
  /** Where others reach it; undefined as long as nobody can. */
  endpoint: () => Promise<string | undefined>;
  cache: BlockCache;
  policy: { pricePerGib: bigint; chunkBytes: number; announceSeconds: number };
  /** Where it keeps what it was asked for by name. */
  rootsPath: string;
  isSelling: () => boolean;
  log: Logger;
}

/** Tells others what a retriever holds and asks for it. */
export interface Announcer {
  /** A valid announcement; undefined while nothing is sold or nobody can reach it. */
  current(): Promise<SignedAnnouncement | undefined>;
  /** Tells others now. Gives how many took it. */
  announce(): Promise<number>;
  /** Notes a path that was asked for: what was named is announced. */
  note(pathname: string): void;
  holdings(): number;
  stop(): Promise<void>;
}

/** Starts to announce: at once, when there is more to announce, and at half of each announcement's life. */
export function startAnnouncer(options: AnnouncerOptions): Announcer {
  const { client, signer, cache, policy, rootsPath, isSelling, log } = options;
  const domain = storageDomainOf(client);
  const roots = readRoots(rootsPath);
  let own: SignedAnnouncement | undefined;
  const renew = async (): Promise<SignedAnnouncement | undefined> => {
    const endpoint = await options.endpoint();
    if (endpoint === undefined || !isSelling()) return undefined;
    const now = await client.now();
    const cids = [...roots.keys()].filter((cid) => cache.has(parseCid(cid))).slice(-ANNOUNCEMENT_LIMITS.cids);
    own = await signAnnouncement(domain, signer, {
      sequence: BigInt(Date.now()),
      issuedAt: now,
      expiry: now + BigInt(policy.announceSeconds),
      endpoint,
      transportKey: options.transportKey,
      pricePerGib: policy.pricePerGib,
      chunkBytes: BigInt(policy.chunkBytes),
      cids,
    });
    return own;
  };
  const current = async (): Promise<SignedAnnouncement | undefined> => {
    const isFresh = own !== undefined && own.announcement.expiry > (await client.now()) + BigInt(policy.announceSeconds) / 4n;
    return isFresh ? own : renew();
  };
  const announce = async (): Promise<number> => {
    const signed = await renew();
    if (signed === undefined) return 0;
    const body = JSON.stringify({ Providers: [{ Schema: 'peer', [PROTOCOL]: announcementToJson(signed) }] });
    const others = (await listOperators(client)).filter(({ endpoint }) => endpoint !== signed.announcement.endpoint);
    const sent = sample(others, ANNOUNCED_TO).map((peer) => askPeer(peer, '/routing/v1/providers', { method: 'PUT', body }));
    return (await Promise.allSettled(sent)).filter((result) => result.status === 'fulfilled' && result.value !== undefined).length;
  };

  const stopping = new AbortController();
  const announcing = (async () => {
    let announcedAt = 0n;
    let announcedRoots = -1;
    while (!stopping.signal.aborted) {
      try {
        const now = await client.now();
        const isDue = now >= announcedAt + BigInt(policy.announceSeconds) / 2n || roots.size !== announcedRoots;
        if (isDue && isSelling()) {
          if (roots.size !== announcedRoots) writeFileDurably(rootsPath, `${JSON.stringify([...roots.keys()])}\n`);
          [announcedAt, announcedRoots] = [now, roots.size];
          log.debug('announced', { peers: await announce(), holdings: roots.size });
        }
      } catch (error) {
        log.warn('announce-failed', { reason: (error as Error).message });
      }
      await systemClock.sleep(CHECK_MS, stopping.signal).catch(() => {});
    }
  })();

  return {
    current,
    announce,
    note: (pathname) => noteRoot(roots, pathname),
    holdings: () => roots.size,
    async stop() {
      stopping.abort();
      await announcing;
    },
  };
}

/** What was asked for by name before the last stop. A file that cannot be read only means that others must ask again. */
function readRoots(path: string): Map<string, true> {
  try {
    const known = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as string[]) : [];
    return new Map(known.slice(-ANNOUNCEMENT_LIMITS.cids).map((cid) => [parseCid(cid).toString(), true]));
  } catch {
    return new Map();
  }
}

/** Remembers what was asked for by name: the likeliest root of what else is in the cache. */
function noteRoot(roots: Map<string, true>, pathname: string): void {
  const text = pathname.split('/')[2] ?? '';
  try {
    const cid = parseCid(text);
    if (cid.code !== DAG_PB && roots.size >= ANNOUNCEMENT_LIMITS.cids / 2) return; // leaves are found through their roots
    roots.delete(cid.toString());
    roots.set(cid.toString(), true);
    if (roots.size > ANNOUNCEMENT_LIMITS.cids) roots.delete(roots.keys().next().value as string);
  } catch {
    // not a CID: the gateway has said so
  }
}
