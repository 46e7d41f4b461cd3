import { encodeFunctionData, type Hex } from 'viem';
import { abis, type ChainClient, chainError, type ReceiptCodec, type Sender } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import { type Logger, silentLogger } from '../../log.ts';
import { claim, claimable, eventArgs } from '../../token/index.ts';
import { lesser } from '../../units.ts';
import { createInferenceReceipts, type InferenceReceipt } from '../serving/receipt.ts';
import { inferenceReceiptDomain } from '../serving/receipt-domain.ts';
import { claimOf, excessOf, type ReceiptOffence } from './receipt-offence.ts';
import { openReportJournal, type ReceiptReport, type ReportJournal } from './report-journal.ts';

/** Who reports, and how much it may cost. */
export interface ReceiptReporterOptions {
  client: ChainClient;
  /** Sends the reports, and is rewarded. */
  sender: Sender;
  /** Reports that wait. */
  folder: string;
  /** Most that one report may cost in the chain's own coin, wei; a dearer one waits. Default 0.01 coins. */
  feeMax?: bigint;
  /** Whether it reports also where there is no reward: a validator's duty. */
  isDuty?: boolean;
  /** Between two looks at what waits, milliseconds; 0: only `tend`. Default 15,000. */
  everyMs?: number;
  log?: Logger;
}

/** A receipt as it came: base64url, and as it was read where that is known and its signature was good. */
export interface SeenReceipt {
  encoded: string;
  signed?: { receipt: InferenceReceipt };
}

/** What became of a report that this agent found, or had waiting when it was opened. */
export interface ReportState {
  operatorId: bigint;
  receiptId: Hex;
  offence: ReceiptOffence;
  /** `dropped`: the court would not hear it any more, or nothing is to be had for it. */
  state: 'waiting' | 'reported' | 'dropped';
  /** Why it waits or was dropped: an error's code, `no-reward`, `report-too-dear`. */
  reason?: string;
  /** What was slashed and what the reporter got of it, base units of the stake's token; once reported. */
  amount?: bigint;
  reward?: bigint;
  transaction?: Hex;
  /** The file with the receipts: kept, also when the report is over. */
  evidence: string;
}

/** An agent that brings receipts which convict to the court. */
export interface ReceiptReporter {
  /**
   * Looks at a receipt that somebody sent: alone, and beside the last few thousand. What convicts is on the disk when this returns, and reported a
   * little later. Never throws.
   */
  see(seen: SeenReceipt): void;
  /** Reports what waits and is worth it. Safe to repeat and to interrupt: the court slashes once for a receipt id. */
  tend(): Promise<void>;
  status(): { waiting: number; reported: number; rewards: bigint };
  /** Each report of the last few hundred since the agent was opened. */
  reports(): ReportState[];
  close(): Promise<void>;
}

const EVERY_MS = 15_000;
const FEE_MAX = 10n ** 16n;
const REMEMBERED_MAX = 4096;
const STATES_MAX = 512;
const RECEIPT_CHARACTERS_MAX = 4096;
const BPS = 10_000n;
const OPERATOR_MAX = 2n ** 64n - 1n;
/** The court's answers after which a report is worth nothing any more. */
const FINAL: ReadonlySet<string> = new Set([
  'already-punished',
  'key-not-bound',
  'nothing-locked',
  'within-limits',
  'no-contradiction',
  'not-same-receipt',
  'bad-signature',
]);

/** Opens the agent with what waited when it stopped. */
export function openReceiptReporter(options: ReceiptReporterOptions): ReceiptReporter {
  return new OpenReporter(options);
}

class OpenReporter implements ReceiptReporter {
  readonly #options: ReceiptReporterOptions;
  readonly #log: Logger;
  readonly #codec: ReceiptCodec<InferenceReceipt>;
  readonly #journal: ReportJournal;
  /** By miner and receipt id, newest last. */
  readonly #remembered = new Map<string, { claim: string; encoded: string }>();
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #said = new Set<string>();
  /** By operator and receipt id, newest last. */
  readonly #states = new Map<string, ReportState>();
  #round: Promise<void> = Promise.resolve();
  #done = { reported: 0, rewards: 0n };

  constructor(options: ReceiptReporterOptions) {
    this.#options = options;
    this.#log = options.log ?? silentLogger;
    this.#codec = createInferenceReceipts(inferenceReceiptDomain(options.client));
    this.#journal = openReportJournal(options.folder);
    for (const report of this.#journal.waiting()) this.#note(report, { state: 'waiting' });
    const everyMs = options.everyMs ?? EVERY_MS;
    if (everyMs === 0) return;
    this.#timer = setInterval(() => void this.tend(), everyMs);
    this.#timer.unref();
  }

  see({ encoded, signed }: SeenReceipt): void {
    try {
      if (encoded.length > RECEIPT_CHARACTERS_MAX) return;
      const receipt = signed?.receipt ?? this.#read(encoded).receipt;
      const excess = excessOf(receipt);
      if (excess !== undefined) this.#keep(receipt, { offence: excess, receipts: [encoded] });
      this.#compare(receipt, encoded, signed !== undefined);
    } catch {
      // What cannot be read, or was signed by nobody, convicts nobody.
    }
  }

  tend(): Promise<void> {
    this.#round = this.#round.then(() => this.#reportAll());
    return this.#round;
  }

  status(): { waiting: number; reported: number; rewards: bigint } {
    return { waiting: this.#journal.waiting().length, ...this.#done };
  }

  reports(): ReportState[] {
    return [...this.#states.values()];
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#round;
  }

  /** @throws bad-receipt */
  #read(encoded: string): { receipt: InferenceReceipt; signature: Hex } {
    return this.#codec.fromJson(Buffer.from(encoded, 'base64url').toString('utf8'));
  }

  /** Two receipts of one key and one id that exclude one another; only a good signature is remembered, so that nobody crowds others out. */
  #compare(receipt: InferenceReceipt, encoded: string, isVerified: boolean): void {
    const { subject, inputs } = receipt;
    if (!isVerified && !this.#isSigned(encoded)) return;
    const key = `${subject.miner.toLowerCase()}|${inputs.receiptId.toLowerCase()}`;
    const claimed = claimOf(receipt);
    const before = this.#remembered.get(key);
    if (before === undefined) {
      this.#remembered.set(key, { claim: claimed, encoded });
      if (this.#remembered.size > REMEMBERED_MAX) this.#remembered.delete(this.#remembered.keys().next().value as string);
    } else if (before.claim !== claimed) this.#keep(receipt, { offence: 'contradiction', receipts: [before.encoded, encoded] });
  }

  #isSigned(encoded: string): boolean {
    const { receipt, signature } = this.#read(encoded);
    return this.#codec.isSignedBy(receipt.subject.miner, receipt, signature);
  }

  #keep({ subject, inputs }: InferenceReceipt, found: Pick<ReceiptReport, 'offence' | 'receipts'>): void {
    const { operatorId } = subject;
    const receiptId = inputs.receiptId.toLowerCase() as Hex;
    if (
      operatorId > OPERATOR_MAX ||
      this.#journal.has(operatorId, receiptId) ||
      !found.receipts.every((encoded) => this.#isSigned(encoded))
    )
      return;
    const report = { operatorId, receiptId, ...found };
    this.#journal.add(report);
    this.#note(report, { state: 'waiting' });
    this.#log.warn('receipt-convicts', { operatorId, receiptId, offence: found.offence });
    if (this.#timer !== undefined) void this.tend();
  }

  async #reportAll(): Promise<void> {
    for (const report of this.#journal.waiting()) {
      const { operatorId, receiptId } = report;
      try {
        await this.#report(report);
      } catch (error) {
        const { code, message } = toMillraceError(error);
        if (FINAL.has(code)) this.#drop(report, code);
        else {
          this.#note(report, { state: 'waiting', reason: code });
          this.#log.warn('receipt-not-reported', { operatorId, receiptId, code, reason: message.slice(0, 200) });
        }
      }
    }
  }

  async #report(report: ReceiptReport): Promise<void> {
    const { client, sender, isDuty = false } = this.#options;
    const { operatorId, receiptId, offence } = report;
    const reason = await hopelessBecause(client, report);
    if (reason !== undefined) return this.#drop(report, reason);
    if (!isDuty && (await rewardOf(client, operatorId)) === 0n) return this.#drop(report, 'no-reward');
    const call = callOf(report.receipts.map((encoded) => this.#read(encoded)));
    if (!(await this.#isAffordable(call, report))) return;
    const key = `receipt-report/${operatorId}/${receiptId}`;
    const receipt = call.functionName === 'reportExcess' ? await sender.send({ ...call, key }) : await sender.send({ ...call, key });
    const { amount, reward } = eventArgs(receipt, 'receiptCourt', 'Convicted');
    this.#journal.end(report);
    this.#note(report, { state: 'reported', amount, reward, transaction: receipt.hash });
    this.#done.reported += 1;
    this.#done.rewards += reward;
    this.#log.warn('miner-convicted', { operatorId, receiptId, offence, amount, reward, transaction: receipt.hash });
    if ((await claimable(client, { account: sender.address })) > 0n) await claim({ sender });
  }

  /** What the report would cost now against what it may; a dear one waits for cheaper times. @throws what the court answers */
  async #isAffordable(call: CourtCall, report: ReceiptReport): Promise<boolean> {
    const { operatorId, receiptId } = report;
    const { client, sender, feeMax = FEE_MAX } = this.#options;
    const data = encodeFunctionData({ abi: abis.receiptCourt, functionName: call.functionName, args: call.args } as never);
    try {
      const to = client.address('receiptCourt');
      const [gas, price] = await Promise.all([
        client.public.estimateGas({ account: sender.address, to, data }),
        client.public.getGasPrice(),
      ]);
      if (gas * price <= feeMax) return true;
      if (!this.#said.has(receiptId)) this.#log.warn('report-too-dear', { operatorId, receiptId, fee: gas * price, feeMax });
      this.#said.add(receiptId);
      this.#note(report, { state: 'waiting', reason: 'report-too-dear' });
      return false;
    } catch (error) {
      throw chainError(error, 'Estimating a report to the court of receipts');
    }
  }

  #note(report: ReceiptReport, now: Pick<ReportState, 'state' | 'reason' | 'amount' | 'reward' | 'transaction'>): void {
    const { operatorId, receiptId, offence } = report;
    const key = `${operatorId}|${receiptId}`;
    this.#states.delete(key);
    this.#states.set(key, { operatorId, receiptId, offence, ...now, evidence: this.#journal.pathOf(report) });
    if (this.#states.size > STATES_MAX) this.#states.delete(this.#states.keys().next().value as string);
  }

  #drop(report: ReceiptReport, reason: string): void {
    this.#journal.end(report);
    this.#note(report, { state: 'dropped', reason });
    this.#log.info('report-dropped', { operatorId: report.operatorId, receiptId: report.receiptId, offence: report.offence, reason });
  }
}

type CourtCall = ReturnType<typeof callOf>;

function callOf([one, other]: { receipt: InferenceReceipt; signature: Hex }[]) {
  if (one === undefined) throw new RangeError('a report without a receipt');
  const contract = 'receiptCourt' as const;
  if (other === undefined) return { contract, functionName: 'reportExcess', args: [one.receipt, one.signature] } as const;
  const args = [one.receipt, one.signature, other.receipt, other.signature] as const;
  return { contract, functionName: 'reportContradiction', args } as const;
}

/** Why the court would not hear a report, known without simulating it. */
async function hopelessBecause(client: ChainClient, { operatorId, receiptId }: ReceiptReport): Promise<string | undefined> {
  const [isPunished, locked] = await Promise.all([
    client.read('receiptCourt', 'isPunished', [operatorId, receiptId]),
    client.read('stakeVault', 'lockedOfModule', [operatorId, client.address('receiptCourt')]),
  ]);
  return isPunished ? 'already-punished' : locked === 0n ? 'nothing-locked' : undefined;
}

/** What the reporter of an offence would get, by the rule of `ReceiptCourt`. */
async function rewardOf(client: ChainClient, operatorId: bigint): Promise<bigint> {
  const [{ slash, rewardBps, rewardMax }, locked] = await Promise.all([
    client.read('receiptCourt', 'config'),
    client.read('stakeVault', 'lockedOfModule', [operatorId, client.address('receiptCourt')]),
  ]);
  return lesser((lesser(slash, locked) * BigInt(rewardBps)) / BPS, rewardMax);
}
