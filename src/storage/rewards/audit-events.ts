import type { ChainClient, ChainEvent, EventName, ModuleName } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { ReplayEvent } from './replay.ts';

/** Blocks that are read at a time; fewer where they hold too many events. */
const RANGE_BLOCKS = 10_000n;
const QUERIES_AT_ONCE = 8;

/**
 * Events of several modules in the order of the chain, a range of blocks at a time: what is held never grows with the chain.
 * @param options names: `module.event`; onBlocks: told up to which block all events were given
 * @throws too-many-events, chain-unreachable
 */
export async function* streamEvents(
  client: ChainClient,
  options: { names: Iterable<string>; fromBlock: bigint; toBlock: bigint; onBlocks?: (block: bigint) => void; signal?: AbortSignal },
): AsyncGenerator<ReplayEvent> {
  const queries = [...new Set(options.names)].map((name) => name.split('.') as [ModuleName, string]);
  const wanted = queries.filter(([module]) => client.manifest.modules[module] !== undefined);
  let range = RANGE_BLOCKS;
  for (let from = options.fromBlock; from <= options.toBlock; ) {
    options.signal?.throwIfAborted();
    const to = from + range - 1n < options.toBlock ? from + range - 1n : options.toBlock;
    let events: ChainEvent[];
    try {
      events = await readRange(client, { wanted, from, to });
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'too-many-events' || range === 1n) throw error;
      range = range > 4n ? range / 4n : 1n;
      continue;
    }
    yield* withTimes(client, events);
    options.onBlocks?.(to);
    from = to + 1n;
    if (range < RANGE_BLOCKS) range *= 2n;
  }
}

async function readRange(
  client: ChainClient,
  { wanted, from, to }: { wanted: readonly [ModuleName, string][]; from: bigint; to: bigint },
): Promise<ChainEvent[]> {
  const events: ChainEvent[] = [];
  for (let at = 0; at < wanted.length; at += QUERIES_AT_ONCE) {
    const found = await Promise.all(
      wanted.slice(at, at + QUERIES_AT_ONCE).map(([name, event]) => {
        return client.events({ name, event: event as EventName<ModuleName>, fromBlock: from, toBlock: to });
      }),
    );
    for (const list of found) for (const event of list) events.push(event as unknown as ChainEvent);
  }
  return events.sort((one, other) => Number(one.blockNumber - other.blockNumber) || one.logIndex - other.logIndex);
}

async function* withTimes(client: ChainClient, events: readonly ChainEvent[]): AsyncGenerator<ReplayEvent> {
  let block = { number: -1n, time: 0n };
  for (const event of events) {
    if (event.blockNumber !== block.number) {
      const { timestamp } = await client.public.getBlock({ blockNumber: event.blockNumber });
      block = { number: event.blockNumber, time: timestamp };
    }
    const { module, name, args, blockNumber, transactionHash } = event;
    yield { module, name, args: args as unknown as Record<string, unknown>, blockNumber, transactionHash, time: block.time };
  }
}
