import {
  type DeviceOffer,
  endLease,
  extendLease,
  findRental,
  listDeviceOffers,
  listRentals,
  type RentalView,
  readMarketTimes,
  reserveDevices,
} from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { formatAmount, formatSize, greater, parseAmount, parseSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { ensureRentAgent } from './rent-agent.ts';
import { makeReady } from './rent-ready.ts';
import { openWallet } from './secrets.ts';
import { openSender } from './sending.ts';
import { decimalsOf, openSession, type Session } from './session.ts';

/** Options of `millrace rent`. */
export interface RentOptions {
  class?: string;
  hours?: string;
  maxPrice?: string;
  count?: string;
  cpus?: string;
  memory?: string;
  token?: string;
  interruptible: boolean;
  collateral?: string;
  wait: boolean;
}

const STAKE_DECIMALS = 18;
const HOURS_MAX = 24 * 365;

/** Machines on offer. */
export async function offers(context: CommandContext, options: { class?: string }): Promise<void> {
  const session = await openSession(context);
  const items = await listDeviceOffers(session.client, { deviceClass: options.class });
  const now = await session.client.now();
  const symbols = { stable: symbolOf(session, 'stable'), native: symbolOf(session, 'compute') };
  const shown = items.map(({ busy, ...offer }) => ({ ...offer, isFree: !busy.some((slot) => slot.from <= now && now < slot.until) }));
  context.output.result({ items: shown, unit: symbols, next: null }, () => {
    if (items.length === 0) return 'Nobody offers machines now. A node that computes offers one: millrace up --with compute';
    const rows = items.map((offer) => offerRow(session, offer, now));
    const head = [
      'device',
      'class',
      'cores',
      'memory',
      'engine',
      `${symbols.stable}/h`,
      `${symbols.native}/h`,
      'interruptible',
      'collateral',
      'rank',
      'up',
      'now',
    ];
    return `${table(head, rows)}\nRank and up: what the posted hours of health say (millrace devices); - : nothing yet. The supplier can see what runs on its machine. Interruptible: the share of the price, for a rental that it may end with a notice.`;
  });
}

function offerRow(session: Session, offer: DeviceOffer, now: bigint): string[] {
  const { document, health, prices, interruptibleBps, busy } = offer;
  const isBusy = busy.some((slot) => slot.from <= now && now < slot.until);
  return [
    `${offer.deviceId} of operator ${offer.operatorId}`,
    offer.deviceClass,
    document === undefined ? '?' : String(document.cpus),
    document === undefined ? '?' : formatSize(document.memoryBytes),
    document?.engine ?? '?',
    prices.stable === 0n ? '-' : formatAmount(prices.stable, decimalsOf(session, 'stable')),
    prices.native === 0n ? '-' : formatAmount(prices.native, decimalsOf(session, 'native')),
    interruptibleBps === 0 ? 'no' : `${interruptibleBps / 100} %`,
    formatAmount(offer.collateral, STAKE_DECIMALS),
    health === undefined || health.rank === 0 ? '-' : String(health.rank),
    health === undefined || health.hoursPosted === 0 ? '-' : `${health.uptimeBps / 100} %`,
    document === undefined ? 'does not answer' : isBusy ? 'taken' : 'free',
  ];
}

/** Reserves machines, starts what speaks for the renter, and waits until they answer. */
export async function rent(context: CommandContext, command: readonly string[], options: RentOptions): Promise<void> {
  const token = tokenChoice(options.token ?? 'stable');
  const session = await openSender(context);
  const { client, sender } = session;
  const decimals = decimalsOf(session, token);
  const { leases, list } = await (async () => {
    try {
      const found = await listDeviceOffers(client, { deviceClass: options.class });
      const dearest = found.map(({ prices }) => prices[token]).reduce(greater, 0n);
      const wish = {
        deviceClass: options.class,
        needs: {
          ...(options.cpus === undefined ? {} : { milliCpus: Math.ceil(numberOf('--cpus', options.cpus, 10_000) * 1000) }),
          ...(options.memory === undefined ? {} : { memoryBytes: Number(parseSize(options.memory)) }),
        },
        count: Math.round(numberOf('--count', options.count ?? '1', 128)),
        seconds: secondsOf(options.hours ?? '1'),
        token,
        priceMax: options.maxPrice === undefined ? dearest : parseAmount(options.maxPrice, decimals),
        isInterruptible: options.interruptible,
        collateralMin: parseAmount(options.collateral ?? '0', STAKE_DECIMALS),
      } as const;
      return { leases: await reserveDevices({ client, sender, wish, offers: found }), list: found };
    } finally {
      sender.close();
    }
  })();
  const agent = await ensureRentAgent(context, session);
  for (const { leaseId } of options.wait ? leases : []) {
    await makeReady(context, session, { leaseId, ...(command.length > 0 ? { main: { argv: command } } : {}) });
  }
  if (!options.wait && command.length > 0)
    context.output.note('The command is started with `millrace exec`: with --no-wait nobody waits for the machine.');
  const items = leases.map((lease) => ({
    ...lease,
    rentalId: lease.leaseId,
    endpoint: list.find(({ deviceId }) => deviceId === lease.deviceId)?.endpoint,
  }));
  context.output.result({ items, agent, next: null }, () => {
    const lines = leases.map(
      ({ leaseId, deviceId, from, until }) =>
        `Rental ${leaseId}: device ${deviceId} for ${until - from} seconds, until ${timeText(until)}.`,
    );
    const [first] = leases;
    return [...lines, agentText(agent), `Next: millrace exec ${first?.leaseId} -- uname -a`].join('\n');
  });
}

/** What this wallet rents or has rented. */
export async function rentals(context: CommandContext, options: { all: boolean }): Promise<void> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const found = await listRentals(session.client, signer.address);
  const items = await Promise.all(
    found.filter(({ state }) => options.all || state !== 'closed').map((rental) => describeRental(session, rental)),
  );
  // Also for one that has ended: where its node does not settle it, the agent does.
  if (items.some(({ state }) => state !== 'closed')) await ensureRentAgent(context, session);
  context.output.result({ items, next: null }, () => {
    if (items.length === 0) return 'Nothing is rented. See `millrace offers`, then `millrace rent`.';
    const rows = items.map((item) => [
      String(item.rentalId),
      item.settledAfter === null ? item.state : `ended, settled after ${timeText(item.settledAfter)}`,
      String(item.deviceId),
      timeText(item.until),
      item.isInterruptible ? 'yes' : 'no',
      `${item.upSeconds} s`,
      `${item.downSeconds} s`,
      `${formatAmount(item.paid, item.decimals)} ${item.unit}`,
      `${formatAmount(item.returned, item.decimals)} ${item.unit}`,
      formatAmount(item.compensation, STAKE_DECIMALS),
    ]);
    const head = ['rental', 'state', 'device', 'until', 'interruptible', 'up', 'down', 'paid', 'returned', 'compensation'];
    return `${table(head, rows)}\nUp and down are on chain so far; paid and returned is what is settled. Returned money lies in your account at the rails and pays the next rental.`;
  });
}

async function describeRental(session: Session, rental: RentalView) {
  const { client } = session;
  const { speakSeconds } = await readMarketTimes(client);
  const isStable = rental.current.token.toLowerCase() === client.address('stableToken').toLowerCase();
  let [paid, returned, compensation, upSeconds, downSeconds] = [0n, 0n, 0n, 0n, 0n];
  for (const { leaseId, railId } of [...rental.leases, ...rental.unused]) {
    const [track, [up, down], freed] = await Promise.all([
      client.read('rails', 'rail', [railId]),
      client.read('computeMarket', 'recordOf', [leaseId]),
      client.events({ name: 'computeMarket', event: 'CollateralFreed', args: { leaseId } }),
    ]);
    [paid, returned, upSeconds, downSeconds] = [paid + track.paid, returned + track.refunded, upSeconds + up, downSeconds + down];
    compensation += freed.reduce((sum, { args }) => sum + args.compensation, 0n);
  }
  return {
    rentalId: rental.rentalId,
    state: rental.state,
    leases: rental.leases.map(({ leaseId }) => leaseId),
    operatorId: rental.current.operatorId,
    deviceId: rental.current.deviceId,
    isInterruptible: rental.current.interruptible,
    collateral: rental.current.collateral,
    from: rental.from,
    until: rental.until,
    /** From when its money moves; null while it runs, and when that is done. */
    settledAfter: rental.state === 'ended' ? settledAfter(rental, speakSeconds) : null,
    upSeconds,
    downSeconds,
    paid,
    returned,
    compensation,
    unit: symbolOf(session, isStable ? 'stable' : 'compute'),
    decimals: decimalsOf(session, isStable ? 'stable' : 'native'),
  };
}

/** From when all its leases can be settled; one without time can be at any moment. */
function settledAfter({ leases, current }: RentalView, speakSeconds: number): bigint {
  const open = leases.filter(({ closed, from, until }) => !closed && until > from);
  return open.map(({ until }) => until + BigInt(speakSeconds)).reduce(greater, current.until);
}

/** Rents the machine of a rental for longer. */
export async function extend(context: CommandContext, text: string, options: { hours: string; maxPrice?: string }): Promise<void> {
  const session = await openSender(context);
  const { client, sender, signer } = session;
  try {
    const rental = await findRental(client, { renter: signer.address, leaseId: rentalNumber(text) });
    const last = rental.leases.at(-1) as RentalView['current'];
    const isStable = last.token.toLowerCase() === client.address('stableToken').toLowerCase();
    const decimals = decimalsOf(session, isStable ? 'stable' : 'native');
    const priceMax = options.maxPrice === undefined ? undefined : parseAmount(options.maxPrice, decimals);
    const next = await extendLease({ client, sender, lease: last, seconds: secondsOf(options.hours), priceMax });
    context.output.result(
      { rentalId: rental.rentalId, leaseId: next.leaseId, until: next.until },
      () => `Rental ${rental.rentalId} now ends at ${timeText(next.until)}; what is in it stays.`,
    );
  } finally {
    sender.close();
  }
}

/** Ends a rental and what extends it. */
export async function endRental(context: CommandContext, text: string): Promise<void> {
  const { client, sender, signer } = await openSender(context);
  try {
    const rental = await findRental(client, { renter: signer.address, leaseId: rentalNumber(text) });
    const now = await client.now();
    let until: bigint | undefined;
    for (const lease of rental.leases.filter((each) => each.until > now && each.until > each.from).reverse()) {
      until = await endLease({ sender, leaseId: lease.leaseId }).catch((error: unknown) => {
        // It runs in its last interval: it ends by itself.
        if (error instanceof MillraceError && error.code === 'lease-is-over') return lease.until;
        throw error;
      });
    }
    if (until === undefined) throw isOver(rental);
    context.output.result(
      { rentalId: rental.rentalId, until },
      () => `Rental ${rental.rentalId} ends at ${timeText(until as bigint)}. What was not used returns when its last seconds are settled.`,
    );
  } finally {
    sender.close();
  }
}

/** The number of a rental. @throws bad-option */
export function rentalNumber(text: string): bigint {
  if (/^[1-9]\d{0,18}$/.test(text)) return BigInt(text);
  throw badOption('the rental', text, 'its number, as `millrace rentals` shows it');
}

/** Seconds of a number of hours. @throws bad-option */
export function secondsOf(hours: string): number {
  return Math.max(1, Math.round(numberOf('--hours', hours, HOURS_MAX) * 3600));
}

function numberOf(name: string, text: string, most: number): number {
  const value = /^\d{1,9}(\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN;
  if (value > 0 && value <= most) return value;
  throw badOption(name, text, `a number above 0, at most ${most}`);
}

/** One of the two tokens that computing is paid in. @throws bad-option */
export function tokenChoice(text: string): 'stable' | 'native' {
  if (text === 'stable' || text === 'native') return text;
  throw badOption('--token', text, 'stable or native');
}

function badOption(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got "${got.slice(0, 60)}" for ${name}, expected ${expected}`,
    values: { name, got: got.slice(0, 60), expected },
  });
}

function isOver({ rentalId, until }: RentalView): MillraceError {
  return new MillraceError('lease-is-over', {
    actor: 'caller',
    message: `Rental ${rentalId} ended at ${timeText(until)}`,
    values: { rentalId, until },
    hint: 'See `millrace rentals --all`.',
  });
}

function symbolOf({ manifest }: Session, token: 'stable' | 'compute'): string {
  return manifest.tokens[token]?.symbol ?? token;
}

/** A second of protocol time, for people. */
export const timeText = (time: bigint) => new Date(Number(time) * 1000).toISOString().replace('.000Z', 'Z');

/** Whether somebody speaks for the renter, for people. */
export const agentText = (agent: { isRunning: boolean }) =>
  agent.isRunning
    ? 'Your agent runs in the background and signs what is to be paid.'
    : 'Your agent is NOT running: start `millrace rent-agent` in another terminal, or drawn probers speak for you.';
