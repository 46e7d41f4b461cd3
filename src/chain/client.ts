import {
  type Abi,
  type Address,
  type ContractEventArgsFromTopics,
  type ContractEventName,
  type ContractFunctionArgs,
  type ContractFunctionName,
  type ContractFunctionReturnType,
  createPublicClient,
  encodeEventTopics,
  type Hex,
  http,
  type PublicClient,
  toHex,
} from 'viem';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { readCodeHashes } from './code-hashes.ts';
import { abis, type ModuleName } from './contracts.generated.ts';
import { chainError } from './errors.ts';
import { createLogDecoder, type LogDecoder, type RawLog } from './event-decoder.ts';
import type { Manifest } from './manifest.ts';

/** The ABIs of all modules by name, as types. */
export type Abis = typeof abis;
/** Name of an event of a module. */
export type EventName<N extends ModuleName> = ContractEventName<Abis[N]>;
/** Name of a function of a module that changes nothing. */
export type ReadName<N extends ModuleName> = ContractFunctionName<Abis[N], 'view' | 'pure'>;
type ReadArgs<N extends ModuleName, F extends ReadName<N>> = ContractFunctionArgs<Abis[N], 'view' | 'pure', F>;
type ReadRest<Args> = Args extends readonly [] ? [args?: Args, options?: ReadOptions] : [args: Args, options?: ReadOptions];
/** At which block to read; the latest when absent. */
export interface ReadOptions {
  blockNumber?: bigint;
}

/** A decoded event and where it happened. */
export interface ChainEvent<N extends ModuleName = ModuleName, E extends EventName<N> = EventName<N>> {
  module: N;
  name: E;
  args: ContractEventArgsFromTopics<Abis[N], E>;
  address: Address;
  blockNumber: bigint;
  blockHash: Hex;
  transactionHash: Hex;
  logIndex: number;
}

/** Any event of any module; `module` and `name` tell which. */
export type AnyChainEvent = { [N in ModuleName]: { [E in EventName<N>]: ChainEvent<N, E> }[EventName<N>] }[ModuleName];

/** Which events to give: of one module, one event name, indexed arguments, and blocks (both ends included). */
export interface EventQuery<N extends ModuleName, E extends EventName<N>> {
  name: N;
  event: E;
  /** Values that indexed arguments must have. */
  args?: Record<string, unknown>;
  /** Default: the block of the module's deployment. */
  fromBlock?: bigint;
  /** Default: the latest block. */
  toBlock?: bigint;
}

/** A connection to the chain of one network, checked against its manifest. */
export interface ChainClient {
  readonly chainId: number;
  readonly rpcUrl: string;
  readonly manifest: Manifest;
  /** viem's client, for what is not here. */
  readonly public: PublicClient;
  /** @throws unknown-module */
  address(name: ModuleName): Address;
  /**
   * Calls a view function.
   * @throws the contract's error code, chain-unreachable
   */
  read<N extends ModuleName, F extends ReadName<N>>(
    name: N,
    functionName: F,
    ...rest: ReadRest<ReadArgs<N, F>>
  ): Promise<ContractFunctionReturnType<Abis[N], 'view' | 'pure', F>>;
  /** Events in chain order, fetched in ranges that shrink when the chain refuses. @throws too-many-events, chain-unreachable */
  events<N extends ModuleName, E extends EventName<N>>(query: EventQuery<N, E>): Promise<ChainEvent<N, E>[]>;
  /** Protocol time: the latest block's timestamp, seconds. */
  now(): Promise<bigint>;
  /** Resolves with the latest block's timestamp once it is at or after `time` (seconds). @throws wait-timed-out */
  waitForTime(time: bigint, options?: { signal?: AbortSignal; timeoutMs?: number }): Promise<bigint>;
  /**
   * Calls `onBlock` for the newest block whenever it is another one, one call after another, until the signal ends it. Blocks in between
   * may be skipped; a chain that does not answer is waited for.
   */
  watchBlocks(
    onBlock: (block: { number: bigint; timestamp: bigint; hash: Hex }) => Promise<void> | void,
    signal: AbortSignal,
  ): Promise<void>;
  /** Milliseconds between looks at the chain: 200 on this machine, elsewhere half the observed block interval within 0.5 to 6 s. */
  pollIntervalMs(): number;
}

const RPC_TIMEOUT_MS = 15_000;
/** For a chain on this machine; chains elsewhere may take no batches. */
const LOCAL_BATCH_MAX = 20;
const LOG_RANGE_BLOCKS = 10_000n;
const EVENTS_MAX = 200_000;

/**
 * Connects to a network's chain and checks that it is the network of the manifest: chain id, first block, code of every module.
 * @throws bad-rpc-url, chain-unreachable, chain-id-mismatch, wrong-network
 */
export async function connectChain(options: {
  rpcUrl: string;
  manifest: Manifest;
  clock?: Clock;
  timeoutMs?: number;
}): Promise<ChainClient> {
  const { rpcUrl, manifest, clock = systemClock } = options;
  const isLocal = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(URL.parse(rpcUrl)?.hostname ?? '');
  const publicClient = createChainTransport(rpcUrl, { timeoutMs: options.timeoutMs, batchMax: isLocal ? LOCAL_BATCH_MAX : 1 });
  await verifyManifest(publicClient, manifest);
  const pace = createPace(isLocal);
  const latest = async () => {
    const block = await publicClient
      .getBlock({ blockTag: 'latest' })
      .catch((error) => Promise.reject(chainError(error, 'Reading the latest block')));
    pace.observe(block.number, block.timestamp);
    return block;
  };
  const now = async () => (await latest()).timestamp;
  const address = (name: ModuleName): Address => {
    const entry = Object.hasOwn(manifest.modules, name) ? manifest.modules[name] : undefined;
    if (entry !== undefined) return entry.address;
    throw new MillraceError('unknown-module', {
      actor: 'caller',
      message: `The network ${manifest.name} has no module ${name}`,
      values: { module: name, network: manifest.name },
      hint: 'The network was deployed by another version of Millrace.',
    });
  };
  return {
    chainId: manifest.chainId,
    rpcUrl,
    manifest,
    public: publicClient,
    address,
    async read(name, functionName, ...rest) {
      const [args, at] = rest as unknown as [readonly unknown[] | undefined, ReadOptions | undefined];
      try {
        const request = {
          address: address(name),
          abi: abis[name] as unknown as Abi,
          functionName: functionName as string,
          args: args ?? [],
          ...at,
        };
        return (await publicClient.readContract(request)) as never;
      } catch (error) {
        throw chainError(error, `Reading ${name}.${String(functionName)}`);
      }
    },
    events: (query) => readEvents(publicClient, { manifest, address: address(query.name), query: query as never }) as never,
    now,
    async waitForTime(time, { signal, timeoutMs = 600_000 } = {}) {
      const deadlineMs = clock.nowMs() + timeoutMs;
      for (;;) {
        const timestamp = await now();
        if (timestamp >= time) return timestamp;
        if (clock.nowMs() >= deadlineMs) throw waitTimedOut(time, timestamp, timeoutMs);
        await clock.sleep(pace.intervalMs(), signal);
      }
    },
    async watchBlocks(onBlock, signal) {
      for (let seen: Hex | undefined; !signal.aborted; ) {
        const block = await latest().catch((error: MillraceError) => {
          if (error.code !== 'chain-unreachable') throw error;
        });
        if (block !== undefined && block.hash !== seen) {
          seen = block.hash;
          await onBlock({ number: block.number, timestamp: block.timestamp, hash: block.hash });
        }
        await clock.sleep(pace.intervalMs(), signal).catch(() => {});
      }
    },
    pollIntervalMs: () => pace.intervalMs(),
  };
}

/**
 * A bare JSON-RPC connection, not yet checked against any manifest. Up to `batchMax` questions that are asked at once go as one request.
 * @throws bad-rpc-url
 */
export function createChainTransport(
  rpcUrl: string,
  { timeoutMs = RPC_TIMEOUT_MS, batchMax = 1 }: { timeoutMs?: number; batchMax?: number } = {},
): PublicClient {
  const protocol = URL.canParse(rpcUrl) ? new URL(rpcUrl).protocol : '';
  if (protocol !== 'http:' && protocol !== 'https:') {
    throw new MillraceError('bad-rpc-url', {
      actor: 'caller',
      message: `Got RPC address "${rpcUrl.slice(0, 100)}", expected http://… or https://…`,
      values: { rpcUrl: rpcUrl.slice(0, 100) },
    });
  }
  const batch = batchMax > 1 && { batchSize: batchMax, wait: 0 };
  return createPublicClient({ transport: http(rpcUrl, { timeout: timeoutMs, retryCount: 2, retryDelay: 100, batch }) });
}

/**
 * Checks that a chain is the one of the manifest and that each module's code is the code that was deployed.
 * @throws chain-unreachable, chain-id-mismatch, wrong-network
 */
export async function verifyManifest(client: PublicClient, manifest: Manifest): Promise<void> {
  const doing = 'Checking the network manifest against the chain';
  const chainId = await client.getChainId().catch((error) => Promise.reject(chainError(error, doing)));
  if (chainId !== manifest.chainId) {
    throw new MillraceError('chain-id-mismatch', {
      actor: 'caller',
      message: `The chain has id ${chainId}, but network ${manifest.name} is on chain ${manifest.chainId}`,
      values: { got: chainId, expected: manifest.chainId, network: manifest.name },
      hint: 'Set MILLRACE_RPC_URL to a node of the right chain, or use the network.json of this one.',
    });
  }
  try {
    const first = await client.request({ method: 'eth_getBlockByNumber', params: ['0x0', false] });
    if (first?.hash !== manifest.genesisHash) throw wrongNetwork(manifest, 'the first block', first?.hash ?? 'none', manifest.genesisHash);
    const modules = Object.entries(manifest.modules);
    const hashes = await readCodeHashes(
      client,
      modules.map(([, { address }]) => address),
    );
    for (const [index, [name, entry]] of modules.entries()) {
      const got = hashes[index] ?? 'no code';
      if (got !== entry.codeHash) throw wrongNetwork(manifest, `the code of ${name}`, got, entry.codeHash);
    }
  } catch (error) {
    throw chainError(error, doing);
  }
}

/** Milliseconds between looks at the chain, learnt from the blocks seen. */
function createPace(local: boolean): { observe(number: bigint | null, timestamp: bigint): void; intervalMs(): number } {
  let first: { number: bigint; timestamp: bigint } | undefined;
  let intervalMs = local ? 200 : 2000;
  return {
    observe(number, timestamp) {
      if (local || number === null) return;
      first ??= { number, timestamp };
      if (number <= first.number) return;
      const blockMs = (1000 * Number(timestamp - first.timestamp)) / Number(number - first.number);
      intervalMs = Math.min(6000, Math.max(500, blockMs / 2));
      if (number > first.number + 64n) first = { number, timestamp };
    },
    intervalMs: () => intervalMs,
  };
}

const decoders = new Map<ModuleName, LogDecoder>();

/** The event decoder of a module, prepared once. */
export function moduleLogDecoder(name: ModuleName): LogDecoder {
  let decoder = decoders.get(name);
  if (decoder === undefined) {
    decoder = createLogDecoder(abis[name] as unknown as Abi);
    decoders.set(name, decoder);
  }
  return decoder;
}

/** A decoded log of a module as an event; `undefined` when the module's ABI does not have it. */
export function toChainEvent(name: ModuleName, log: RawLog): AnyChainEvent | undefined {
  const decoded = moduleLogDecoder(name)(log);
  if (decoded === undefined) return undefined;
  return {
    module: name,
    name: decoded.name,
    args: decoded.args,
    address: log.address,
    blockNumber: BigInt(log.blockNumber),
    blockHash: log.blockHash,
    transactionHash: log.transactionHash,
    logIndex: Number(log.logIndex),
  } as unknown as AnyChainEvent;
}

async function readEvents(
  client: PublicClient,
  { manifest, address, query }: { manifest: Manifest; address: Address; query: EventQuery<ModuleName, never> },
): Promise<AnyChainEvent[]> {
  const topics = encodeEventTopics({ abi: abis[query.name] as unknown as Abi, eventName: query.event, args: query.args } as never);
  const doing = `Reading events ${query.name}.${String(query.event)}`;
  const found: AnyChainEvent[] = [];
  try {
    const toBlock = query.toBlock ?? (await client.getBlockNumber({ cacheTime: 0 }));
    let from = query.fromBlock ?? BigInt(manifest.modules[query.name]?.deployBlock ?? 0);
    let range = LOG_RANGE_BLOCKS;
    while (from <= toBlock) {
      const to = from + range - 1n < toBlock ? from + range - 1n : toBlock;
      let logs: RawLog[];
      try {
        const filter = { address, topics, fromBlock: toHex(from), toBlock: toHex(to) };
        logs = (await client.request({ method: 'eth_getLogs', params: [filter] } as never)) as RawLog[];
      } catch (error) {
        const refused = chainError(error, doing);
        if (refused.code !== 'chain-refused' || range === 1n) throw refused;
        range = range > 4n ? range / 4n : 1n;
        continue;
      }
      for (const log of logs) {
        const event = log.removed === true ? undefined : toChainEvent(query.name, log);
        if (event !== undefined) found.push(event);
      }
      if (found.length > EVENTS_MAX) throw tooManyEvents(query.name, String(query.event));
      from = to + 1n;
      if (range < LOG_RANGE_BLOCKS) range *= 2n;
    }
  } catch (error) {
    throw chainError(error, doing);
  }
  return found;
}

function wrongNetwork(manifest: Manifest, what: string, got: string, expected: string): MillraceError {
  return new MillraceError('wrong-network', {
    actor: 'caller',
    message: `This chain does not carry network ${manifest.name}: ${what} is ${got}, expected ${expected}`,
    values: { network: manifest.name, what, got, expected },
    hint: 'Set MILLRACE_RPC_URL to a node of the right chain, or use the network.json of this one.',
  });
}

function tooManyEvents(module: string, event: string): MillraceError {
  return new MillraceError('too-many-events', {
    actor: 'caller',
    message: `More than ${EVENTS_MAX} events ${module}.${event} fit the question`,
    values: { module, event, limit: EVENTS_MAX },
    hint: 'Ask for fewer blocks, or read them from the database of a follower.',
  });
}

function waitTimedOut(time: bigint, timestamp: bigint, timeoutMs: number): MillraceError {
  return new MillraceError('wait-timed-out', {
    actor: 'chain',
    message: `The chain did not reach time ${time} within ${timeoutMs} ms; its latest block is of ${timestamp}`,
    values: { time, timestamp, timeoutMs },
    hint: 'Wait longer, or check that the chain makes blocks.',
  });
}
