import type http from 'node:http';
import type { ReceiptDomain } from '../../chain/index.ts';
import { peerFetch, pinnedAgent } from '../../connect/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { type OfferedModel, readAll, readOffer, type SignedOffer, sendHttp, type TaskType } from '../../inference/index.ts';
import type { Logger } from '../../log.ts';
import type { Payer } from '../../token/index.ts';
import { createMinerHealth, type MinerHealth } from './miner-health.ts';
import { createMinerPurse, type MinerPurse } from './miner-purse.ts';
import { createMinerTrust, type MinerTrust } from './miner-trust.ts';

/** A miner as the network knows it. */
export interface MinerEntry {
  uid: number;
  operatorId: bigint;
  /** `https://host:port`; plain `http:` only without a transport key. */
  endpoint: string;
  /** SHA-256 of the key that it shows over TLS; empty for a plain endpoint of this machine. */
  transportKey: string;
  /** By consensus, 0 to 1. */
  rank: number;
  /** The key that signs its offer and receipts, where the chain knows it. */
  miner?: string;
}

/** A miner whose offer was read. */
export interface KnownMiner {
  key: string;
  names: readonly string[];
  entry: MinerEntry;
  signed: SignedOffer;
  agent: http.Agent | undefined;
  purse: MinerPurse | undefined;
  health(model: string): MinerHealth;
}

/** The miners that a gateway may send requests to. */
export interface MinerDirectory {
  /** Those that serve a model (any of the task where the name is empty), with its line in their offers. */
  serving(model: string, task: TaskType): { miner: KnownMiner; model: OfferedModel }[];
  all(): Iterable<KnownMiner>;
  /** Looks for miners and their offers now. */
  refresh(): Promise<void>;
  stop(): Promise<void>;
}

/** How a directory works. */
export interface DirectoryOptions {
  miners: () => Promise<readonly MinerEntry[]>;
  domain: ReceiptDomain;
  /** Pays miners; without it only those that cost nothing are used. */
  payer?: Payer;
  /** Prices in other tokens are left out. */
  token?: string;
  /** The most that is paid ahead to one miner, base units. */
  tabMax: bigint;
  /** Protocol time, seconds. */
  now: () => bigint | Promise<bigint>;
  refreshMs: number;
  /** Connections to one miner. */
  socketsMax: number;
  log: Logger;
}

const OFFER_MS = 5_000;
/** To get a tab, the last byte of the answer included. */
const TAB_MS = 4 * OFFER_MS;
const OFFER_BYTES_MAX = 1 << 20;
const AT_ONCE = 16;

/** Opens a directory: who there is comes from the chain (`miners`), what each serves from itself, signed. */
export async function openMinerDirectory(options: DirectoryOptions): Promise<MinerDirectory> {
  const directory = new Directory(options);
  await directory.refresh();
  return directory;
}

class Directory implements MinerDirectory {
  readonly #options: DirectoryOptions;
  readonly #known = new Map<string, KnownMiner>();
  /** By operator, also of those that are gone: who comes back under another address has the trust that is left. */
  readonly #trust = new Map<bigint, MinerTrust>();
  readonly #timer: NodeJS.Timeout;
  #byModel = new Map<string, { miner: KnownMiner; model: OfferedModel }[]>();
  #refreshing: Promise<void> | undefined;

  constructor(options: DirectoryOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.refresh(), options.refreshMs);
    this.#timer.unref();
  }

  serving(model: string, task: TaskType): { miner: KnownMiner; model: OfferedModel }[] {
    return this.#byModel.get(model === '' ? `task ${task}` : model)?.filter((one) => one.model.task === task) ?? [];
  }

  all(): Iterable<KnownMiner> {
    return this.#known.values();
  }

  refresh(): Promise<void> {
    this.#refreshing ??= this.#look()
      .catch((error) => this.#options.log.warn('miners-not-read', { reason: toMillraceError(error).message }))
      .finally(() => {
        this.#refreshing = undefined;
      });
    return this.#refreshing;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#refreshing;
    for (const miner of this.#known.values()) await this.#forget(miner);
  }

  async #look(): Promise<void> {
    const entries = await this.#options.miners();
    const now = BigInt(await this.#options.now());
    const seen = new Set<string>();
    for (let from = 0; from < entries.length; from += AT_ONCE) {
      await Promise.all(entries.slice(from, from + AT_ONCE).map((entry) => this.#lookAt(entry, now, seen)));
    }
    for (const [key, miner] of this.#known) {
      if (seen.has(key) && miner.signed.offer.expiry > now) continue;
      this.#known.delete(key);
      await this.#forget(miner);
    }
    this.#byModel = indexByModel(this.#known.values());
  }

  async #lookAt(entry: MinerEntry, now: bigint, seen: Set<string>): Promise<void> {
    const key = `${entry.operatorId}|${entry.endpoint}|${entry.transportKey.toLowerCase()}`;
    seen.add(key);
    const known = this.#known.get(key);
    try {
      checkEndpoint(entry);
      const agent = known?.agent ?? agentOf(entry, this.#options.socketsMax);
      const url = new URL('/v1/inference/offer', entry.endpoint);
      const signal = AbortSignal.timeout(OFFER_MS);
      const answer = await sendHttp({
        url,
        method: 'GET',
        headers: {},
        agent,
        signal,
        headersTimeoutMs: OFFER_MS,
        idleTimeoutMs: OFFER_MS,
      });
      const signed = readOffer(this.#options.domain, (await readAll(answer, OFFER_BYTES_MAX)).toString('utf8'), now);
      this.#check(entry, signed);
      if (known !== undefined) Object.assign(known, { entry, signed });
      else this.#known.set(key, this.#meet(key, entry, signed, agent));
    } catch (error) {
      this.#options.log.info('offer-not-read', { uid: entry.uid, reason: toMillraceError(error).message });
    }
  }

  #check({ miner, operatorId }: MinerEntry, { offer }: SignedOffer): void {
    const { token } = this.#options;
    const isOther = miner !== undefined && miner.toLowerCase() !== offer.miner.toLowerCase();
    if (isOther || offer.operatorId !== operatorId) throw mismatch(`the offer is one of operator ${offer.operatorId}, key ${offer.miner}`);
    const isFree = offer.models.every((model) => model.inputPerMillion + model.outputPerMillion + model.perRequest === 0n);
    if (!isFree && token !== undefined && offer.token.toLowerCase() !== token.toLowerCase())
      throw mismatch(`its prices are in ${offer.token}`);
  }

  #meet(key: string, entry: MinerEntry, signed: SignedOffer, agent: http.Agent | undefined): KnownMiner {
    const { payer, tabMax } = this.#options;
    const health = new Map<string, MinerHealth>();
    const send = (path: string, init: RequestInit = {}) => reach(entry, path, init);
    return {
      key,
      names: [`operator-${entry.operatorId}`, String(entry.operatorId), `uid-${entry.uid}`],
      entry,
      signed,
      agent,
      purse: payer === undefined ? undefined : createMinerPurse({ payer, send, trust: this.#trustIn(entry.operatorId), max: tabMax }),
      health(model) {
        let known = health.get(model);
        if (known === undefined) {
          known = createMinerHealth();
          health.set(model, known);
        }
        return known;
      },
    };
  }

  #trustIn(operatorId: bigint): MinerTrust {
    const trust = this.#trust.get(operatorId) ?? createMinerTrust(this.#options.tabMax);
    this.#trust.set(operatorId, trust);
    return trust;
  }

  async #forget({ agent, purse }: KnownMiner): Promise<void> {
    await purse?.close();
    agent?.destroy();
  }
}

function indexByModel(miners: Iterable<KnownMiner>): Map<string, { miner: KnownMiner; model: OfferedModel }[]> {
  const index = new Map<string, { miner: KnownMiner; model: OfferedModel }[]>();
  for (const miner of miners) {
    for (const model of miner.signed.offer.models) {
      for (const name of [model.id, `task ${model.task}`]) index.set(name, [...(index.get(name) ?? []), { miner, model }]);
    }
  }
  return index;
}

/** What the chain names is asked by TLS alone: anything else would be a stranger's choice of a server, or questions in clear. */
function checkEndpoint({ endpoint, transportKey }: MinerEntry): void {
  if (transportKey === '' || endpoint.startsWith('https:')) return;
  throw new MillraceError('bad-endpoint', {
    actor: 'peer',
    message: `Got endpoint "${endpoint}", expected https://host:port`,
    values: { endpoint },
  });
}

function agentOf({ endpoint, transportKey }: MinerEntry, socketsMax: number): http.Agent | undefined {
  return endpoint.startsWith('https:') ? pinnedAgent({ endpoint, transportKey }, socketsMax) : undefined;
}

/** A request outside the hot path: tabs. @throws peer-unreachable, peer-timeout, peer-key-mismatch */
async function reach(entry: MinerEntry, path: string, init: RequestInit): Promise<Response> {
  const { endpoint, transportKey } = entry;
  const headers = Object.fromEntries(new Headers(init.headers));
  const signal = AbortSignal.timeout(TAB_MS);
  if (endpoint.startsWith('https:')) return peerFetch({ endpoint, transportKey }, path, { method: init.method, headers, body: '', signal });
  try {
    return await fetch(new URL(path, endpoint), { ...init, redirect: 'error', signal });
  } catch (cause) {
    throw new MillraceError('peer-unreachable', { actor: 'peer', message: `${endpoint} did not answer`, values: { endpoint }, cause });
  }
}

function mismatch(message: string): MillraceError {
  return new MillraceError('offer-mismatch', { actor: 'peer', message });
}
