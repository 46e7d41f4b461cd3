import { lesser } from '../../units.ts';
import type { PeriodClock } from '../possession/periods.ts';
import {
  type Check,
  checkView,
  type EventArgs,
  type Handler,
  type ReadView,
  type Replay,
  type ReplayEvent,
  type Report,
} from './replay.ts';

const BPS = 10_000n;
/** Periods that one proof brings a rate forward by (ROLL_MAX of StorageRewards.sol). */
const ROLL_PERIODS = 32n;
/** More than there will ever be, and within the 48 bits of the contract's keys. */
const PERIODS_MAX = 1n << 40n;

/** The numbers of the rules, as the contracts were made with. */
export interface RewardRules {
  clock: Pick<PeriodClock, 'genesis' | 'period'>;
  /** The rewards contract: what it holds bounds what it grants. */
  address: string;
  /** Of a matched price, what is burnt. */
  orderFeeBps: bigint;
  storageShareBps: bigint;
  retrievalShareBps: bigint;
  baseBps: bigint;
  streakPeriods: bigint;
  vestSeconds: bigint;
  bucketSeconds: bigint;
}

interface Demand {
  client: string;
  pricePerPeriod: bigint;
  firstPeriod: bigint;
  endPeriod: bigint;
  /** Its fee counts in [from, to). */
  from: bigint;
  to: bigint;
  /** The period in which the piece came into the table while the deal's periods are not known yet. */
  cameIn: bigint | undefined;
}

interface Provider {
  beneficiary: string;
  deals: Set<bigint>;
  provenThrough: bigint;
  lastMiss: bigint;
  /** Unpaid and charged ones; after a failure the contract keeps those up to it, and counts every later period as unpaid. */
  misses: bigint;
  chargedMisses: bigint;
  failure: { at: bigint; misses: bigint; chargedMisses: bigint } | undefined;
  streak: bigint;
  earned: bigint;
  /** Up to which period its rate is brought forward. */
  rolledTo: bigint | undefined;
  due: { period: bigint; fees: bigint; reliability: bigint; reward: bigint; isOptional: boolean } | undefined;
}

interface Vesting {
  granted: bigint;
  claimed: bigint;
  buckets: Map<bigint, bigint>;
}

interface Books {
  rules: RewardRules;
  files: Set<string>;
  repairs: Set<bigint>;
  demands: Map<bigint, Demand>;
  providers: Map<bigint, Provider>;
  vestings: Map<string, Vesting>;
  feesBurnt: Map<string, bigint>;
  feesCounted: Map<string, bigint>;
  held: bigint;
  owed: bigint;
  cut: { earned: bigint; granted: bigint } | undefined;
}

/**
 * Rewards, from what they are earned by: burnt fees of matched deals whose pieces were proven, reliability by proofs and misses, fees burnt
 * by settlements; what was granted of it, vests and was claimed. The contract keeps a running rate per operator; here the fees of all of
 * its deals are added up for each proof.
 */
export function replayRewards(rules: RewardRules): Replay {
  const books: Books = {
    rules,
    files: new Set(),
    repairs: new Set(),
    demands: new Map(),
    providers: new Map(),
    vestings: new Map(),
    feesBurnt: new Map(),
    feesCounted: new Map(),
    held: 0n,
    owed: 0n,
    cut: undefined,
  };
  return {
    group: 'rewards',
    handlers: { ...demandHandlers(books), ...proofHandlers(books), ...moneyHandlers(books) },
    checks: (time) => rewardChecks(books, time),
    end(report) {
      for (const [operatorId, provider] of books.providers) reportUnpaid(operatorId, provider, report);
    },
  };
}

/** Reliability after `streak` periods proven in a row, basis points: from the base to the whole. */
function reliabilityOf({ baseBps, streakPeriods }: RewardRules, streak: bigint): bigint {
  if (streak === 0n) return 0n;
  const steps = streak - 1n < streakPeriods ? streak - 1n : streakPeriods;
  return baseBps + ((BPS - baseBps) * steps) / streakPeriods;
}

/** What of a vesting has vested at a time, claimed or not: each bucket evenly from its end on, rounded down. */
function vestedAt({ vestSeconds, bucketSeconds }: RewardRules, { buckets }: Vesting, time: bigint): bigint {
  let vested = 0n;
  for (const [bucket, amount] of buckets) {
    const since = time - (bucket + 1n) * bucketSeconds;
    if (since >= vestSeconds) vested += amount;
    else if (since > 0n) vested += (amount * since) / vestSeconds;
  }
  return vested;
}

function providerOf(books: Books, operatorId: bigint): Provider {
  let provider = books.providers.get(operatorId);
  if (provider === undefined) {
    const zeros = { provenThrough: 0n, lastMiss: -1n, misses: 0n, chargedMisses: 0n, streak: 0n, earned: 0n };
    provider = { beneficiary: 'unknown', failure: undefined, deals: new Set(), ...zeros, rolledTo: undefined, due: undefined };
    books.providers.set(operatorId, provider);
  }
  return provider;
}

function vestingOf(books: Books, account: string): Vesting {
  let vesting = books.vestings.get(account);
  if (vesting === undefined) {
    vesting = { granted: 0n, claimed: 0n, buckets: new Map() };
    books.vestings.set(account, vesting);
  }
  return vesting;
}

function demandHandlers(books: Books): Record<string, Handler> {
  const { demands, files, repairs, rules } = books;
  const demandOf = (args: EventArgs) => demands.get(args.int('dealId'));
  const periodOf = (event: ReplayEvent) => (event.time - rules.clock.genesis) / BigInt(rules.clock.period);
  const moveEnd: Handler = (args) => {
    const demand = demandOf(args);
    if (demand !== undefined) demand.endPeriod = args.int('endPeriod');
  };
  return {
    'orderBook.BidPosted': (args) => void files.add(args.account('file')),
    'orderBook.ClaimOpened': (args) => void repairs.add(args.int('dealId')),
    'storageMarket.DealOpened'(args) {
      const times = { firstPeriod: -1n, endPeriod: -1n, from: 0n, to: 0n, cameIn: undefined };
      demands.set(args.int('dealId'), { client: args.account('client'), pricePerPeriod: args.int('pricePerPeriod'), ...times });
    },
    'storageMarket.DealActivated'(args) {
      const demand = demandOf(args);
      if (demand === undefined) return;
      demand.firstPeriod = args.int('firstPeriod');
      demand.endPeriod = args.int('endPeriod');
      if (demand.cameIn !== undefined) comeIn(books, args, demand.cameIn);
    },
    'storageMarket.DealExtended': moveEnd,
    'storageMarket.DealEndsEarly': moveEnd,
    'possession.LeafInserted'(args, event) {
      const demand = demandOf(args);
      if (demand === undefined) return;
      if (demand.firstPeriod === -1n) demand.cameIn = periodOf(event);
      else comeIn(books, args, periodOf(event));
    },
    'possession.LeafRemoved'(args, event) {
      const demand = demandOf(args);
      if (demand === undefined || demand.to === 0n) return;
      const end = largest(periodOf(event), demand.from);
      if (end < demand.to) demand.to = end;
    },
  };
}

/** A piece is in the table from `current` on: its fee counts from the next period, and for no period twice. A repair's does not. */
function comeIn(books: Books, args: EventArgs, current: bigint): void {
  const dealId = args.int('dealId');
  const demand = books.demands.get(dealId) as Demand;
  const provider = providerOf(books, args.int('operatorId'));
  if (feeOf(books, demand) === 0n || books.repairs.has(dealId)) return;
  const from = largest(current + 1n, demand.firstPeriod, demand.to);
  if (from >= demand.endPeriod) return;
  demand.from = from;
  demand.to = demand.endPeriod;
  if (provider.rolledTo === undefined) provider.rolledTo = from - 1n;
  provider.deals.add(dealId);
}

function feeOf({ files, rules }: Books, { client, pricePerPeriod }: Demand): bigint {
  return files.has(client) ? (pricePerPeriod * rules.orderFeeBps) / BPS : 0n;
}

function proofHandlers(books: Books): Record<string, Handler> {
  return {
    'operators.OperatorRegistered'(args) {
      providerOf(books, args.int('operatorId')).beneficiary = args.account('beneficiary');
    },
    'operators.RotationFinished'(args) {
      if (args.int('role') === 1n) providerOf(books, args.int('operatorId')).beneficiary = args.account('newKey');
    },
    'possession.Missed'(args) {
      const provider = providerOf(books, args.int('operatorId'));
      provider.lastMiss = args.int('period');
      provider.misses += 1n;
      if (!args.flag('grace')) provider.chargedMisses += 1n;
    },
    'possession.TableFailed'(args) {
      const provider = providerOf(books, args.int('operatorId'));
      const { misses, chargedMisses } = provider;
      provider.failure = { at: args.int('period') + 1n, misses, chargedMisses };
    },
    'possession.Proven'(args, _event, report) {
      const operatorId = args.int('operatorId');
      const provider = providerOf(books, operatorId);
      reportUnpaid(operatorId, provider, report);
      provider.due = undefined;
      prove(books, provider, args.int('period'));
    },
    'rewards.PointsAdded'(args, event, report) {
      const operatorId = args.int('operatorId');
      const provider = providerOf(books, operatorId);
      const { due } = provider;
      provider.due = undefined;
      const of = `reward of operator ${operatorId} for period ${args.int('period')}`;
      if (due === undefined) report(of, 'none', args.int('reward'));
      else {
        if (due.period !== args.int('period')) report(`period of the ${of}`, due.period, args.int('period'));
        if (due.fees !== args.int('fees')) report(`fees behind the ${of}`, due.fees, args.int('fees'));
        if (due.reliability !== args.int('reliabilityBps')) report(`reliability in the ${of}`, due.reliability, args.int('reliabilityBps'));
      }
      if (provider.beneficiary !== args.account('account')) report(`account of the ${of}`, provider.beneficiary, args.account('account'));
      const granted = grant(books, {
        event,
        report,
        account: args.account('account'),
        earned: due?.reward ?? 0n,
        of,
        got: args.int('reward'),
      });
      provider.earned += granted;
      provider.rolledTo = args.int('period');
    },
  };
}

function prove(books: Books, provider: Provider, period: bigint): void {
  const { rules } = books;
  const isRow = provider.provenThrough === 0n || provider.lastMiss < provider.provenThrough;
  provider.streak = isRow ? provider.streak + 1n : 1n;
  provider.provenThrough = period + 1n;
  let fees = 0n;
  for (const dealId of provider.deals) {
    const demand = books.demands.get(dealId) as Demand;
    if (demand.from <= period && period < demand.to) fees += feeOf(books, demand);
    else if (demand.to <= period) provider.deals.delete(dealId); // it is added again when the piece comes back
  }
  const isBehind = provider.rolledTo !== undefined && period - provider.rolledTo > ROLL_PERIODS;
  if (isBehind && provider.rolledTo !== undefined) provider.rolledTo += ROLL_PERIODS;
  else if (provider.rolledTo !== undefined && provider.rolledTo < period) provider.rolledTo = period;
  if (fees === 0n) return;
  const reliability = reliabilityOf(rules, provider.streak);
  const reward = (fees * rules.storageShareBps * reliability) / (BPS * BPS);
  provider.due = { period, fees, reliability, reward, isOptional: isBehind };
}

/** A proof whose reward has not come. None need come while the rate is behind; whether somebody brought it forward is in no event. */
function reportUnpaid(operatorId: bigint, provider: Provider, report: Report): void {
  const { due } = provider;
  if (due !== undefined && !due.isOptional) report(`reward of operator ${operatorId} for period ${due.period}`, due.reward, 'none');
}

function moneyHandlers(books: Books): Record<string, Handler> {
  const own = books.rules.address.toLowerCase();
  return {
    'networkToken.Transfer'(args) {
      if (args.account('to') === own) books.held += args.int('value');
      if (args.account('from') === own) books.held -= args.int('value');
    },
    'channels.FeeBurnt'(args) {
      const receiver = args.account('receiver');
      books.feesBurnt.set(receiver, (books.feesBurnt.get(receiver) ?? 0n) + args.int('amount'));
    },
    'rewards.RewardCut'(args) {
      books.cut = { earned: args.int('earned'), granted: args.int('granted') };
    },
    'rewards.RetrievalRewarded'(args, event, report) {
      const account = args.account('account');
      const burnt = books.feesBurnt.get(account) ?? 0n;
      const fees = burnt - (books.feesCounted.get(account) ?? 0n);
      books.feesCounted.set(account, burnt);
      const of = `reward of retriever ${account}`;
      if (fees !== args.int('fees')) report(`fees behind the ${of}`, fees, args.int('fees'));
      const earned = (fees * books.rules.retrievalShareBps) / BPS;
      grant(books, { event, report, account, earned, of, got: args.int('reward') });
    },
    'rewards.RewardClaimed'(args, event, report) {
      const vesting = vestingOf(books, args.account('account'));
      const amount = vestedAt(books.rules, vesting, event.time) - vesting.claimed;
      if (amount !== args.int('amount')) report(`claim of ${args.account('account')}`, amount, args.int('amount'));
      vesting.claimed += amount;
      books.owed -= amount;
    },
  };
}

/** Grants what was earned, as far as the contract holds it beyond what it owes. */
function grant(
  books: Books,
  {
    event,
    report,
    account,
    earned,
    of,
    got,
  }: { event: ReplayEvent; report: Report; account: string; earned: bigint; of: string; got: bigint },
): bigint {
  const free = books.held - books.owed;
  const granted = lesser(earned, free);
  if (granted !== got) report(of, granted, got);
  const { cut } = books;
  books.cut = undefined;
  if (granted < earned ? cut?.earned !== earned || cut.granted !== granted : cut !== undefined) {
    report(
      `cut of the ${of}`,
      granted < earned ? `${earned} to ${granted}` : 'none',
      cut === undefined ? 'none' : `${cut.earned} to ${cut.granted}`,
    );
  }
  const vesting = vestingOf(books, account);
  const bucket = event.time / books.rules.bucketSeconds;
  vesting.granted += granted;
  vesting.buckets.set(bucket, (vesting.buckets.get(bucket) ?? 0n) + granted);
  books.owed += granted;
  return granted;
}

function* rewardChecks(books: Books, time: bigint): Iterable<Check> {
  yield checkView('owed in all', books.owed, ['rewards', 'obligations']);
  yield {
    ...checkView('owed, beside what is held', books.owed, ['networkToken', 'balanceOf', [books.rules.address]]),
    relation: 'at-most',
  };
  yield checkView('held', books.held, ['networkToken', 'balanceOf', [books.rules.address]]);
  for (const [account, vesting] of books.vestings) {
    yield checkView(`owed to ${account}`, vesting.granted - vesting.claimed, ['rewards', 'owedTo', [account]]);
    yield checkView(`vested of ${account}`, vestedAt(books.rules, vesting, time) - vesting.claimed, ['rewards', 'vestedOf', [account]]);
  }
  for (const [dealId, demand] of books.demands) yield* demandChecks(books, dealId, demand);
  for (const [operatorId, provider] of books.providers) {
    const fields: Record<string, bigint> = { earned: provider.earned, streak: provider.streak, provenThrough: provider.provenThrough };
    for (const [field, expected] of Object.entries(fields)) {
      yield { what: `${field} of operator ${operatorId}`, expected, actual: (read) => recordField(read, operatorId, field) };
    }
    yield* missChecks(operatorId, provider);
  }
}

/** The terms of a deal for which a fee was burnt. */
function* demandChecks(books: Books, dealId: bigint, demand: Demand): Iterable<Check> {
  if (feeOf(books, demand) === 0n || demand.firstPeriod === -1n) return;
  const { pricePerPeriod, firstPeriod } = demand; // the end moves with a termination, after which nothing is earned
  for (const [field, expected] of Object.entries({ pricePerPeriod, firstPeriod })) {
    yield {
      what: `${field} of deal ${dealId}`,
      expected,
      async actual(read) {
        return ((await read('storageMarket', 'deal', [dealId])) as Record<string, bigint>)[field] as bigint;
      },
    };
  }
}

function* missChecks(operatorId: bigint, provider: Provider): Iterable<Check> {
  const { failure } = provider;
  const { misses, chargedMisses } = failure ?? provider;
  const missesNow = async (read: ReadView) => (await read('possession', 'misses', [operatorId, 0n, PERIODS_MAX])) as [bigint, bigint];
  yield {
    what: `misses of operator ${operatorId}`,
    expected: misses,
    async actual(read) {
      const [[unpaid], standing] = await Promise.all([missesNow(read), read('possession', 'standing', [operatorId])]);
      const { syncedTo } = standing as { syncedTo: bigint };
      return failure === undefined || syncedTo <= failure.at ? unpaid : unpaid - (syncedTo - failure.at);
    },
  };
  yield { what: `charged misses of operator ${operatorId}`, expected: chargedMisses, actual: async (read) => (await missesNow(read))[1] };
}

async function recordField(read: ReadView, operatorId: bigint, field: string): Promise<bigint> {
  const record = (await read('rewards', 'recordOf', [operatorId])) as Record<string, bigint | number>;
  return BigInt(record[field] as bigint | number);
}

function largest(first: bigint, ...others: bigint[]): bigint {
  let most = first;
  for (const value of others) if (value > most) most = value;
  return most;
}
