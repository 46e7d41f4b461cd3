import { isIPv4, isIPv6 } from 'node:net';
import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { SignedAnnouncement } from './announcement.ts';

/** How many strangers a book holds. The defaults suit a node on the open internet. */
export interface BookLimits {
  holders: number;
  /** Holders of one network prefix (/24 of IPv4, /48 of IPv6, one host name). */
  holdersPerPrefix: number;
  /** Records of one answer. */
  answer: number;
  /** Endpoints that are being tried at once; more announcements are refused until one is done. */
  probes: number;
}

/** Limits of a node on the open internet. */
export const BOOK_LIMITS: BookLimits = { holders: 4096, holdersPerPrefix: 32, answer: 100, probes: 8 };

/** Announcements of others, as far as their endpoints were proven to be theirs. */
export interface AnnouncementBook {
  /**
   * Takes an announcement after its endpoint showed the transport key and gave an announcement of the same holder.
   * @throws announcement-stale, announcements-full, endpoint-not-proven
   */
  take(signed: SignedAnnouncement): Promise<void>;
  /** Holders that announced a CID, drawn so that no network prefix comes a second time before every other came once. */
  find(cid: string, now: bigint): SignedAnnouncement[];
  all(now: bigint): SignedAnnouncement[];
}

/** What shows that an endpoint belongs to a holder: throws, or gives the holder's address as the endpoint itself states it. */
export type EndpointProbe = (signed: SignedAnnouncement) => Promise<Hex>;

/**
 * A book of announcements that a flood cannot fill: an endpoint has one holder, a network prefix has few, and when the book is
 * full the most numerous prefix gives way. Keys cost nothing, addresses do, so addresses are what is counted.
 */
export function createAnnouncementBook(options: {
  probe: EndpointProbe;
  limits?: Partial<BookLimits>;
  /** In [0, 1); a test may fix it. */
  random?: () => number;
}): AnnouncementBook {
  const limits = { ...BOOK_LIMITS, ...options.limits };
  const random = options.random ?? Math.random;
  const holders = new Map<Hex, SignedAnnouncement>();
  let probing = 0;
  const prefixCounts = () => countBy([...holders.values()], ({ announcement }) => prefixOf(announcement.endpoint));

  const makeRoom = (signed: SignedAnnouncement, now: bigint): void => {
    for (const [holder, known] of holders) if (known.announcement.expiry <= now) holders.delete(holder);
    const prefix = prefixOf(signed.announcement.endpoint);
    const counts = prefixCounts();
    if ((counts.get(prefix) ?? 0) >= limits.holdersPerPrefix) throw full(limits.holdersPerPrefix, prefix);
    if (holders.size < limits.holders) return;
    const [crowded, most] = [...counts].reduce((left, right) => (right[1] > left[1] ? right : left));
    if (most <= (counts.get(prefix) ?? 0) + 1) throw full(limits.holders, prefix);
    for (const [holder, known] of holders) {
      if (prefixOf(known.announcement.endpoint) === crowded) return void holders.delete(holder);
    }
  };

  return {
    async take(signed) {
      const { announcement } = signed;
      const key = announcement.holder.toLowerCase() as Hex;
      const known = holders.get(key);
      if (known !== undefined && known.announcement.sequence >= announcement.sequence) {
        if (known.signature === signed.signature) return;
        throw stale(announcement.sequence, known.announcement.sequence);
      }
      const isProven =
        known?.announcement.endpoint === announcement.endpoint && known.announcement.transportKey === announcement.transportKey;
      if (!isProven) {
        if (known === undefined) makeRoom(signed, announcement.issuedAt);
        if (probing >= limits.probes) throw full(limits.probes, 'endpoints being tried');
        probing += 1;
        const stated = await options.probe(signed).finally(() => {
          probing -= 1;
        });
        if (stated.toLowerCase() !== key) throw notProven(announcement.endpoint, stated, announcement.holder);
        // Time has passed: whoever came meanwhile has taken room.
        if (!holders.has(key)) makeRoom(signed, announcement.issuedAt);
      }
      for (const [holder, other] of holders) {
        if (holder !== key && other.announcement.endpoint === announcement.endpoint) holders.delete(holder);
      }
      const latest = holders.get(key);
      if (latest === undefined || latest.announcement.sequence < announcement.sequence) holders.set(key, signed);
    },
    find(cid, now) {
      const matching = [...holders.values()].filter(({ announcement }) => announcement.expiry > now && announcement.cids.includes(cid));
      return spread(matching, random).slice(0, limits.answer);
    },
    all: (now) => [...holders.values()].filter(({ announcement }) => announcement.expiry > now),
  };
}

/** The part of an address that costs money to have many of: /24 of IPv4, /48 of IPv6, else the host name's last two labels. */
export function prefixOf(endpoint: string): string {
  const host = new URL(endpoint).hostname.replace(/^\[|\]$/g, '');
  if (isIPv4(host)) return host.split('.').slice(0, 3).join('.');
  if (isIPv6(host)) return host.split(':').slice(0, 3).join(':');
  return host.split('.').slice(-2).join('.');
}

/** In random order, but every prefix once before any comes twice. */
function spread(records: SignedAnnouncement[], random: () => number): SignedAnnouncement[] {
  const seen = new Map<string, number>();
  return records
    .map((record) => ({ record, draw: random() }))
    .sort((left, right) => left.draw - right.draw)
    .map(({ record, draw }) => {
      const prefix = prefixOf(record.announcement.endpoint);
      const round = seen.get(prefix) ?? 0;
      seen.set(prefix, round + 1);
      return { record, draw, round };
    })
    .sort((left, right) => left.round - right.round || left.draw - right.draw)
    .map(({ record }) => record);
}

function countBy<Item>(items: Item[], keyOf: (item: Item) => string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(keyOf(item), (counts.get(keyOf(item)) ?? 0) + 1);
  return counts;
}

function stale(got: bigint, known: bigint): MillraceError {
  return new MillraceError('announcement-stale', {
    actor: 'caller',
    message: `Got sequence ${got}, an announcement with sequence ${known} is known`,
    values: { got, known },
  });
}

function full(limit: number, what: string): MillraceError {
  return new MillraceError('announcements-full', {
    actor: 'peer',
    message: `No more than ${limit} announcements are held for ${what}`,
    values: { limit, what },
    hint: 'Announce at another node, or later.',
  });
}

function notProven(endpoint: string, got: string, expected: string): MillraceError {
  return new MillraceError('endpoint-not-proven', {
    actor: 'caller',
    message: `${endpoint} states the holder ${got}, the announcement ${expected}`,
    values: { endpoint, got, expected },
    hint: 'A node announces its own endpoint only.',
  });
}
