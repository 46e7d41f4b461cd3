import { type Hex, hexToBytes } from 'viem';
import { type ChainClient, firstBlockAtOrAfter, readSeed } from '../../chain/index.ts';
import { NOBODY, partnerOf } from './draw.ts';
import { type Figure, figureOf, type PairStatement, REASONS, type Reason } from './figures.ts';
import { PAGE_SEATS, statementIn } from './report-data.ts';

/** The rule of health as the contract was deployed with it; times in seconds unless the name says otherwise. */
export type HealthRule = Awaited<ReturnType<typeof readHealthRule>>;

/** Who has a seat in the hours [from, until). */
export interface Occupant {
  seat: number;
  deviceId: bigint;
  operatorId: bigint;
  from: number;
  until: number | undefined;
  rate: number;
  memoryMbs: number;
  deviceClass: Hex;
  /** Why it left. */
  reason?: Reason;
}

/** A proposal or a final result of an hour. */
export interface HourFigures {
  hour: number;
  operatorId: bigint;
  root: Hex;
  figures: Uint8Array;
  finalFrom: bigint;
  /** Which of all final hours it is; undefined while it is not final. */
  ordinal: bigint | undefined;
}

/** How far back a view looks. */
export interface HealthReach {
  /** Hours whose reports and figures are read and kept; left out: 200. */
  hours?: number;
  /** Whether reports are read: by far the most of what is logged, and needed for nothing but to compute figures again. Left out: yes. */
  reports?: boolean;
}

const HOURS_KEPT = 200;
const ENDLESS = Number.POSITIVE_INFINITY;

/** Reads the rule and the beginning of hour 1. @throws unknown-module, chain-unreachable */
export async function readHealthRule(client: ChainClient) {
  const [config, startTime] = await Promise.all([client.read('computeHealth', 'config'), client.read('computeHealth', 'startTime')]);
  return { ...config, startTime };
}

/**
 * What the chain has logged of health: seats, reports, proposals, final hours. `refresh` reads what is new; everything else answers from memory and
 * by the rules of the contract. Seats are kept from the first one on, hours as far as the view reaches.
 */
export class HealthView {
  readonly client: ChainClient;
  readonly rule: HealthRule;
  readonly #reach: Required<HealthReach>;
  readonly #occupants = new Map<number, Occupant[]>();
  readonly #byDevice = new Map<bigint, Occupant[]>();
  /** Hour from which on each seat is drawn over, by number of the seat. */
  readonly #seatFrom: number[] = [];
  readonly #reports = new Map<number, Map<string, Uint8Array>>();
  readonly #hours = new Map<number, HourFigures>();
  readonly #seeds = new Map<number, Hex>();
  #read: bigint | undefined;
  #refreshing: Promise<void> = Promise.resolve();

  private constructor(client: ChainClient, rule: HealthRule, { hours = HOURS_KEPT, reports = true }: HealthReach) {
    this.client = client;
    this.rule = rule;
    this.#reach = { hours, reports };
  }

  /** @throws unknown-module, chain-unreachable */
  static async open(client: ChainClient, reach: HealthReach = {}): Promise<HealthView> {
    const view = new HealthView(client, await readHealthRule(client), reach);
    await view.refresh();
    return view;
  }

  /** Reads what is new; calls at the same time come one after another, so nothing is taken in twice. @throws chain-unreachable */
  refresh(): Promise<void> {
    this.#refreshing = this.#refreshing.catch(() => {}).then(() => this.#readNew());
    return this.#refreshing;
  }

  async #readNew(): Promise<void> {
    const head = await this.client.public.getBlockNumber({ cacheTime: 0 });
    const fromBlock = this.#read === undefined ? undefined : this.#read + 1n;
    if (fromBlock !== undefined && fromBlock > head) return;
    const range = { name: 'computeHealth', fromBlock, toBlock: head } as const;
    const ofHours = { ...range, fromBlock: fromBlock ?? (await this.#firstBlockOfHours()) };
    const [taken, left, reported, proposed, refuted, final] = await Promise.all([
      this.client.events({ ...range, event: 'SeatTaken' }),
      this.client.events({ ...range, event: 'SeatLeft' }),
      this.#reach.reports ? this.client.events({ ...ofHours, event: 'Reported' }) : [],
      this.client.events({ ...ofHours, event: 'FiguresProposed' }),
      this.client.events({ ...ofHours, event: 'FiguresRefuted' }),
      this.client.events({ ...ofHours, event: 'HourFinal' }),
    ]);
    const order = (one: { blockNumber: bigint; logIndex: number }) => Number(one.blockNumber) * 1e5 + one.logIndex;
    for (const event of [...taken, ...left].sort((one, other) => order(one) - order(other))) {
      if (event.name === 'SeatTaken') this.#take(event.args as (typeof taken)[number]['args']);
      else this.#leave(event.args as (typeof left)[number]['args']);
    }
    for (const { args } of reported) this.#keepReport(args);
    for (const event of [...proposed, ...refuted].sort((one, other) => order(one) - order(other))) {
      const { hour } = event.args;
      if (event.name === 'FiguresRefuted') this.#hours.delete(hour);
      else this.#keepProposal((event as (typeof proposed)[number]).args);
    }
    for (const { args } of final) {
      const hour = this.#hours.get(args.hour);
      if (hour !== undefined) hour.ordinal = args.ordinal;
    }
    this.#read = head;
    this.#forget();
  }

  /** All that is said of an hour is said after its end, so earlier blocks need not be looked at; undefined: from the contract's first block on. */
  async #firstBlockOfHours(): Promise<bigint | undefined> {
    const oldest = this.hourAt(await this.client.now()) - this.#reach.hours;
    return oldest <= 1 ? undefined : firstBlockAtOrAfter(this.client, this.startOf(oldest));
  }

  hourAt(time: bigint): number {
    return Number((time - this.rule.startTime) / BigInt(this.rule.hourSeconds)) + 1;
  }

  startOf(hour: number): bigint {
    return this.rule.startTime + BigInt(hour - 1) * BigInt(this.rule.hourSeconds);
  }

  /** How many seats an hour's draw is over. */
  seatsAt(hour: number): number {
    let count = this.#seatFrom.length;
    while (count > 0 && (this.#seatFrom[count - 1] as number) > hour) count -= 1;
    return count;
  }

  occupantAt(seat: number, hour: number): Occupant | undefined {
    return this.#occupants.get(seat)?.findLast(({ from, until }) => from <= hour && hour < (until ?? ENDLESS));
  }

  /** All devices with a seat in an hour, by seat. */
  occupantsAt(hour: number): Occupant[] {
    return Array.from({ length: this.seatsAt(hour) }, (_, seat) => this.occupantAt(seat, hour)).filter((one) => one !== undefined);
  }

  /** All that a device has ever sat on, the last one last. */
  seatsOfDevice(deviceId: bigint): readonly Occupant[] {
    return this.#byDevice.get(deviceId) ?? [];
  }

  /** The seat of a device in an hour. */
  seatOfDevice(deviceId: bigint, hour: number): Occupant | undefined {
    return this.seatsOfDevice(deviceId).findLast(({ from, until }) => from <= hour && hour < (until ?? ENDLESS));
  }

  /** The hour's randomness; undefined before the hour. @throws chain-unreachable */
  async seedOf(hour: number): Promise<Hex | undefined> {
    const known = this.#seeds.get(hour);
    if (known !== undefined) return known;
    const seed = await readSeed(this.client, this.startOf(hour));
    if (seed !== undefined) this.#seeds.set(hour, seed);
    return seed;
  }

  /** Partners of a seat whose word counts: of another operator, and the first of that operator. */
  partnersOf(hour: number, seat: number, seed: Hex): { round: number; partner: Occupant }[] {
    const own = this.occupantAt(seat, hour)?.operatorId;
    const found: { round: number; partner: Occupant }[] = [];
    for (const { round, partner } of this.drawnPartners(hour, seat, seed)) {
      const { operatorId } = partner;
      if (operatorId !== own && !found.some((one) => one.partner.operatorId === operatorId)) found.push({ round, partner });
    }
    return found;
  }

  /** Whom each round gives a seat, those of its own operator and seats that are vacant left out: whom it measures. */
  drawnPartners(hour: number, seat: number, seed: Hex): { round: number; partner: Occupant }[] {
    const seats = this.seatsAt(hour);
    const own = this.occupantAt(seat, hour)?.operatorId;
    return Array.from({ length: this.rule.rounds }, (_, round) => {
      const other = seat < seats ? partnerOf(seed, { round, seat, seats }) : undefined;
      const partner = other === undefined || other === NOBODY ? undefined : this.occupantAt(other, hour);
      return partner === undefined || partner.operatorId === own ? [] : [{ round, partner }];
    }).flat();
  }

  /** What an operator reported of a page in an hour. */
  report(hour: number, operatorId: bigint, page: number): Uint8Array | undefined {
    return this.#reports.get(hour)?.get(`${operatorId}/${page}`);
  }

  /** A seat's figure from what was reported, by the contract's rule. */
  compute(hour: number, seat: number, seed: Hex): Figure {
    const device = this.occupantAt(seat, hour);
    if (device === undefined) return { performance: 0n, reason: 'vacant' };
    return figureOf(this.rule, device, this.pairsOf(hour, device, seed));
  }

  /** What both ends of each pair that counts said; undefined where one said nothing. */
  pairsOf(hour: number, device: Occupant, seed: Hex): (PairStatement & { round: number; partner: Occupant })[] {
    const { rounds } = this.rule;
    const own = this.report(hour, device.operatorId, pageOf(device.seat));
    return this.partnersOf(hour, device.seat, seed).map(({ round, partner }) => {
      const theirs = this.report(hour, partner.operatorId, pageOf(partner.seat));
      const said = theirs === undefined ? undefined : statementIn(theirs, { rounds, seat: partner.seat, round });
      const back = own === undefined ? undefined : statementIn(own, { rounds, seat: device.seat, round });
      return { round, partner, said, back };
    });
  }

  /** The reports about a seat as `dispute` takes them: its own operator's first, then the partners'; only those that there are. */
  pagesFor(hour: number, seat: number, seed: Hex): Uint8Array[] {
    const device = this.occupantAt(seat, hour);
    if (device === undefined) return [];
    return [device, ...this.partnersOf(hour, seat, seed).map(({ partner }) => partner)]
      .map((one) => this.report(hour, one.operatorId, pageOf(one.seat)))
      .filter((page) => page !== undefined);
  }

  /** The proposal or final result of an hour. */
  figuresOf(hour: number): HourFigures | undefined {
    return this.#hours.get(hour);
  }

  /** Final hours that are kept, oldest first. */
  finalHours(): HourFigures[] {
    return [...this.#hours.values()].filter(({ ordinal }) => ordinal !== undefined).sort((one, other) => one.hour - other.hour);
  }

  #take(args: {
    seat: number;
    deviceId: bigint;
    operatorId: bigint;
    fromHour: number;
    rate: number;
    memoryMbs: number;
    deviceClass: Hex;
  }): void {
    const { seat, deviceId, operatorId, fromHour, rate, memoryMbs, deviceClass } = args;
    this.#seatFrom[seat] ??= fromHour;
    const all = this.#occupants.get(seat) ?? [];
    const occupant = { seat, deviceId, operatorId, from: fromHour, until: undefined, rate, memoryMbs, deviceClass };
    all.push(occupant);
    this.#occupants.set(seat, all);
    this.#byDevice.set(deviceId, [...this.seatsOfDevice(deviceId), occupant]);
  }

  #leave({ seat, untilHour, reason }: { seat: number; untilHour: number; reason: number }): void {
    const last = this.#occupants.get(seat)?.at(-1);
    if (last === undefined) return;
    if (last.from !== untilHour) {
      Object.assign(last, { until: untilHour, reason: REASONS[reason] });
      return;
    }
    this.#occupants.get(seat)?.pop();
    const others = this.seatsOfDevice(last.deviceId).filter((one) => one !== last);
    this.#byDevice.set(last.deviceId, others);
  }

  #keepReport({ operatorId, hour, page, data }: { operatorId: bigint; hour: number; page: number; data: Hex }): void {
    const reports = this.#reports.get(hour) ?? new Map<string, Uint8Array>();
    reports.set(`${operatorId}/${page}`, hexToBytes(data));
    this.#reports.set(hour, reports);
  }

  #keepProposal(args: { hour: number; operatorId: bigint; root: Hex; finalFrom: bigint; figures: Hex }): void {
    const { hour, operatorId, root, finalFrom } = args;
    this.#hours.set(hour, { hour, operatorId, root, finalFrom, figures: hexToBytes(args.figures), ordinal: undefined });
  }

  #forget(): void {
    for (const kept of [this.#reports, this.#hours, this.#seeds] as Map<number, unknown>[]) {
      const oldest = Math.max(0, ...kept.keys()) - this.#reach.hours;
      for (const hour of kept.keys()) if (hour < oldest) kept.delete(hour);
    }
  }
}

/** The page of reports that a seat is on. */
export function pageOf(seat: number): number {
  return Math.floor(seat / PAGE_SEATS);
}
