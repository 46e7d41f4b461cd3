import { join } from 'node:path';
import { type Address, type Hex, hexToBytes, isAddressEqual } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { createInferenceReceipts } from '../serving/receipt.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';
import { type Beacon, fetchPulses, type PulseSource } from '../subnets/beacon.ts';
import { readSubnet, type Subnet } from '../subnets/metagraph.ts';
import { createOpinionAgent } from '../subnets/opinion-agent.ts';
import { ensurePermit } from '../subnets/subnet-actions.ts';
import type { JudgedMiner, JudgingPorts, ShownRequest } from './judging-ports.ts';
import type { ProbeAccount } from './probe-accounts.ts';
import type { JudgedModel } from './replay.ts';
import { type Seat, surveySeats } from './seat-survey.ts';
import { type JudgingRules, openValidator, type Validator, type ValidatorOptions } from './validator.ts';

/** A validator's place in a subnet, and what it works with. */
export interface SubnetJudgeOptions {
  client: ChainClient;
  /** Of the operator's node key. */
  sender: Sender;
  subnetId: bigint;
  uid: number;
  folder: string;
  modelOf: (root: Hex) => JudgedModel | undefined;
  stock: ValidatorOptions['stock'];
  accounts: readonly ProbeAccount[];
  /** Servers with drand's HTTP API that may have the pulses of the subnet's beacon; without any the judge opens its own commits only. */
  pulseUrls?: () => readonly string[];
  /** What one token of the inference network is worth, base units of the network's token. */
  emissionPrice: bigint;
  rules?: Partial<JudgingRules>;
  /** Gets the receipts of own probes, also those that are no good. */
  onReceipt?: (encoded: string) => void;
  /** Is told of a user's request whose answer an exact re-run has refuted. */
  onRefuted?: ValidatorOptions['onRefuted'];
  /** Closes and settles epochs that are due; what fails is tried again in the next round. */
  settle?: () => Promise<void>;
  /** Between two rounds, milliseconds. Default 2,000. */
  roundMs?: number;
  log: Logger;
}

/** A validator that works. */
export interface SubnetJudge {
  /** The miner that it judges whose operator has this key, and where that is asked. */
  seatOf(nodeKey: Address): Pick<JudgedMiner, 'uid' | 'operatorId' | 'paths'> | undefined;
  /**
   * Takes users' requests that a gateway shows, checked by {@link createShownDesk}, and how many paid ones there were in all. In memory only, and
   * bounded, by payer too: the oldest are dropped.
   */
  show(requests: readonly ShownRequest[], paid: number): void;
  status(): Record<string, unknown>;
  stop(): Promise<void>;
}

const ROUND_MS = 2_000;
const SURVEY_MS = 30_000;
/** At first others may just be starting too. */
const FIRST_SURVEYS = 6;
const FIRST_SURVEY_MS = 5_000;
const PULSES_MAX = 64;
const SHOWN_MAX = 256;
const SHOWN_BYTES_MAX = 32 << 20;
const SHOWN_OF_PAYER_MAX = 64;
const BLOCK_SECONDS = 12n;
const TOKEN = 10n ** 18n;
const MILLIONTHS = 1_000_000n;
/** 41 %: half of what the owner's 11,796 parts of 65,535 leave. */
const MINERS_PARTS = 53_739n;
const ALL_PARTS = 131_070n;
const BPS = 10_000n;

/** Starts judging a subnet: discovers its miners, probes them, runs requests again, commits and opens weights; goes on after every failure. */
export async function startSubnetJudge(options: SubnetJudgeOptions): Promise<SubnetJudge> {
  const { client, accounts, log } = options;
  const feeBps = await client.read('channels', 'feeBps');
  const world = createWorld(options);
  const validator = openValidator({
    folder: options.folder,
    ports: world.ports,
    codec: createInferenceReceipts(inferenceReceiptDomain(client)),
    modelOf: options.modelOf,
    stock: options.stock,
    accounts: accounts.map(({ weight }) => weight),
    onRefuted: options.onRefuted,
    rules: { ...options.rules, feeBps: feeBps < BPS ? feeBps : 0n },
    log,
  });
  return startRounds(validator, world, options);
}

function startRounds(validator: Validator, world: World, { subnetId, uid, roundMs = ROUND_MS }: SubnetJudgeOptions): SubnetJudge {
  const over = new AbortController();
  const running = validator.run(over.signal, roundMs);
  return {
    seatOf: world.seatOf,
    show: world.show,
    status: () => ({ subnetId: subnetId.toString(), uid, ...validator.status() }),
    async stop() {
      over.abort();
      await running;
    },
  };
}

interface World {
  ports: JudgingPorts;
  seatOf: SubnetJudge['seatOf'];
  show: SubnetJudge['show'];
}

function createWorld(options: SubnetJudgeOptions): World {
  const { client, subnetId, uid, sender, folder, accounts, log } = options;
  const pulses = options.pulseUrls === undefined ? undefined : pulsesOf(client, subnetId, options.pulseUrls);
  const agent = createOpinionAgent({ client, sender, subnetId, uid, folder: join(folder, 'opinions'), pulses, log });
  const domain = inferenceReceiptDomain(client);
  const shown: ShownRequest[] = [];
  let paid = 0;
  let seats = new Map<string, Seat>();
  let sink: number | undefined;
  let subnet: Subnet | undefined;
  let surveyedMs = Number.NEGATIVE_INFINITY;
  let surveys = 0;

  const survey = async (epoch: bigint) => {
    const isFresh = performance.now() - surveyedMs < (surveys < FIRST_SURVEYS ? FIRST_SURVEY_MS : SURVEY_MS) && subnet?.epoch === epoch;
    if (isFresh) return;
    subnet = await readSubnet(client, subnetId);
    const found = await surveySeats(client, { subnetId, kind: subnet.kind, domain, before: seats, log });
    seats = new Map(found.seats.map((seat) => [`${seat.uid}|${seat.operatorId}`, seat]));
    sink = found.sink;
    surveyedMs = performance.now();
    surveys += 1;
    await holdPermit(options);
  };
  const ports: JudgingPorts = {
    async look() {
      const now = await client.now();
      const epoch = await client.read('subnets', 'epochAt', [subnetId, now]);
      await survey(epoch);
      const { genesis, tempoSeconds } = subnet as Subnet;
      const startsAt = genesis + epoch * BigInt(tempoSeconds);
      // Its own uid is not judged: a validator has no say on itself.
      const miners = [...seats.values()].filter((seat) => seat.uid !== uid && seat.paths.length > 0);
      const emissionValue = await emissionValueOf(client, subnet as Subnet, options.emissionPrice);
      const returnedBps = await returnedBpsOf(client);
      return { now, epoch, startsAt, endsAt: startsAt + BigInt(tempoSeconds), miners, sink, emissionValue, returnedBps };
    },
    async ask(probe, miner, signal) {
      const seat = seats.get(`${miner.uid}|${miner.operatorId}`);
      const account = accounts[probe.account] ?? accounts[0];
      if (seat === undefined || account === undefined) return { outcome: 'excused', code: 'no-account' };
      const outcome = await account.send(probe, seat, signal);
      if (outcome.answered !== undefined) options.onReceipt?.(outcome.answered.receipt);
      return outcome;
    },
    async takeShown() {
      const taken = { requests: shown.splice(0), paid };
      paid = 0;
      return taken;
    },
    async commit(weights) {
      await agent.commit(weights);
    },
    async tend() {
      await agent.tend();
      await options.settle?.();
    },
  };
  return {
    ports,
    seatOf(nodeKey) {
      return [...seats.values()].find((one) => one.uid !== uid && one.paths.length > 0 && isAddressEqual(one.nodeKey, nodeKey));
    },
    show(requests, count) {
      paid += count;
      for (const request of requests) keepShown(shown, request);
    },
  };
}

/** Keeps a request among the shown ones: of a payer, and of all, the oldest give way. */
function keepShown(shown: ShownRequest[], request: ShownRequest): void {
  const own = shown.filter(({ payer }) => payer === request.payer);
  if (own.length >= SHOWN_OF_PAYER_MAX) shown.splice(shown.indexOf(own[0] as ShownRequest), 1);
  shown.push(request);
  let bytes = shown.reduce((sum, { requestBody, answer }) => sum + requestBody.length + answer.length, 0);
  while (shown.length > SHOWN_MAX || bytes > SHOWN_BYTES_MAX) {
    const oldest = shown.shift() as ShownRequest;
    bytes -= oldest.requestBody.length + oldest.answer.length;
  }
}

/** Pulses of whatever beacon the subnet declares now; which server they come from does not matter, their signature does. */
function pulsesOf(client: ChainClient, subnetId: bigint, urls: () => readonly string[]): PulseSource {
  const known = new Map<string, Uint8Array>();
  return {
    async pulse(round, signal) {
      const declared = await client.read('weightsBoard', 'beaconOf', [subnetId]);
      const beacon: Beacon = { ...declared, publicKey: hexToBytes(declared.publicKey) };
      if (beacon.publicKey.length === 0) return undefined;
      // All commits of an epoch wait for one round.
      const key = `${declared.publicKey}|${round}`;
      const pulse = known.get(key) ?? (await fetchPulses(beacon, urls()).pulse(round, signal));
      if (known.size >= PULSES_MAX) known.clear();
      if (pulse !== undefined) known.set(key, pulse);
      return pulse;
    },
  };
}

/** What storage's rewards give back of a burnt fee to whoever was paid, for whatever: the same fee must not come back whole by two ways. */
async function returnedBpsOf(client: ChainClient): Promise<bigint> {
  if (client.manifest.modules.rewards === undefined) return 0n;
  return BigInt((await client.read('rewards', 'config')).retrievalShareBps);
}

/** What the miners' part of one epoch's emission is worth. */
async function emissionValueOf(client: ChainClient, { tempoSeconds, emissionShareMillionths }: Subnet, price: bigint): Promise<bigint> {
  const rate = await client.read('subnetEmission', 'rateAt', [await client.read('subnetEmission', 'issued')]);
  const emission = (rate * BigInt(tempoSeconds) * BigInt(emissionShareMillionths)) / (BLOCK_SECONDS * MILLIONTHS);
  return (((emission * MINERS_PARTS) / ALL_PARTS) * price) / TOKEN;
}

/** Sees to its permit: there is none until the stake counts, while no seat is free, and after a bar. It looks on without one. */
async function holdPermit({ client, subnetId, uid, sender, log }: SubnetJudgeOptions): Promise<void> {
  try {
    if (!(await ensurePermit(client, { sender, subnetId, uid }))) log.info('no-permit', { subnetId, uid, reason: 'refused' });
  } catch (error) {
    log.info('no-permit', { subnetId, uid, reason: toMillraceError(error).code });
  }
}
