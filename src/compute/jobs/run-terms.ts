import type { Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { approveMeter, depositToRails, meterAllowance, railsBalance, tokenAddress, tokenBalance } from '../../token/index.ts';
import { greater, lesser } from '../../units.ts';
import { canarySeal } from '../audit/canary.ts';
import { type JobSpec, specHash } from '../spec/job-spec.ts';
import { ENGINE_NUMBER, engineOf } from '../verify/engines.ts';
import { workSeconds } from '../verify/work.ts';
import { costOf, randomWord } from './job-desk.ts';
import type { JobOffer, PriceToken } from './job-offer.ts';
import { DETERMINISM_NUMBER, type JobTerms } from './job-terms.ts';

/** What a renter asks for beside the work. */
export interface TermsWish {
  spec: JobSpec;
  offer: JobOffer;
  renter: Hex;
  token: PriceToken;
  price: bigint;
  /** May run as `reputation only` where jurors or auditors are missing. */
  lowerable: boolean;
  /** Auditors, and segments that each replays; operators on probation are replayed whole. */
  auditors: number;
  samples: number;
  /** Bytes that are handed over. */
  handedBytes?: number;
  /** Makes it a canary, which only who knows the salt can show. */
  canarySalt?: Hex;
}

/** Auditors of one job at most (`JobRules.AUDITORS_MAX`). */
export const AUDITORS_MAX = 8;
/** How long a signed order may be brought to the chain, seconds of chain time: its provider first brings all contents to itself. */
const OPEN_SECONDS = 300;
const OPEN_SECONDS_MAX = 3_000;
/** How fast contents are handed over at least, bytes a second. */
const HANDED_BYTES_PER_SECOND = 1 << 20;
/** What auditors get for a replayed segment, beside what the provider gets for having run it: they must fetch its state too. */
const AUDIT_MARGIN_PERCENT = 150n;
const PERCENT = 100n;
const AUDIT_SPARE_SECONDS = 60;

/**
 * The terms of a job by an offer: what the network's rules ask for at least, audits that pay, windows twice as long as the work (compute.md 3.4).
 */
export async function composeTerms(client: ChainClient, wish: TermsWish): Promise<JobTerms> {
  const { spec, offer, price } = wish;
  const [rules, now, probation] = await Promise.all([
    client.read('jobRules', 'config'),
    client.now(),
    client.read('computeJobs', 'probationOf', [offer.operatorId]),
  ]);
  const { wallSeconds } = spec.limits;
  const work = workSeconds(spec);
  const isAudited = spec.determinism !== 'none';
  const auditors = isAudited ? wish.auditors : 0;
  const samples = probation > 0n ? spec.segments : Math.min(wish.samples, spec.segments);
  const feeMin = wish.token === 'stable' ? rules.stableSegmentFeeMin : rules.nativeSegmentFeeMin;
  const perSegment = greater(feeMin, (price * AUDIT_MARGIN_PERCENT) / PERCENT / BigInt(spec.segments));
  const auditWork = Math.ceil((work * samples) / spec.segments) + AUDIT_SPARE_SECONDS;
  const nonce = BigInt(randomWord());
  const { canarySalt: salt, renter } = wish;
  // A job that is no canary has any word there, so that nobody can tell.
  const flagSeal = salt === undefined ? randomWord() : await canarySeal(client, { renter, nonce, salt });
  const classMin = rules.collateralMin[DETERMINISM_NUMBER[spec.determinism]] ?? 0n;
  return {
    renter,
    operatorId: offer.operatorId,
    specHash: specHash(spec),
    token: tokenAddress(client, wish.token === 'stable' ? 'stable' : 'compute'),
    price,
    auditFee: BigInt(auditors * samples) * perSegment,
    collateral: greater(classMin, offer.collateral),
    determinism: DETERMINISM_NUMBER[spec.determinism],
    engine: ENGINE_NUMBER[engineOf(spec)],
    lowerable: wish.lowerable,
    segments: spec.segments,
    samples,
    auditors,
    openUntil: Number(now) + within(OPEN_SECONDS + (wish.handedBytes ?? 0) / HANDED_BYTES_PER_SECOND, OPEN_SECONDS, OPEN_SECONDS_MAX),
    runSeconds: within(work + offer.spareSeconds, 1, rules.runSecondsMax),
    auditSeconds: within(auditWork, rules.auditSecondsMin, rules.auditSecondsMax),
    challengeSeconds: within(2 * wallSeconds, rules.challengeSecondsMin, rules.challengeSecondsMax),
    flagSeal,
    nonce,
  };
}

/**
 * Puts what a job costs into the renter's account at the rails, and lets the contract of jobs take that much and no more: whatever happens to an
 * order that failed, two providers cannot both be paid.
 * @throws no-funds
 */
export async function fundJob(client: ChainClient, sender: Sender, terms: JobTerms): Promise<void> {
  const { token } = terms;
  const account = sender.address;
  const needed = costOf(client, terms);
  const [wallet, deposited, allowance] = await Promise.all([
    tokenBalance(client, { token, account }),
    railsBalance(client, { token, account }),
    meterAllowance(client, { payer: account, meter: 'computeJobs', token }),
  ]);
  if (wallet + deposited < needed) throw noFunds(account, { token, needed, wallet, deposited });
  if (deposited < needed) await depositToRails(client, { sender, token, amount: needed - deposited });
  if (allowance !== needed) await approveMeter(client, { sender, meter: 'computeJobs', token, allowance: needed });
}

/** Takes back what the contract of jobs was allowed: an order that nobody opened is worth nothing from then on. */
export async function unfundJob(client: ChainClient, sender: Sender, { token }: JobTerms): Promise<void> {
  const allowance = await meterAllowance(client, { payer: sender.address, meter: 'computeJobs', token });
  if (allowance !== 0n) await approveMeter(client, { sender, meter: 'computeJobs', token, allowance: 0n });
}

function within(seconds: number, least: number, greatest: number): number {
  return Number(lesser(greater(BigInt(Math.ceil(seconds)), BigInt(least)), BigInt(greatest)));
}

function noFunds(account: string, values: { token: string; needed: bigint; wallet: bigint; deposited: bigint }): MillraceError {
  return new MillraceError('no-funds', {
    actor: 'caller',
    message: `${account} has ${values.wallet + values.deposited} base units of the token ${values.token}, the job costs ${values.needed}`,
    values: { account, ...values },
    hint: 'Get more of the token, choose the other one with --token, or lower the limits of the job.',
  });
}
