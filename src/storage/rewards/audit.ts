import type { ChainClient, ModuleName, ReadName } from '../../chain/index.ts';
import { chainError } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { readRules } from '../market/market-rules.ts';
import { streamEvents } from './audit-events.ts';
import {
  type Check,
  type Difference,
  EventArgs,
  type Handler,
  type ReadView,
  type Replay,
  type ReplayEvent,
  type Report,
} from './replay.ts';
import { replayChannels } from './replay-channels.ts';
import { replayFiles, replayRails } from './replay-rails.ts';
import { replayRewards } from './replay-rewards.ts';
import { replayStake } from './replay-stake.ts';
import { replayToken } from './replay-token.ts';

/** What was found about one group of rules. */
export interface GroupReport {
  group: string;
  /** Events that were replayed. */
  events: number;
  /** Numbers that were compared with what the contracts say. */
  checks: number;
  differences: number;
  first: Difference | undefined;
}

/** What an audit found, of all that happened up to a block. */
export interface AuditReport {
  block: bigint;
  groups: GroupReport[];
}

/** What an audit works on. */
export interface AuditOptions {
  client: ChainClient;
  /** Events before it are replayed, since every sum needs them, but what does not fit in them is taken as known. Default: 0. */
  fromBlock?: bigint;
  onProgress?: (block: bigint, toBlock: bigint) => void;
  signal?: AbortSignal;
}

const READS_AT_ONCE = 32;
/** How often the newest state is tried: chains forget old states, the embedded one within minutes. */
const COMPARISONS_MAX = 5;

/**
 * Recomputes every balance and every reward of a network from its events, from the first block on, by rules written down a second time, and
 * compares with what the contracts say. Whole numbers only; no trust in any node, index or database but in the chain that is asked.
 * @throws chain-unreachable, chain-refused, too-many-events
 */
export async function auditNetwork(options: AuditOptions): Promise<AuditReport> {
  const { client, signal, fromBlock, onProgress } = options;
  const books = openBooks(await openReplays(client));
  const names = books.flatMap(({ replay }) => Object.keys(replay.handlers));
  for (let [next, attempt] = [0n, 1]; ; attempt += 1) {
    const toBlock = await client.public.getBlockNumber({ cacheTime: 0 });
    const onBlocks = (block: bigint) => onProgress?.(block, toBlock);
    await replayAll(books, streamEvents(client, { names, fromBlock: next, toBlock, onBlocks, signal }), fromBlock);
    try {
      return await compareAll(books, client, toBlock);
    } catch (error) {
      if (attempt === COMPARISONS_MAX || toMillraceError(error).code !== 'chain-refused') throw error;
      next = toBlock + 1n;
    }
  }
}

/** The replays of all groups that a network has, with the numbers that its contracts were made with. */
export async function openReplays(client: ChainClient): Promise<Replay[]> {
  const has = (name: ModuleName) => client.manifest.modules[name] !== undefined;
  const token = client.address('networkToken');
  const genesisBlock = BigInt(client.manifest.modules.networkToken?.deployBlock ?? 0);
  const replays = [replayToken({ genesisBlock }), replayRails(), replayStake()];
  if (has('orderBook')) replays.push(replayFiles({ token }));
  if (has('channels')) {
    const [feeToken, feeBps] = await Promise.all([client.read('channels', 'feeToken'), client.read('channels', 'feeBps')]);
    replays.push(replayChannels({ feeToken, feeBps }));
  }
  if (has('rewards')) {
    const [config, { clock }] = await Promise.all([client.read('rewards', 'config'), readRules(client)]);
    const orderFeeBps = has('orderBook') ? (await client.read('orderBook', 'config')).feeBps : 0;
    const numbers = {
      orderFeeBps: BigInt(orderFeeBps),
      storageShareBps: BigInt(config.storageShareBps),
      retrievalShareBps: BigInt(config.retrievalShareBps),
      baseBps: BigInt(config.baseBps),
      streakPeriods: BigInt(config.streakPeriods),
      vestSeconds: BigInt(config.vestSeconds),
      bucketSeconds: BigInt(config.bucketSeconds),
    };
    replays.push(replayRewards({ clock, address: client.address('rewards'), ...numbers }));
  }
  return replays;
}

/** Runs replays over a list of events in the order of the chain, and compares them with the contracts after `toBlock`. */
export async function auditEvents(
  events: Iterable<ReplayEvent>,
  { replays, client, toBlock }: { replays: readonly Replay[]; client: ChainClient; toBlock: bigint },
): Promise<AuditReport> {
  const books = openBooks(replays);
  await replayAll(books, events, undefined);
  return compareAll(books, client, toBlock);
}

interface Book {
  replay: Replay;
  report: GroupReport;
}

function openBooks(replays: readonly Replay[]): Book[] {
  return replays.map((replay) => ({ replay, report: { group: replay.group, events: 0, checks: 0, differences: 0, first: undefined } }));
}

async function replayAll(
  books: readonly Book[],
  events: AsyncIterable<ReplayEvent> | Iterable<ReplayEvent>,
  fromBlock = 0n,
): Promise<void> {
  for await (const event of events) for (const book of books) apply(book, event, event.blockNumber >= fromBlock);
}

/** Compares all books at one block. Nothing is noted unless all of them could be compared. */
async function compareAll(books: readonly Book[], client: ChainClient, block: bigint): Promise<AuditReport> {
  const { timestamp } = await client.public.getBlock({ blockNumber: block });
  const read = viewReader(client, block);
  const groups: GroupReport[] = [];
  for (const { replay, report } of books) {
    const found = { ...report };
    replay.end?.((what, expected, got) => note(found, { what, expected: String(expected), got: String(got), blockNumber: block }));
    await compare(replay, { report: found, read, block, time: timestamp });
    groups.push(found);
  }
  return { block, groups };
}

/**
 * Makes an error of a report that holds a difference; gives nothing else.
 * @throws audit-difference
 */
export function requireSame({ block, groups }: AuditReport): void {
  const differing = groups.filter(({ differences }) => differences > 0);
  const first = differing[0]?.first;
  if (first === undefined) return;
  throw new MillraceError('audit-difference', {
    actor: 'chain',
    message: `${first.group}: ${first.what} is ${first.got}, by the events it must be ${first.expected}`,
    values: {
      block,
      group: first.group,
      what: first.what,
      expected: first.expected,
      got: first.got,
      at: first.blockNumber,
      transaction: first.transactionHash,
      groups: differing.map(({ group, differences }) => `${group}: ${differences}`),
    },
    hint: 'Ask another node of the chain: this one may show wrong events or a wrong state. If both agree, the contracts break their own rules: do not use the network.',
  });
}

function note(report: GroupReport, difference: Omit<Difference, 'group'>): void {
  report.differences += 1;
  report.first ??= { group: report.group, ...difference };
}

function apply({ replay, report }: Book, event: ReplayEvent, isNew: boolean): void {
  const name = `${event.module}.${event.name}`;
  const handler: Handler | undefined = Object.hasOwn(replay.handlers, name) ? replay.handlers[name] : undefined;
  if (handler === undefined) return;
  report.events += 1;
  const { blockNumber, transactionHash } = event;
  const tell: Report = (what, expected, got) => {
    if (isNew) note(report, { what, expected: String(expected), got: String(got), blockNumber, transactionHash });
  };
  handler(new EventArgs(event.args), event, tell);
}

async function compare(
  replay: Replay,
  { report, read, block, time }: { report: GroupReport; read: ReadView; block: bigint; time: bigint },
): Promise<void> {
  let waiting: Check[] = [];
  const flush = async () => {
    const checks = waiting;
    waiting = [];
    const found = await Promise.all(checks.map((check) => actualOf(check, read)));
    for (const [index, got] of found.entries()) {
      const { what, expected, relation } = checks[index] as Check;
      report.checks += 1;
      const fits = typeof got === 'bigint' && (relation === 'at-most' ? expected <= got : expected === got);
      if (!fits)
        note(report, { what, expected: `${relation === 'at-most' ? 'at least ' : ''}${expected}`, got: String(got), blockNumber: block });
    }
  };
  for (const check of replay.checks(time)) {
    waiting.push(check);
    if (waiting.length === READS_AT_ONCE) await flush();
  }
  await flush();
}

/** What a contract says, or the code of its refusal: a rail that it does not know is a difference, a chain that is silent is an error. */
async function actualOf(check: Check, read: ReadView): Promise<bigint | string> {
  try {
    return await check.actual(read);
  } catch (error) {
    const { code, actor } = toMillraceError(error);
    if (actor === 'caller') return code;
    throw chainError(error, `Reading ${check.what}`);
  }
}

function viewReader(client: ChainClient, blockNumber: bigint): ReadView {
  return (module, functionName, args) => client.read(module, functionName as ReadName<ModuleName>, args as never, { blockNumber });
}
