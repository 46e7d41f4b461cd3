import { encodeAbiParameters, type Hex, keccak256 } from 'viem';
import { type ChainClient, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';
import { readFields } from '../market/fields.ts';

/** A provider's offer of capacity, as `IOrderBook.Ask`. Prices and collateral: base units per GiB (2^30 payload bytes), prices also per period. */
export interface AskOrder {
  operatorId: bigint;
  minPrice: bigint;
  /** The most that a bid may demand. */
  collateralPerGiB: bigint;
  capacityBytes: bigint;
  minBytes: bigint;
  maxBytes: bigint;
  minPeriods: number;
  maxPeriods: number;
  maxDeals: number;
  networkPrefix: Hex;
  nonce: bigint;
  expiry: bigint;
}

/** A client's order to store one file as `count` shards, any `needed` of which give it back, as `IOrderBook.Bid`. */
export interface BidOrder {
  client: Hex;
  agent: Hex;
  /** keccak256 of the binary root CID of the whole file. */
  contentHash: Hex;
  shardsHash: Hex;
  shardSize: bigint;
  pieceHeight: number;
  count: number;
  needed: number;
  repairBelow: number;
  periods: number;
  maxPrice: bigint;
  collateralPerGiB: bigint;
  distinctNetworks: boolean;
  /** Shards in one declared region; 0: any number. */
  regionMax: number;
  excludedHash: Hex;
  reserve: bigint;
  bountyMax: bigint;
  challengeBudget: bigint;
  nonce: bigint;
  expiry: bigint;
}

/** One shard of a bid: its piece, and the root CID of its CAR in binary form. */
export interface ShardPiece {
  pieceRoot: Hex;
  cid: Hex;
}

/** The part of the order book's configuration that decides the money of a bid. */
export interface OrderFees {
  feeBps: number;
  dealBond: bigint;
  matcherTip: bigint;
}

/** What ties a signed order to one book on one chain. */
export interface OrderDomain {
  chainId: number;
  book: Hex;
}

const uint = (name: string, bits: number) => ({ name, type: `uint${bits}` });
const word = (name: string) => ({ name, type: 'bytes32' });

/** The EIP-712 types of both orders, in the order of the fields that the contract hashes. */
export const ORDER_TYPES = {
  Ask: [
    uint('operatorId', 64),
    uint('minPrice', 128),
    uint('collateralPerGiB', 128),
    uint('capacityBytes', 64),
    uint('minBytes', 64),
    uint('maxBytes', 64),
    uint('minPeriods', 32),
    uint('maxPeriods', 32),
    uint('maxDeals', 32),
    word('networkPrefix'),
    uint('nonce', 256),
    uint('expiry', 64),
  ],
  Bid: [
    { name: 'client', type: 'address' },
    { name: 'agent', type: 'address' },
    word('contentHash'),
    word('shardsHash'),
    uint('shardSize', 64),
    uint('pieceHeight', 8),
    uint('count', 8),
    uint('needed', 8),
    uint('repairBelow', 8),
    uint('periods', 32),
    uint('maxPrice', 128),
    uint('collateralPerGiB', 128),
    { name: 'distinctNetworks', type: 'bool' },
    uint('regionMax', 8),
    word('excludedHash'),
    uint('reserve', 128),
    uint('bountyMax', 128),
    uint('challengeBudget', 128),
    uint('nonce', 256),
    uint('expiry', 64),
  ],
};

const shapes = new Map<string, TypedDataShape>();
const GIB = 1n << 30n;

/** The EIP-712 domain of a network's order book: "Millrace Orders", version "1". */
export function orderDomainOf(client: ChainClient): OrderDomain {
  return { chainId: client.chainId, book: client.address('orderBook') };
}

/** The digest that an operator's node key signs; equal to `OrderBook.askDigest`. @throws bad-typed-data */
export function askOrderDigest(domain: OrderDomain, ask: AskOrder): Hex {
  return typedDataDigest(shapeOf(domain, 'Ask'), { ...ask });
}

/** The digest that a client signs; equal to `OrderBook.bidDigest`. @throws bad-typed-data */
export function bidOrderDigest(domain: OrderDomain, bid: BidOrder): Hex {
  return typedDataDigest(shapeOf(domain, 'Bid'), { ...bid });
}

function shapeOf(domain: OrderDomain, primaryType: keyof typeof ORDER_TYPES): TypedDataShape {
  const key = `${domain.chainId}:${domain.book.toLowerCase()}:${primaryType}`;
  let shape = shapes.get(key);
  if (shape === undefined) {
    shape = {
      domain: { name: 'Millrace Orders', version: '1', chainId: domain.chainId, verifyingContract: domain.book },
      types: { [primaryType]: ORDER_TYPES[primaryType] },
      primaryType,
    };
    shapes.set(key, shape);
  }
  return shape;
}

const SHARDS_ABI = [
  {
    type: 'tuple[]',
    components: [
      { name: 'pieceRoot', type: 'bytes32' },
      { name: 'cid', type: 'bytes' },
    ],
  },
] as const;

/** `keccak256(abi.encode(Shard[]))`: what a bid promises about its shards. */
export function shardsHashOf(shards: readonly ShardPiece[]): Hex {
  return keccak256(encodeAbiParameters(SHARDS_ABI, [shards]));
}

/** `keccak256(abi.encode(uint64[]))` of the operators that a bid excludes, in the order given. */
export function excludedHashOf(operatorIds: readonly bigint[]): Hex {
  return keccak256(encodeAbiParameters([{ type: 'uint64[]' }], [operatorIds]));
}

/** The price of one shard for one period at a price per GiB: rounded up, at least one base unit. */
export function shardPriceUp(shardSize: bigint, pricePerGib: bigint): bigint {
  return atLeastOne(divideUp(shardSize * pricePerGib, GIB));
}

/** The collateral of one shard: rounded up, at least one base unit. */
export function shardCollateralUp(shardSize: bigint, collateralPerGib: bigint): bigint {
  return atLeastOne(divideUp(shardSize * collateralPerGib, GIB));
}

/** What posting a bid takes from its client, in parts: at its greatest price. Equal in sum to `OrderBook.bidCost`. */
export function bidCostParts(
  bid: BidOrder,
  fees: OrderFees,
): Record<'price' | 'fee' | 'bonds' | 'tip' | 'reserve' | 'challenges' | 'total', bigint> {
  const shard = shardPriceUp(bid.shardSize, bid.maxPrice);
  const shardPeriods = BigInt(bid.count) * BigInt(bid.periods);
  const price = shard * shardPeriods;
  const fee = ((shard * BigInt(fees.feeBps)) / 10_000n) * shardPeriods;
  const bonds = fees.dealBond * BigInt(bid.count);
  const { reserve, challengeBudget: challenges } = bid;
  return {
    price,
    fee,
    bonds,
    tip: fees.matcherTip,
    reserve,
    challenges,
    total: price + fee + bonds + fees.matcherTip + reserve + challenges,
  };
}

/** An ask, a bid or another flat order as JSON: integers as decimal strings. */
export function orderToJson(order: AskOrder | BidOrder): Record<string, string | boolean> {
  return Object.fromEntries(Object.entries(order).map(([name, value]) => [name, typeof value === 'boolean' ? value : String(value)]));
}

/** An ask from untrusted JSON, every field checked for type and width. @throws bad-field */
export function askOrderFromJson(value: unknown): AskOrder {
  const fields = readFields(value, 'ask');
  return {
    operatorId: fields.uint('operatorId', 64),
    minPrice: fields.uint('minPrice', 128),
    collateralPerGiB: fields.uint('collateralPerGiB', 128),
    capacityBytes: fields.uint('capacityBytes', 64),
    minBytes: fields.uint('minBytes', 64),
    maxBytes: fields.uint('maxBytes', 64),
    minPeriods: fields.small('minPeriods', 32),
    maxPeriods: fields.small('maxPeriods', 32),
    maxDeals: fields.small('maxDeals', 32),
    networkPrefix: fields.hex('networkPrefix', 32),
    nonce: fields.uint('nonce', 256),
    expiry: fields.uint('expiry', 64),
  };
}

/** A bid from untrusted JSON, every field checked for type and width. @throws bad-field */
export function bidOrderFromJson(value: unknown): BidOrder {
  const fields = readFields(value, 'bid');
  return {
    client: fields.hex('client', 20),
    agent: fields.hex('agent', 20),
    contentHash: fields.hex('contentHash', 32),
    shardsHash: fields.hex('shardsHash', 32),
    shardSize: fields.uint('shardSize', 64),
    pieceHeight: fields.small('pieceHeight', 8),
    count: fields.small('count', 8),
    needed: fields.small('needed', 8),
    repairBelow: fields.small('repairBelow', 8),
    periods: fields.small('periods', 32),
    maxPrice: fields.uint('maxPrice', 128),
    collateralPerGiB: fields.uint('collateralPerGiB', 128),
    distinctNetworks: fields.raw('distinctNetworks') === true,
    regionMax: fields.small('regionMax', 8),
    excludedHash: fields.hex('excludedHash', 32),
    reserve: fields.uint('reserve', 128),
    bountyMax: fields.uint('bountyMax', 128),
    challengeBudget: fields.uint('challengeBudget', 128),
    nonce: fields.uint('nonce', 256),
    expiry: fields.uint('expiry', 64),
  };
}

function divideUp(dividend: bigint, divisor: bigint): bigint {
  return (dividend + divisor - 1n) / divisor;
}

function atLeastOne(value: bigint): bigint {
  return value < 1n ? 1n : value;
}
