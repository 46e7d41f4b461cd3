import { type Address, zeroAddress } from 'viem';
import type { AnyChainEvent, ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { eventArgs } from '../../token/index.ts';
import { greater, lesser } from '../../units.ts';
import { type ChosenDevice, chooseDevices } from '../schedule/choose.ts';
import { createDeviceIndex } from '../schedule/device-index.ts';
import type { DeviceNeeds } from '../spec/needs.ts';
import { classBytes } from './device-offers.ts';
import { type LeaseBounds, type LeaseView, readLease, readLeaseBounds, readMarketTimes } from './lease-chain.ts';
import { type DeviceOffer, listDeviceOffers, viewOf } from './market-offers.ts';

/** What somebody wants to rent. */
export interface RentalWish {
  /** Left out: the class of the device that scores best. */
  deviceClass?: string;
  needs?: Partial<DeviceNeeds>;
  count: number;
  /** Seconds from the beginning, which is as soon as possible; not less than the market's shortest lease. */
  seconds: number;
  token: 'stable' | 'native';
  /** Greatest price an hour and device, base units. */
  priceMax: bigint;
  isInterruptible: boolean;
  /** Least notice before an interruptible lease is taken back, seconds; left out: any. */
  noticeSecondsMin?: number;
  /** Devices that are not to be taken. */
  excluded?: ReadonlySet<bigint>;
  /** Least stake that offers put behind a lease of the market's `collateralSeconds`, base units; a shorter lease has its share. */
  collateralMin: bigint;
  /** Who signs meters; left out: the renter itself. */
  agent?: Address;
}

/** What a reservation costs at most, base units of its token. */
export interface ReservationCost {
  price: bigint;
  fees: bigint;
}

/** The transaction must be in a block so long before the beginning as the market asks: so much earlier it is sent, and more when that was too late. */
const SLACKS_SECONDS = [3n, 15n, 60n] as const;
const SPARES = 16;
const NO_NEEDS: DeviceNeeds = { milliCpus: 0, memoryBytes: 0, diskBytes: 0, gpus: 0, gpuModels: [], regions: [], attributes: {} };
const HOUR = 3_600n;
const BPS = 10_000n;
const RESERVATION_FEE_BPS = 25n;
const STABLE_FEE_BPS = 200n;

/**
 * Reserves devices for the sender: chooses candidates by price, standing and attributes, sees that its account at the rails holds price and fees,
 * and takes all of them or none.
 * @param options.offers to choose from; left out: all
 * @throws no-devices, bad-gang, lease-time-out-of-bounds for a lease that is too short, gang-incomplete when others were quicker,
 * insufficient-balance, and the sender's errors
 */
export async function reserveDevices(options: {
  client: ChainClient;
  sender: Sender;
  wish: RentalWish;
  offers?: readonly DeviceOffer[];
}): Promise<LeaseView[]> {
  const { client, sender, wish } = options;
  const offers = options.offers ?? (await listDeviceOffers(client, { deviceClass: wish.deviceClass }));
  const { leadSeconds } = await readLeaseBounds(client);
  const { deviceClass, chosen, dearest } = await chooseForWish({ client, wish, offers });
  const { price, fees } = costOf(dearest, wish);
  const token = tokenOf(client, wish.token);
  await provideMoney({ client, sender, token, amount: (price + fees) * BigInt(wish.count), spender: client.address('computeMarket') });
  const terms = {
    deviceClass: classBytes(deviceClass),
    token,
    priceMax: dearest,
    agent: wish.agent ?? zeroAddress,
    interruptible: wish.isInterruptible,
    collateralMin: wish.collateralMin,
  };
  const candidates = chosen.map(({ deviceId, hint }) => ({ deviceId, hint }));
  for (const slack of SLACKS_SECONDS) {
    const begins = (await presentTime(client)) + BigInt(leadSeconds) + slack;
    const request = { ...terms, from: begins, until: begins + BigInt(wish.seconds) };
    try {
      return await sendReservation({ client, sender }, request, candidates, BigInt(wish.count));
    } catch (error) {
      const wasTooSoon = error instanceof MillraceError && error.code === 'lease-time-out-of-bounds' && slack !== SLACKS_SECONDS.at(-1);
      if (!wasTooSoon) throw error;
    }
  }
  return [];
}

/**
 * The devices that would be reserved for a wish, best first, with spares after them; nothing is reserved.
 * @returns their class, and the greatest price of an hour among them
 * @throws no-devices, bad-gang, lease-time-out-of-bounds for a lease that is too short
 */
export async function chooseForWish(options: {
  client: ChainClient;
  wish: RentalWish;
  offers: readonly DeviceOffer[];
}): Promise<{ deviceClass: string; chosen: ChosenDevice[]; dearest: bigint }> {
  const { client, wish, offers } = options;
  const [times, bounds, now] = await Promise.all([readMarketTimes(client), readLeaseBounds(client), client.now()]);
  checkLength(wish.seconds, bounds);
  const from = now + BigInt(bounds.leadSeconds) + SLACKS_SECONDS[0];
  const until = from + BigInt(wish.seconds);
  const fit = offers.filter(({ collateral }) => collateral >= wish.collateralMin);
  const views = fit.map((offer) => viewOf(offer, { isInterruptible: wish.isInterruptible, noticeSeconds: times.noticeSeconds }));
  const choose = (deviceClass?: string) =>
    chooseDevices(createDeviceIndex(views), {
      needs: { ...NO_NEEDS, ...wish.needs, deviceClass },
      ...{ count: wish.count, token: wish.token, priceMax: wish.priceMax, from: Number(from), until: Number(until), determinism: 'none' },
      ...{ noticeSecondsMin: wish.noticeSecondsMin ?? 0, isInterruptible: wish.isInterruptible, storedBytes: new Map(), inputBytes: 0 },
      ...{ perOperatorMax: wish.count + SPARES, spares: SPARES, excluded: wish.excluded ?? new Set<bigint>() },
    });
  const classOf = (deviceId: bigint) => fit.find((offer) => offer.deviceId === deviceId)?.deviceClass as string;
  const deviceClass = wish.deviceClass ?? wish.needs?.deviceClass ?? classOf((choose()[0] as ChosenDevice).deviceId);
  const chosen = choose(deviceClass);
  const dearest = chosen
    .map(({ deviceId }) => views.find((view) => view.deviceId === deviceId)?.prices[wish.token] as bigint)
    .reduce(greater, 0n);
  return { deviceClass, chosen, dearest };
}

/** The time that the next block will have, as far as the chain says it: the latest one may be old. */
async function presentTime(client: ChainClient): Promise<bigint> {
  const pending = await client.public.getBlock({ blockTag: 'pending' }).then(
    ({ timestamp }) => timestamp,
    () => 0n,
  );
  return greater(await client.now(), pending);
}

/**
 * Leases the same device for a time that follows a lease at once: an extension, which the market takes up to its least lead before that lease's
 * end. At the device's price of now.
 * @throws lease-time-out-of-bounds for one that is too short, device-not-free when it is taken or no longer on offer on these terms, lease-is-over, and the sender's errors
 */
export async function extendLease(options: {
  client: ChainClient;
  sender: Sender;
  lease: LeaseView;
  seconds: number;
  priceMax?: bigint;
}): Promise<LeaseView> {
  const { client, sender, lease, seconds } = options;
  const [offer, now, bounds] = await Promise.all([
    client.read('computeMarket', 'offerOf', [lease.deviceId]),
    presentTime(client),
    readLeaseBounds(client),
  ]);
  const stable = client.address('stableToken').toLowerCase();
  checkLength(seconds, bounds);
  if (lease.until < now + BigInt(bounds.leadSeconds)) throw leaseIsOver(lease, now);
  const full = lease.token.toLowerCase() === stable ? offer.stablePrice : offer.nativePrice;
  const hourly = lease.interruptible ? (full * BigInt(offer.interruptibleBps) + BPS - 1n) / BPS : full;
  if (hourly === 0n || (options.priceMax !== undefined && hourly > options.priceMax)) throw notFree(lease, hourly);
  const token = lease.token.toLowerCase() === stable ? 'stable' : 'native';
  const { price, fees } = costOf(hourly, { seconds, token });
  await provideMoney({ client, sender, token: lease.token, amount: price + fees, spender: client.address('computeMarket') });
  const request = {
    deviceClass: offer.deviceClass,
    token: lease.token,
    priceMax: hourly,
    from: lease.until,
    until: lease.until + BigInt(seconds),
    agent: lease.agent,
    interruptible: lease.interruptible,
    collateralMin: lesser(lease.collateral, offer.collateral),
  };
  try {
    const [next] = await sendReservation({ client, sender }, request, [{ deviceId: lease.deviceId, hint: lease.leaseId }], 1n);
    return next as LeaseView;
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'gang-incomplete') throw notFree(lease, hourly, error);
    throw error;
  }
}

/** Ends a lease: the renter's with the interval that runs. @returns when. @throws lease-is-over, not-party, and the sender's errors */
export async function endLease({ sender, leaseId }: { sender: Sender; leaseId: bigint }): Promise<bigint> {
  const receipt = await sender.send({ contract: 'computeMarket', functionName: 'end', args: [leaseId] });
  return eventArgs(receipt, 'computeMarket', 'LeaseEnded').until;
}

/** What a lease of one device costs at most. */
export function costOf(hourly: bigint, { seconds, token }: { seconds: number; token: 'stable' | 'native' }): ReservationCost {
  const up = (amount: bigint, by: bigint) => (amount + by - 1n) / by;
  const price = up(hourly * BigInt(seconds), HOUR);
  const fees = up(price * RESERVATION_FEE_BPS, BPS) + (token === 'stable' ? up(price * STABLE_FEE_BPS, BPS) : 0n);
  return { price, fees };
}

/** The address of the token that leases are paid in. */
export function tokenOf(client: ChainClient, token: 'stable' | 'native'): Address {
  return client.address(token === 'stable' ? 'stableToken' : 'computeToken');
}

/** Sees that the sender's account at the rails holds an amount that a contract may take. @throws insufficient-balance, and the sender's errors */
export async function provideMoney(options: {
  client: ChainClient;
  sender: Sender;
  token: Address;
  amount: bigint;
  spender: Address;
}): Promise<void> {
  const { client, sender, token, amount, spender } = options;
  const account = sender.address;
  const [held, allowed] = await Promise.all([
    client.read('rails', 'balanceOf', [token, account]),
    client.read('rails', 'allowanceOf', [account, spender, token]),
  ]);
  const module = token === client.address('stableToken') ? 'stableToken' : 'computeToken';
  if (held < amount) {
    const wallet = await client.read(module, 'balanceOf', [account]);
    if (wallet < amount - held) throw tooPoor(module, amount, held + wallet);
    await sender.send({ contract: module, functionName: 'approve', args: [client.address('rails'), amount - held] });
    await sender.send({ contract: 'rails', functionName: 'deposit', args: [token, account, amount - held] });
  }
  if (allowed < amount) await sender.send({ contract: 'rails', functionName: 'approve', args: [spender, token, amount] });
}

type ReserveArgs = Parameters<typeof reserveArgs>;

async function sendReservation({ client, sender }: { client: ChainClient; sender: Sender }, ...given: ReserveArgs): Promise<LeaseView[]> {
  const receipt = await sender.send({ contract: 'computeMarket', functionName: 'reserve', args: reserveArgs(...given) });
  const opened = receipt.events.flatMap((event: AnyChainEvent) =>
    event.module === 'computeMarket' && event.name === 'LeaseOpened' ? [event.args.leaseId] : [],
  );
  return await Promise.all(opened.map((leaseId) => readLease(client, leaseId)));
}

function reserveArgs(
  request: {
    deviceClass: `0x${string}`;
    token: Address;
    priceMax: bigint;
    from: bigint;
    until: bigint;
    agent: Address;
    interruptible: boolean;
    collateralMin: bigint;
  },
  candidates: readonly { deviceId: bigint; hint: bigint }[],
  wanted: bigint,
) {
  return [request, candidates, wanted] as const;
}

function checkLength(seconds: number, { leaseSecondsMin }: LeaseBounds): void {
  if (seconds >= leaseSecondsMin) return;
  throw new MillraceError('lease-time-out-of-bounds', {
    actor: 'caller',
    message: `Got a lease of ${seconds} seconds, expected ${leaseSecondsMin} or more`,
    values: { seconds, secondsMin: leaseSecondsMin },
    hint: 'Rent for longer: who ends a rental early pays only for the time up to there.',
  });
}

function tooPoor(token: string, needed: bigint, held: bigint): MillraceError {
  return new MillraceError('insufficient-balance', {
    actor: 'caller',
    message: `The rental costs ${needed} base units with its fees, and the wallet holds ${held}`,
    values: { token, needed, held },
    hint: 'Rent for a shorter time or fewer machines, or get more of the token; --token native pays in the compute network’s own.',
  });
}

function notFree({ leaseId, deviceId }: LeaseView, hourly: bigint, cause?: unknown): MillraceError {
  return new MillraceError('device-not-free', {
    actor: 'peer',
    message: `Device ${deviceId} cannot be had for longer on these terms after lease ${leaseId}`,
    values: { leaseId, deviceId, pricePerHour: hourly },
    hint: 'Somebody has it then, or its price or offer has changed: rent another, and copy your files over.',
    cause,
  });
}

function leaseIsOver({ leaseId, until }: LeaseView, now: bigint): MillraceError {
  return new MillraceError('lease-is-over', {
    actor: 'caller',
    message: `Lease ${leaseId} ends at ${until}, now it is ${now}: too late to extend it`,
    values: { leaseId, until, now },
    hint: 'Rent again.',
  });
}
