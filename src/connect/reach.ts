import { existsSync, readFileSync } from 'node:fs';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError, toMillraceError } from '../errors.ts';
import { type PeerAddress, peerFetch } from './peer-fetch.ts';
import { afterFault, afterProbe, choosePublished, NEW_RELAY, type RelayRecord, rankRelays } from './relay-choice.ts';
import { announcementDigest, announcementFrom, readRelayJson } from './relay-messages.ts';
import { relayBehind } from './relay-name.ts';
import { askRelay, openTunnel, type RelayPeer, type Tunnel, type TunnelOptions } from './tunnel.ts';

/** An operator that may be a relay, as the chain knows it. */
export interface RelayCandidate extends PeerAddress {
  operatorId: bigint;
  nodeKey: string;
}

/** What a node needs to be reached by others. */
export interface ReachOptions extends Omit<TunnelOptions, 'relay'> {
  /** `auto`: directly when others get through to `directEndpoint`, else by any relay. Or by these relays only. */
  mode: 'auto' | readonly bigint[];
  /** Where the node is reached when its port is open; undefined when it has none. */
  directEndpoint: string | undefined;
  /** Operators that may relay, in any order. */
  candidates(): Promise<readonly RelayCandidate[]>;
  /** The node's endpoint on chain now. */
  published(): Promise<string>;
  /** Writes it on chain. */
  publish(endpoint: string): Promise<void>;
  recover: (digest: `0x${string}`, signature: `0x${string}`) => string;
  pricePerGibMax: bigint;
  /** File in which relays are remembered. */
  recordsPath: string;
  tunnelsWanted?: number;
  tickMs?: number;
  probeMs?: number;
}

/** How a node is reached now. */
export interface ReachStatus {
  via: 'direct' | 'relay' | 'none';
  endpoint: string;
  tunnels: {
    relay: bigint;
    endpoint: string;
    isPublished: boolean;
    latencyMs: number | undefined;
    streams: number;
    bytesCarried: bigint;
  }[];
  /** Relays that failed this node, for what, and until when they are not used again. */
  remembered: { relay: bigint; reason: string; until: string; isAvoided: boolean }[];
}

/** Keeps a node reachable until it is stopped. */
export interface Reach {
  status(): ReachStatus;
  stop(): Promise<void>;
}

interface KeptTunnel {
  tunnel: Tunnel;
  probedAt: number;
  misses: number;
}

const TUNNELS_WANTED = 2;
const TICK_MS = 2000;
const PROBE_MS = 20_000;
const PROBE_TIMEOUT_MS = 5000;
const MISSES_MAX = 2;
const ASKED_AT_ONCE = 8;
const ASKED_MAX = 64;
const DIRECT_CHECK_MS = 600_000;
const WITNESSES_MAX = 3;
/** One witness alone is not believed: it may be a relay that wants the custom. */
const WITNESSES_MIN = 2;

/** Keeps a node without an inbound port reachable: finds relays, holds tunnels at two of them, tests each from outside, and publishes the best. */
export function keepReachable(options: ReachOptions): Reach {
  return new ReachKeeper(options);
}

class ReachKeeper implements Reach {
  readonly #options: ReachOptions;
  readonly #records: Map<bigint, RelayRecord>;
  readonly #tunnels: KeptTunnel[] = [];
  readonly #over = new AbortController();
  readonly #loop: Promise<void>;
  #relays: RelayPeer[] = [];
  #published = '';
  #isDirect = false;
  #directCheckedAt = Number.NEGATIVE_INFINITY;
  #wake = () => {};

  constructor(options: ReachOptions) {
    this.#options = options;
    this.#records = readRecords(options.recordsPath);
    this.#loop = this.#run();
  }

  status(): ReachStatus {
    const now = Date.now();
    const isRelay = this.#tunnels.some(({ tunnel }) => tunnel.endpoint === this.#published);
    return {
      via: this.#isDirect ? 'direct' : isRelay ? 'relay' : 'none',
      endpoint: this.#published,
      tunnels: this.#tunnels.map(({ tunnel }) => ({
        relay: tunnel.relay.operatorId,
        endpoint: tunnel.endpoint,
        isPublished: tunnel.endpoint === this.#published,
        latencyMs: this.#record(tunnel.relay.operatorId).latencyMs,
        streams: tunnel.streams(),
        bytesCarried: tunnel.bytesCarried(),
      })),
      remembered: [...this.#records]
        .filter(([, { faults }]) => faults > 0)
        .map(([relay, { reason, avoidUntil }]) => ({
          relay,
          reason,
          until: new Date(avoidUntil).toISOString(),
          isAvoided: avoidUntil > now,
        })),
    };
  }

  async stop(): Promise<void> {
    this.#over.abort();
    this.#wake();
    for (const { tunnel } of this.#tunnels) tunnel.close('node stops');
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { log, tickMs = TICK_MS } = this.#options;
    while (!this.#over.signal.aborted) {
      try {
        await this.#tick();
      } catch (error) {
        log.warn('reach-failed', { code: toMillraceError(error).code, message: toMillraceError(error).message });
      }
      if (this.#over.signal.aborted) break;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, tickMs * (0.75 + Math.random() / 2));
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    for (const { tunnel } of this.#tunnels) tunnel.close('node stops');
  }

  /** One round: is it reached directly, are there tunnels enough, do they work, is the best published. */
  async #tick(): Promise<void> {
    const { tunnelsWanted = TUNNELS_WANTED } = this.#options;
    this.#published = await this.#options.published();
    if (await this.#checkDirect()) return this.#publish(this.#options.directEndpoint as string);
    if (this.#tunnels.length < tunnelsWanted) await this.#openTunnels(tunnelsWanted);
    await Promise.all([...this.#tunnels].map((kept) => this.#probe(kept)));
    if (this.#over.signal.aborted) return;
    const known = this.#tunnels.map(({ tunnel }) => ({
      endpoint: tunnel.endpoint,
      latencyMs: this.#record(tunnel.relay.operatorId).latencyMs,
    }));
    const chosen = choosePublished(known, this.#published);
    if (chosen !== undefined) await this.#publish(chosen.endpoint);
  }

  async #publish(endpoint: string): Promise<void> {
    if (endpoint === this.#published) return;
    await this.#options.publish(endpoint);
    this.#options.log.info('endpoint-published', { endpoint, before: this.#published });
    this.#published = endpoint;
  }

  /** Whether others get through without a relay: asked at the start and every ten minutes; nobody to ask changes nothing. */
  async #checkDirect(): Promise<boolean> {
    const { mode, directEndpoint } = this.#options;
    if (mode !== 'auto' || directEndpoint === undefined) return false;
    if (performance.now() - this.#directCheckedAt < DIRECT_CHECK_MS) return this.#isDirect;
    const relays = await this.#findRelays();
    const answers = await this.#askWitnesses(relays, directEndpoint);
    if (answers.length === 0) return this.#published === directEndpoint;
    this.#directCheckedAt = performance.now();
    this.#isDirect = answers.includes(true);
    this.#options.log.info('directly-reached', { endpoint: directEndpoint, isReached: this.#isDirect, witnesses: answers.length });
    if (this.#isDirect) for (const { tunnel } of this.#tunnels.splice(0)) tunnel.close('reached directly');
    return this.#isDirect;
  }

  async #openTunnels(wanted: number): Promise<void> {
    const { mode, pricePerGibMax } = this.#options;
    const relays = await this.#findRelays();
    const allowed = mode === 'auto' ? relays : relays.filter(({ operatorId }) => mode.includes(operatorId));
    const open = new Set(this.#tunnels.map(({ tunnel }) => tunnel.relay.operatorId));
    const ranked = rankRelays(allowed, { records: this.#records, now: Date.now(), pricePerGibMax }).filter(
      ({ operatorId }) => !open.has(operatorId),
    );
    for (const relay of ranked) {
      if (this.#tunnels.length >= wanted || this.#over.signal.aborted) return;
      await this.#open(relay);
    }
  }

  async #open(relay: RelayPeer): Promise<void> {
    try {
      const tunnel = await openTunnel({ ...this.#options, relay });
      this.#options.log.info('relay-tunnel-opened', { relay: relay.operatorId, endpoint: tunnel.endpoint });
      const kept = { tunnel, probedAt: Number.NEGATIVE_INFINITY, misses: 0 };
      this.#tunnels.push(kept);
      void tunnel.closed.then((reason) => {
        const at = this.#tunnels.indexOf(kept);
        if (at === -1 || this.#over.signal.aborted) return;
        this.#tunnels.splice(at, 1);
        this.#fault(relay.operatorId, reason);
        this.#wake();
      });
    } catch (error) {
      this.#fault(relay.operatorId, toMillraceError(error).code);
    }
  }

  /** Connects to the node's own address at the relay from outside, as any peer would. */
  async #probe(kept: KeptTunnel): Promise<void> {
    const { transportKey, probeMs = PROBE_MS } = this.#options;
    const { tunnel } = kept;
    const relay = tunnel.relay.operatorId;
    const now = performance.now();
    if (now - kept.probedAt < probeMs) return;
    kept.probedAt = now;
    try {
      await probeEndpoint({ endpoint: tunnel.endpoint, transportKey }, this.#over.signal);
      kept.misses = 0;
      this.#records.set(relay, afterProbe(this.#record(relay), performance.now() - now));
      const answers = await this.#askWitnesses(
        this.#relays.filter(({ operatorId }) => operatorId !== relay),
        tunnel.endpoint,
      );
      if (answers.length >= WITNESSES_MIN && !answers.includes(true)) tunnel.close('witnesses-not-let-through');
    } catch (error) {
      const { code } = toMillraceError(error);
      kept.misses += 1;
      if (code === 'peer-key-mismatch' || kept.misses >= MISSES_MAX) tunnel.close(code);
      else kept.probedAt = Number.NEGATIVE_INFINITY;
    }
  }

  /** What other relays say: whether they get through to an endpoint of this node. Those that do not answer are left out. */
  async #askWitnesses(relays: readonly RelayPeer[], endpoint: string): Promise<boolean[]> {
    const asked = [...relays].sort(() => Math.random() - 0.5).slice(0, WITNESSES_MAX);
    const answers = await Promise.allSettled(
      asked.map((relay) => askRelay({ ...this.#options, relay }, 'probe', { 'millrace-endpoint': endpoint })),
    );
    return answers.flatMap((answer) => {
      const isReached = answer.status === 'fulfilled' ? (answer.value as { isReached?: unknown } | null)?.isReached : undefined;
      return typeof isReached === 'boolean' ? [isReached] : [];
    });
  }

  /** Asks operators whether they relay; those remembered as good and a random part of the others. */
  async #findRelays(): Promise<RelayPeer[]> {
    const { candidates, operatorId } = this.#options;
    const others = (await candidates()).filter(
      (candidate) => candidate.operatorId !== operatorId && relayBehind(candidate.endpoint) === undefined,
    );
    const rank = new Map(others.map(({ operatorId: id }) => [id, (this.#records.has(id) ? 0 : 1) + Math.random()]));
    const asked = [...others]
      .sort((left, right) => (rank.get(left.operatorId) ?? 0) - (rank.get(right.operatorId) ?? 0))
      .slice(0, ASKED_MAX);
    const found: RelayPeer[] = [];
    for (let index = 0; index < asked.length && !this.#over.signal.aborted; index += ASKED_AT_ONCE) {
      const answers = await Promise.allSettled(asked.slice(index, index + ASKED_AT_ONCE).map((candidate) => this.#askTerms(candidate)));
      for (const answer of answers) if (answer.status === 'fulfilled') found.push(answer.value);
    }
    this.#relays = found;
    return found;
  }

  async #askTerms(candidate: RelayCandidate): Promise<RelayPeer> {
    const { network, recover } = this.#options;
    const signal = AbortSignal.any([this.#over.signal, AbortSignal.timeout(PROBE_TIMEOUT_MS)]);
    const response = await peerFetch(candidate, '/v1/relay', { signal });
    const announcement = announcementFrom(await readRelayJson(response.body as ReadableStream<Uint8Array> | null));
    const { signature, ...plain } = announcement;
    const isOwn = recover(announcementDigest(network, plain), signature).toLowerCase() === candidate.nodeKey.toLowerCase();
    if (isOwn && announcement.operatorId === candidate.operatorId && announcement.expiry >= Date.now() / 1000 - 60) {
      return { ...candidate, announcement };
    }
    throw new MillraceError('relay-answer-bad', {
      actor: 'peer',
      message: `Operator ${candidate.operatorId} shows an announcement that it did not sign or that is old`,
      values: { relay: candidate.operatorId },
    });
  }

  #record(relay: bigint): RelayRecord {
    return this.#records.get(relay) ?? NEW_RELAY;
  }

  #fault(relay: bigint, reason: string): void {
    const record = afterFault(this.#record(relay), { reason, now: Date.now(), random: Math.random() });
    this.#records.set(relay, record);
    this.#options.log.warn('relay-fault', { relay, reason, avoidSeconds: Math.round((record.avoidUntil - Date.now()) / 1000) });
    writeRecords(this.#options.recordsPath, this.#records);
  }
}

async function probeEndpoint(peer: PeerAddress, over: AbortSignal): Promise<void> {
  const limits = { headersTimeoutMs: PROBE_TIMEOUT_MS, idleTimeoutMs: PROBE_TIMEOUT_MS };
  const response = await peerFetch(peer, '/healthz', { headers: { connection: 'close' }, signal: over, ...limits });
  await response.body?.cancel();
}

function readRecords(path: string): Map<bigint, RelayRecord> {
  if (!existsSync(path)) return new Map();
  try {
    const items = JSON.parse(readFileSync(path, 'utf8')) as [string, RelayRecord][];
    return new Map(items.map(([relay, record]) => [BigInt(relay), { ...NEW_RELAY, ...record }]));
  } catch {
    // What was remembered of relays is advice, nothing depends on it.
    return new Map();
  }
}

function writeRecords(path: string, records: ReadonlyMap<bigint, RelayRecord>): void {
  writeFileDurably(path, JSON.stringify([...records].map(([relay, record]) => [relay.toString(), record])));
}
