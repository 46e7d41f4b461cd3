import { bytesToHex, type Hex } from 'viem';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { meterAllowance, railsBalance, tokenAddress } from '../../token/index.ts';
import { type Canary, canaryFromJson, canarySeal } from '../audit/canary.ts';
import { decodeJobSpec, type JobSpec, specHash } from '../spec/job-spec.ts';
import { workSeconds } from '../verify/work.ts';
import { PHASE, phaseOf } from './job-chain.ts';
import { isFileName, sourcesOf } from './job-contents.ts';
import { type JobOffer, type PriceToken, priceOf, whyNot } from './job-offer.ts';
import type { JobRecord, JobRecords } from './job-records.ts';
import type { JobRoom } from './job-room.ts';
import { isOfTerms, type JobTerms, jobDomainOf, jobIdOf, requireTermsSignature, termsFromJson } from './job-terms.ts';

/** What a renter brings: terms that it signed, the work, and what it will hand over. */
export interface JobOrder {
  terms: JobTerms;
  signature: Hex;
  spec: JobSpec;
  renterBox: Hex;
  handed: string[];
  /** What makes it a canary, to its provider alone. */
  canary?: Canary;
}

/** What the desk stands on. */
export interface JobDeskOptions {
  client: ChainClient;
  signer: Signer;
  operatorId: bigint;
  records: JobRecords;
  /** The present offer. */
  offer(): JobOffer;
  /** Whether canaries are made here. */
  takesCanaries: boolean;
  /** Throws where no engine here runs a job. */
  requireEngine(spec: JobSpec): void;
  /** Jobs that may wait or run at one time. */
  jobsMax: number;
  /** The time that the machine has for them. */
  room: Pick<JobRoom, 'require'>;
  /** Does one thing after another: two orders at one time must not both find the room and the money of one. */
  inTurn<Result>(work: () => Promise<Result>): Promise<Result>;
}

const ORDER_FIELDS_MAX = 256;
/** The least time between taking a job and the end of its signatures: to bring it to the chain. */
const OPEN_SECONDS_MIN = 10;
const OPEN_SECONDS_MAX = 3600;
const WAITING: readonly string[] = ['agreed', 'open', 'running', 'done'];
const RESERVATION_FEE_BPS = 25n;
const STABLE_FEE_BPS = 200n;
const BPS = 10_000n;

/**
 * Reads an order as a renter sends it (JSON).
 * @throws bad-job-terms, bad-spec, bad-job-order, bad-canary
 */
export function readOrder(bytes: Uint8Array): JobOrder {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8')) as Record<string, unknown>;
  } catch (cause) {
    throw badOrder('it is no JSON', cause);
  }
  const { signature, spec, renterBox, handed, canary } = value ?? {};
  if (typeof signature !== 'string' || !/^0x[0-9a-fA-F]{130}$/.test(signature)) throw badOrder('it has no signature');
  if (typeof renterBox !== 'string' || !/^0x[0-9a-f]{64}$/.test(renterBox)) throw badOrder('it has no key to seal outputs to');
  if (typeof spec !== 'string') throw badOrder('it has no specification');
  if (!Array.isArray(handed) || handed.length > ORDER_FIELDS_MAX || !handed.every((one) => typeof one === 'string')) {
    throw badOrder('what it hands over is no list of names');
  }
  return {
    terms: termsFromJson(value.terms),
    signature: signature as Hex,
    spec: decodeJobSpec(Buffer.from(spec)),
    renterBox: renterBox as Hex,
    handed: handed as string[],
    ...(canary === undefined ? {} : { canary: canaryFromJson(canary) }),
  };
}

/**
 * Takes a job: checks the order against the offer, what runs here, the time that the machine has and the renter's money, signs, and keeps it. The same
 * order twice is one job.
 * @throws job-refused with the reason, no-room-in-time, bad-job-signature
 */
export async function takeJob(options: JobDeskOptions, order: JobOrder): Promise<JobRecord> {
  const { client, records } = options;
  const { terms, spec } = order;
  const domain = jobDomainOf(client);
  const jobId = jobIdOf(domain, terms);
  const known = records.find(jobId);
  if (known !== undefined) return known;
  requireTermsSignature({ domain, terms, signer: terms.renter, signature: order.signature });
  checkWork(options, order);
  if (order.canary !== undefined) await checkCanary(options, terms, order.canary);
  checkTimes(terms, spec, { now: Number(await client.now()), spareSeconds: options.offer().spareSeconds });
  return await options.inTurn(async () => records.find(jobId) ?? (await agree(options, order, jobId)));
}

/** What depends on the other orders; nothing else is agreed meanwhile. */
async function agree(options: JobDeskOptions, order: JobOrder, jobId: Hex): Promise<JobRecord> {
  const { client, signer, records } = options;
  const { terms, spec, handed } = order;
  const waiting = records.all().filter(({ status }) => WAITING.includes(status)).length;
  if (waiting >= options.jobsMax)
    throw refused(`${waiting} jobs wait or run, at most ${options.jobsMax} may`, 'Try later, or another provider.');
  await checkMoney(options, terms);
  options.room.require(spec, terms.runSeconds, Number(await client.now()));
  const record: JobRecord = {
    jobId,
    terms,
    signatures: { renter: order.signature, operator: await signer.signDigest(jobId) },
    status: 'agreed',
    renterBox: order.renterBox,
    handed,
    ...(order.canary === undefined ? {} : { canary: order.canary }),
  };
  records.add(record, spec);
  return record;
}

/** Whether the terms say what the specification says, and the offer takes both. */
function checkWork({ client, operatorId, offer, requireEngine }: JobDeskOptions, { terms, spec, handed }: JobOrder): void {
  const now = offer();
  if (terms.operatorId !== operatorId) throw refused(`it is for operator ${terms.operatorId}`);
  if (terms.specHash !== specHash(spec)) throw refused('the terms are for another specification');
  if (!isOfTerms(spec, terms)) throw refused('class, engine or segments differ');
  const hindrance = whyNot(spec, now);
  if (hindrance !== undefined) throw refused(hindrance, 'Take another provider, or lower the limits of the job.');
  requireEngine(spec);
  const token = tokenOf(client, terms.token);
  const price = token === undefined ? undefined : priceOf(spec, now.prices[token]);
  if (price === undefined) throw refused(`it is paid in ${terms.token}, which is not taken here`);
  if (terms.price < price) throw refused(`its price is ${terms.price}, due is ${price}`, 'Ask for the offer again.');
  if (terms.collateral > now.collateral) throw refused(`it wants ${terms.collateral} of collateral, ${now.collateral} are offered`);
  const sources = sourcesOf(spec);
  const strange = handed.find((source) => !sources.includes(source) || !isFileName(source));
  if (strange !== undefined) throw refused(`${strange.slice(0, 80)} is handed over, but is no file of the job`);
}

/** A provider that makes a canary must be able to show that it is one: else it is convicted of a forgery. */
async function checkCanary({ client, takesCanaries }: JobDeskOptions, terms: JobTerms, { salt, leaf }: Canary): Promise<void> {
  if (!takesCanaries) throw refused('it makes no canaries', 'Its owner can allow them: the setting jobCanaries.');
  if (terms.auditors === 0 || leaf < 1 || leaf > terms.segments)
    throw refused(`a canary at leaf ${leaf} of ${terms.segments} is seen by nobody`);
  const { renter, nonce } = terms;
  if ((await canarySeal(client, { renter, nonce, salt })) !== terms.flagSeal)
    throw refused('the seal in its terms is not that of the canary');
}

function checkTimes(terms: JobTerms, spec: JobSpec, { now, spareSeconds }: { now: number; spareSeconds: number }): void {
  const left = terms.openUntil - now;
  if (left < OPEN_SECONDS_MIN || left > OPEN_SECONDS_MAX) {
    throw refused(`its signatures are good for ${left} s, ${OPEN_SECONDS_MIN} to ${OPEN_SECONDS_MAX} are taken`);
  }
  const due = workSeconds(spec) + spareSeconds;
  if (terms.runSeconds < due) throw refused(`it must be done in ${terms.runSeconds} s, ${due} are needed for its time limit`);
}

/** The renter's money as it is now, for this job and for all that it has ordered here and that is not on chain yet; the contract decides when they are opened. */
async function checkMoney({ client, records }: JobDeskOptions, terms: JobTerms): Promise<void> {
  const { token, renter: account } = terms;
  const isOfRenter = (other: JobTerms) =>
    other.renter.toLowerCase() === account.toLowerCase() && other.token.toLowerCase() === token.toLowerCase();
  const agreed = records.all().filter((record) => record.status === 'agreed' && isOfRenter(record.terms));
  const phases = await Promise.all(agreed.map(({ jobId }) => phaseOf(client, jobId)));
  const others = agreed.filter((_, index) => phases[index]?.phase === PHASE.none);
  const ordered = others.reduce((sum, { terms: other }) => sum + costOf(client, other), 0n);
  const needed = ordered + costOf(client, terms);
  const [balance, allowance] = await Promise.all([
    railsBalance(client, { token, account }),
    meterAllowance(client, { payer: account, meter: 'computeJobs', token }),
  ]);
  if (balance < needed || allowance < needed) {
    throw refused(
      `the renter has ${balance} at the rails and allows ${allowance}; it costs ${needed}, of which ${ordered} are for ${others.length} orders before it`,
      'Deposit and allow what the job costs, or wait until your last order is on chain or its signatures are over.',
    );
  }
}

/** What a job takes from its renter's account, base units: price, audit fee, reservation fee, and 2 % where the token is the stable one. */
export function costOf(client: ChainClient, terms: Pick<JobTerms, 'token' | 'price' | 'auditFee'>): bigint {
  const { price } = terms;
  const share = (bps: bigint) => (price * bps + BPS - 1n) / BPS;
  return price + terms.auditFee + share(RESERVATION_FEE_BPS) + (tokenOf(client, terms.token) === 'stable' ? share(STABLE_FEE_BPS) : 0n);
}

/** Which of the network's tokens an address is; undefined for none that jobs are paid in. */
export function tokenOf(client: ChainClient, address: string): PriceToken | undefined {
  const is = (name: 'stable' | 'compute') => tokenAddress(client, name).toLowerCase() === address.toLowerCase();
  return is('stable') ? 'stable' : is('compute') ? 'native' : undefined;
}

/** An order as it is sent. */
export function orderToJson(order: Omit<JobOrder, 'terms' | 'spec'> & { terms: Record<string, unknown>; spec: Uint8Array }): Uint8Array {
  return Buffer.from(JSON.stringify({ ...order, spec: Buffer.from(order.spec).toString('utf8') }));
}

/** Does what it is given one after another. */
export function createTurns(): JobDeskOptions['inTurn'] {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const mine = last.then(work);
    last = mine.catch(() => {});
    return mine;
  };
}

/** A random word. */
export function randomWord(): Hex {
  return bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
}

function refused(reason: string, hint?: string): MillraceError {
  return new MillraceError('job-refused', {
    actor: 'caller',
    message: `This provider does not take the job: ${reason}`,
    values: { reason },
    hint,
  });
}

function badOrder(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-job-order', {
    actor: 'caller',
    message: `The order of a job cannot be read: ${reason}`,
    values: { reason },
    hint: 'Send it as `millrace run` does.',
    cause,
  });
}
