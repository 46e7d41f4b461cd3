import type { Address, Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { greater } from '../../units.ts';
import { readLeaseBounds } from '../leases/lease-chain.ts';
import type { ClusterChain, ClusterMarket } from './cluster-chain.ts';

/** On which terms a renter reserves machines. */
export interface ClusterTerms {
  deviceClass: Hex;
  token: Address;
  /** Greatest price of a machine, base units an hour. */
  priceMax: bigint;
  /** Chain time at which all leases end; one that would be shorter than the market takes ends so much later. */
  until: bigint;
  /** Who speaks for the renter. */
  agent: Address;
  /** Least stake behind each lease, base units. */
  collateralMin: bigint;
}

/** Beyond the market's least lead: the first interval begins so much after the latest block, for the transaction to be in time. */
const SLACK_SECONDS = 3n;
/** Of the contract: most candidates of one reservation. */
const CANDIDATES_MAX = 128;
/** What the contract says of a request that came too late. */
const TAKEN = ['gang-incomplete', 'lease-time-out-of-bounds'];

/** What nodes of clusters read of the chain. */
export function readClusterChain(client: ChainClient): ClusterChain {
  return {
    domain: { chainId: client.chainId, market: client.address('computeMarket') },
    now: () => client.now(),
    lease: async (leaseId) => {
      const { deviceId, operatorId, agent, from, until } = await client.read('computeMarket', 'lease', [BigInt(leaseId)]);
      return { leaseId, deviceId: String(deviceId), operatorId, agent, from, until };
    },
    nodeKeyOf: (operatorId) => client.read('operators', 'nodeKeyOf', [operatorId]),
    peerOf: async (operatorId) => {
      const { endpoint, transportKey } = await client.read('operators', 'operator', [operatorId]);
      return { endpoint, transportKey };
    },
  };
}

/** Does some work with the renter's sender, which is free for other commands in between. */
export type WithSender = <Result>(work: (sender: Sender) => Promise<Result>) => Promise<Result>;

/** The market as a renter's coordinator uses it. The renter's account at the rails must hold prices and fees. */
export function openClusterMarket(client: ChainClient, withSender: WithSender, terms: ClusterTerms): ClusterMarket {
  const chain = readClusterChain(client);
  return {
    ...chain,
    findMachines: async ({ count, withoutOperators }) => {
      const from = (await client.now()) + BigInt((await readLeaseBounds(client)).leadSeconds) + SLACK_SECONDS;
      const devices = await findCandidates(client, terms, { from, withoutOperators });
      if (devices.length < count) throw short(count, devices.length);
      return { count, from: String(from), devices: devices.map(String) };
    },
    reserve: async ({ count, from, devices }, key) => {
      const { deviceClass, token, priceMax, agent, collateralMin } = terms;
      const { leaseSecondsMin } = await readLeaseBounds(client);
      const until = greater(terms.until, BigInt(from) + BigInt(leaseSecondsMin));
      const request = { deviceClass, token, priceMax, from: BigInt(from), until, agent, interruptible: false, collateralMin };
      const candidates = devices.map((deviceId) => ({ deviceId: BigInt(deviceId), hint: 0n }));
      const call = { contract: 'computeMarket', functionName: 'reserve', args: [request, candidates, BigInt(count)], key } as const;
      const receipt = await withSender((sender) => sender.send(call)).catch((error: unknown) => {
        if (TAKEN.includes((error as MillraceError).code)) throw short(count, devices.length, error);
        throw error;
      });
      const opened = receipt.events.flatMap((event) =>
        event.module === 'computeMarket' && event.name === 'LeaseOpened' ? [event.args] : [],
      );
      return await Promise.all(opened.map(({ leaseId }) => chain.lease(String(leaseId))));
    },
    end: async (leaseId) => {
      const call = { contract: 'computeMarket', functionName: 'end', args: [BigInt(leaseId)], key: `cluster end ${leaseId}` } as const;
      await withSender((sender) => sender.send(call)).catch((error: unknown) => {
        if ((error as MillraceError).code !== 'lease-is-over') throw error;
      });
    },
  };
}

/** Devices on offer on these terms, one of each operator, the cheapest first. Whether they are free then, the contract decides. */
async function findCandidates(
  client: ChainClient,
  terms: ClusterTerms,
  { from, withoutOperators }: { from: bigint; withoutOperators: readonly bigint[] },
): Promise<bigint[]> {
  const events = await client.events({ name: 'computeMarket', event: 'OfferSet', args: { deviceClass: terms.deviceClass } });
  const devices = [...new Set(events.map(({ args }) => args.deviceId))];
  const stable = client.address('stableToken').toLowerCase();
  const offers = await Promise.all(
    devices.map(async (deviceId) => ({ deviceId, offer: await client.read('computeMarket', 'offerOf', [deviceId]) })),
  );
  const priced = offers
    .map(({ deviceId, offer }) => ({
      deviceId,
      offer,
      price: terms.token.toLowerCase() === stable ? offer.stablePrice : offer.nativePrice,
    }))
    .filter(({ offer, price }) => {
      const isWanted = offer.deviceClass === terms.deviceClass && !withoutOperators.includes(offer.operatorId);
      const isInTime = offer.from <= from && terms.until <= offer.until;
      return isWanted && isInTime && price > 0n && price <= terms.priceMax && offer.collateral >= terms.collateralMin;
    })
    .sort((one, other) => (one.price === other.price ? Number(one.deviceId - other.deviceId) : one.price < other.price ? -1 : 1));
  // Two devices of one operator may be one machine: what is to survive the loss of a machine lies at different operators.
  const firstOfOperator = priced.filter(
    ({ offer }, index) => priced.findIndex((each) => each.offer.operatorId === offer.operatorId) === index,
  );
  return firstOfOperator.slice(0, CANDIDATES_MAX).map(({ deviceId }) => deviceId);
}

function short(wanted: number, found: number, cause?: unknown): MillraceError {
  return new MillraceError('cluster-short', {
    actor: 'peer',
    message: `The market has ${found} machines on these terms, of different operators, for ${wanted} that are wanted`,
    values: { wanted, found },
    hint: 'Raise the price, ask for fewer machines or a shorter time, or wait: a running cluster asks again by itself.',
    cause,
  });
}
