import { randomBytes } from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';
import { bytesToBigInt, type Hex, keccak256, stringToBytes } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { lesser } from '../../units.ts';
import { inBatches, readOperator } from '../market/chain-view.ts';
import type { Duty } from '../provider/duty.ts';
import type { ProviderPolicy } from '../provider/intake.ts';
import { type BookRules, readBookRules } from './book-rules.ts';
import { type AskOrder, askOrderDigest, orderDomainOf } from './orders.ts';

/** What an operator sets for the order book. */
export interface OrderPolicy {
  /** The most collateral that a bid may demand, per GiB. */
  collateralPerGiB: bigint;
  /** Shards that one ask takes at most. */
  dealsMax: number;
  /** How much of the room that is left an ask promises, in ten-thousandths; the rest is for direct deals and repairs. */
  roomBps: number;
  /** How much of the stake that is left an ask may lock, in ten-thousandths. */
  stakeBps: number;
  lifetimeSeconds: number;
}

/** An own ask on the book. */
interface OwnAsk {
  askId: bigint;
  order: AskOrder;
  validUntil: bigint;
  freeBytes: bigint;
  freeDeals: number;
  locked: bigint;
}

/** What keeping an ask on the book stands on. */
export interface StandingAskOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  policy: ProviderPolicy;
  orders: OrderPolicy;
  log: Logger;
  /** Room for new deals beside what asks on the book have promised, bytes, and whether the provider takes any. */
  room(): Promise<{ freeBytes: bigint; accepting: boolean }>;
  everyMs?: number;
}

/** An ask on the book and what it has promised. */
export interface StandingAsk {
  duty: Duty;
  /** Bytes that asks on the book may still turn into deals: they are not free for others. */
  promisedBytes(): bigint;
  /** The asks that stand now. */
  standing(): { askId: bigint; minPrice: bigint; freeBytes: bigint; freeDeals: number; validUntil: bigint }[];
}

const GIB = 1n << 30n;
const BPS = 10_000n;

/**
 * Keeps one ask of this provider on the order book: posts it, replaces it when it runs out, is used up or no longer says
 * what the policy says, withdraws it when the provider takes no new deals, and unlocks the stake of asks that are over.
 */
export function openStandingAsk(options: StandingAskOptions): StandingAsk {
  const { client, operatorId, log } = options;
  const own = new Map<bigint, OwnAsk>();
  let readTo: bigint | undefined;

  const refresh = async () => {
    const head = await client.public.getBlockNumber({ cacheTime: 0 });
    const fromBlock = readTo === undefined ? undefined : readTo + 1n;
    if (readTo === undefined || head > readTo) {
      for (const { args } of await client.events({
        name: 'orderBook',
        event: 'AskPosted',
        args: { operatorId },
        fromBlock,
        toBlock: head,
      })) {
        own.set(args.askId, { askId: args.askId, order: args.ask, validUntil: 0n, freeBytes: 0n, freeDeals: 0, locked: 1n });
      }
      await inBatches([...own.keys()], async (askId) => {
        const { validUntil, freeBytes, freeDeals, locked } = await client.read('orderBook', 'ask', [askId]);
        const { order } = own.get(askId) as OwnAsk;
        if (locked === 0n) own.delete(askId);
        else own.set(askId, { askId, order, validUntil, freeBytes, freeDeals, locked });
      });
      readTo = head;
    }
  };
  const valid = (now: bigint) => [...own.values()].filter(({ validUntil }) => validUntil > now);

  return {
    promisedBytes: () => [...own.values()].reduce((sum, ask) => sum + ask.freeBytes, 0n),
    standing: () =>
      [...own.values()].map(({ askId, order, freeBytes, freeDeals, validUntil }) => ({
        askId,
        minPrice: order.minPrice,
        freeBytes,
        freeDeals,
        validUntil,
      })),
    duty: {
      name: 'standing-ask',
      everyMs: options.everyMs ?? 3_000,
      async run(signal) {
        await refresh();
        const rules = await readBookRules(client);
        const now = await client.now();
        for (const ask of [...own.values()].filter(({ validUntil }) => validUntil <= now)) await release(options, ask.askId);
        signal.throwIfAborted();
        const { freeBytes, accepting } = await options.room();
        const lasting = valid(now).filter(({ validUntil }) => validUntil > now + rules.batchSeconds);
        if (!accepting) {
          for (const { askId } of lasting) await cancel(options, askId);
          return;
        }
        const prefix = await networkPrefixOfOperator(client, operatorId);
        const good = lasting.find((ask) => isGood(options, ask, { now, prefix }));
        if (good === undefined) {
          const order = await nextAsk(options, rules, { now, prefix, freeBytes });
          if (order === undefined) return;
          await post(options, order);
        }
        // What is replaced stays good to the end of the running batch.
        for (const { askId } of lasting) if (askId !== good?.askId) await cancel(options, askId);
        if (good === undefined) log.info('ask-posted', { operatorId, replaced: lasting.map(({ askId }) => askId).join(' ') });
      },
    },
  };
}

/** Whether an ask still says what the policy says, and has enough left. */
function isGood(
  { policy, orders }: StandingAskOptions,
  { order, freeBytes, freeDeals, validUntil }: OwnAsk,
  at: { now: bigint; prefix: Hex },
): boolean {
  if (order.minPrice !== policy.ask.pricePerGibPeriod || order.collateralPerGiB !== orders.collateralPerGiB) return false;
  if (order.maxPeriods !== policy.ask.maxPeriods || order.minPeriods !== policy.ask.minPeriods) return false;
  if (order.networkPrefix !== at.prefix) return false;
  if (validUntil - at.now < BigInt(orders.lifetimeSeconds) / 3n) return false;
  return freeBytes * 4n >= order.capacityBytes && freeDeals * 4 >= order.maxDeals;
}

/** The ask that room and stake bear now; undefined when there is too little of either. */
async function nextAsk(
  { client, operatorId, policy, orders }: StandingAskOptions,
  rules: BookRules,
  at: { now: bigint; prefix: Hex; freeBytes: bigint },
): Promise<AskOrder | undefined> {
  const stake = ((await client.read('stakeVault', 'availableOf', [operatorId])) * BigInt(orders.stakeBps)) / BPS;
  const perDeal = rules.dealBond + 1n;
  const deals = lesser(BigInt(orders.dealsMax), stake / (2n * perDeal));
  const byStake = ((stake - deals * perDeal) * GIB) / orders.collateralPerGiB;
  const byRoom = (at.freeBytes * BigInt(orders.roomBps)) / BPS;
  const capacityBytes = lesser(byRoom, byStake);
  const { minSizeBytes, maxSizeBytes, minPeriods, maxPeriods, pricePerGibPeriod } = policy.ask;
  if (deals === 0n || capacityBytes < minSizeBytes || capacityBytes === 0n) return undefined;
  return {
    operatorId,
    minPrice: pricePerGibPeriod,
    collateralPerGiB: orders.collateralPerGiB,
    capacityBytes,
    minBytes: minSizeBytes,
    maxBytes: lesser(maxSizeBytes, capacityBytes),
    minPeriods,
    maxPeriods,
    maxDeals: Number(deals),
    networkPrefix: at.prefix,
    nonce: bytesToBigInt(randomBytes(32)),
    expiry: at.now + BigInt(orders.lifetimeSeconds),
  };
}

async function post({ client, signer, sender }: StandingAskOptions, order: AskOrder): Promise<void> {
  const signature = await signer.signDigest(askOrderDigest(orderDomainOf(client), order));
  await sender.send({ contract: 'orderBook', functionName: 'postAsk', args: [order, signature] });
}

async function cancel({ sender }: StandingAskOptions, askId: bigint): Promise<void> {
  await sender.send({ contract: 'orderBook', functionName: 'cancelAsk', args: [askId], key: `cancel-ask:${askId}` });
}

/** Unlocks what an ask that is over still holds. Anyone may have done it before. */
async function release({ sender }: StandingAskOptions, askId: bigint): Promise<void> {
  await sender.send({ contract: 'orderBook', functionName: 'releaseAsk', args: [askId] }).catch((error: unknown) => {
    if (!(error instanceof MillraceError) || (error.code !== 'nothing-locked' && error.code !== 'still-usable')) throw error;
  });
}

const prefixes = new WeakMap<ChainClient, Map<bigint, { endpoint: string; prefix: Hex }>>();

/** The network that an operator's endpoint on chain is in. */
export async function networkPrefixOfOperator(client: ChainClient, operatorId: bigint): Promise<Hex> {
  const { endpoint } = await readOperator(client, operatorId);
  const known = prefixes.get(client) ?? new Map();
  prefixes.set(client, known);
  const entry = known.get(operatorId);
  if (entry?.endpoint === endpoint) return entry.prefix;
  const prefix = networkPrefixOf(endpoint);
  known.set(operatorId, { endpoint, prefix });
  return prefix;
}

/**
 * The network that an endpoint is in, as orders declare it: keccak256 of an IPv4 /16 ("203.0"), an IPv6 /32 ("2001:db8") or of
 * the whole host name.
 */
export function networkPrefixOf(endpoint: string): Hex {
  const host = (URL.parse(endpoint)?.hostname ?? endpoint).replace(/^\[|\]$/g, '').toLowerCase();
  if (isIPv4(host)) return keccak256(stringToBytes(host.split('.').slice(0, 2).join('.')));
  if (isIPv6(host)) return keccak256(stringToBytes(ipv6Prefix(host)));
  return keccak256(stringToBytes(host));
}

/** The first two groups of an IPv6 address, without leading zeros. */
function ipv6Prefix(host: string): string {
  const [head = ''] = host.split('::');
  const groups = head === '' ? [] : head.split(':');
  return [groups[0] ?? '0', groups[1] ?? '0'].map((group) => Number.parseInt(group, 16).toString(16)).join(':');
}
