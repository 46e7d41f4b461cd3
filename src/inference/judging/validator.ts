import { createHash, randomBytes, randomInt } from 'node:crypto';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { ReceiptCodec } from '../../chain/index.ts';
import { type Clock, systemClock } from '../../clock.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { InferenceReceipt } from '../serving/receipt.ts';
import { readAnswer, signedBytes } from './answer-content.ts';
import { meansSomething } from './copied-answers.ts';
import { type EvidenceBook, type EvidenceEntry, openEvidence } from './evidence.ts';
import type { JudgedMiner, JudgingPorts, ShownRequest, SubnetMoment } from './judging-ports.ts';
import { type JudgingState, readState, stateText } from './judging-state.ts';
import { emptyRecord, type MinerRecord, type MinerScore, type ScoreLimits } from './miner-score.ts';
import type { CorpusSession, ProbeCorpus } from './probe-corpus.ts';
import { type PlannedProbe, planProbes } from './probe-plan.ts';
import { type AnsweredRequest, type JudgedModel, type ReplayVerdict, replayRequest } from './replay.ts';
import { DEFAULT_SERVING_LIMITS } from './serving-gates.ts';
import { WHOLE } from './text-distance.ts';
import { purseOf, weighMiners } from './weigh-miners.ts';

/** How a validator of one subnet judges. */
export interface ValidatorOptions {
  /** State and evidence. */
  folder: string;
  ports: JudgingPorts;
  codec: ReceiptCodec<InferenceReceipt>;
  /** Own models, to run requests again with. */
  modelOf: (root: Hex) => JudgedModel | undefined;
  /** New sessions for probes where users have not yet allowed enough of theirs to be used. */
  stock: (paths: readonly string[], count: number) => Promise<readonly CorpusSession[]>;
  /** How much traffic goes the way of each account that probes are sent from. */
  accounts: readonly number[];
  /** Is told of a user's request whose answer an exact re-run has refuted: what can be brought before the jury. */
  onRefuted?: (request: ShownRequest, verdict: ReplayVerdict) => void;
  rules?: Partial<JudgingRules>;
  clock?: Clock;
  log: Logger;
}

/** What a validator is free to choose. Shares in millionths. */
export interface JudgingRules extends ScoreLimits {
  probesPerMiner: number;
  /** Users' requests that are run again in one round. */
  replaysPerRound: number;
  probesAtOnce: number;
  probeTimeoutMs: number;
  /** How fast shares follow what an epoch says. */
  speed: number;
  feeBps: bigint;
}

/** A validator's work. */
export interface Validator {
  /** One round: what is due now. Safe to repeat and to interrupt. */
  round(): Promise<void>;
  /** Rounds until the signal ends them; what fails is logged and tried again. */
  run(signal: AbortSignal, everyMs: number): Promise<void>;
  status(): Record<string, unknown>;
}

/** The rules where an operator sets no others. */
export const DEFAULT_JUDGING_RULES: JudgingRules = {
  ...DEFAULT_SERVING_LIMITS,
  refutedMax: 10_000,
  refutedMin: 2,
  qualityMin: 600_000,
  judgedMin: 3,
  unlikeRate: 150_000,
  probesPerMiner: 8,
  replaysPerRound: 4,
  probesAtOnce: 4,
  probeTimeoutMs: 90_000,
  speed: 500_000,
  feeBps: 0n,
};

/** Weights are committed within this part of the epoch: late enough to have seen it, early enough to be mined. */
const COMMIT_FROM = 700_000n;
const COMMIT_TO = 850_000n;
/** A probe so much later than planned (share of the epoch) would come in a burst after an outage: it is left out. */
const LATE_SHARE = 20n;
/** No probe takes longer than an eighth of the epoch, so that weights are in time. */
const PATIENCE_MS_PER_S = 125;
const PATIENCE_MS_MIN = 2_000;
const SESSIONS_MAX = 256;
const SESSION_BYTES_MAX = 256 << 10;
const ANSWERS_MAX = 4096;
/** Of all gathered sessions together: as much of users' words can come to lie in the state file, as probes. */
const GATHERED_BYTES_MAX = 16 << 20;
const RECORD_MAX = 512;
/** Users' requests fill half of a record at most: the rest is for the probes. */
const USERS_RECORD_MAX = RECORD_MAX / 2;
/** Half of the probes do not carry users' leave, whatever gateways tell: who cheats on all that carry none meets these. */
const REPLAY_SHARE_MAX = WHOLE / 2;

const RECEIPT_UNFIT = { outcome: 'failed', code: 'receipt-unfit' } as const;

/** Opens a validator with what it knew when it stopped. @throws judging-state-broken */
export function openValidator(options: ValidatorOptions): Validator {
  return new OpenValidator(options);
}

class OpenValidator implements Validator {
  readonly #options: ValidatorOptions;
  readonly #rules: JudgingRules;
  readonly #statePath: string;
  readonly #evidence: EvidenceBook;
  readonly #state: JudgingState;
  readonly #abort = new AbortController();
  #gathered: CorpusSession[] = [];
  #explained = -1n;
  #written = '';
  #entries: EvidenceEntry[] = [];
  #scores = new Map<number, MinerScore>();

  constructor(options: ValidatorOptions) {
    this.#options = options;
    this.#rules = { ...DEFAULT_JUDGING_RULES, ...options.rules };
    this.#statePath = join(options.folder, 'state.json');
    this.#state = readState(this.#statePath);
    this.#evidence = openEvidence(join(options.folder, 'evidence'));
  }

  async run(signal: AbortSignal, everyMs: number): Promise<void> {
    const clock = this.#options.clock ?? systemClock;
    signal.addEventListener('abort', () => this.#abort.abort(), { once: true });
    while (!signal.aborted) {
      try {
        await this.round();
      } catch (error) {
        const { code, message } = toMillraceError(error);
        this.#options.log.warn('judging-failed', { code, reason: message.slice(0, 300) });
      }
      await clock.sleep(everyMs, signal).catch(() => {});
    }
  }

  async round(): Promise<void> {
    const { ports } = this.#options;
    const moment = await ports.look();
    for (const miner of moment.miners) this.#beginToCount(miner);
    if (moment.epoch !== this.#state.epoch) await this.#begin(moment);
    if (this.#isCommitDue(moment)) await this.#commit(moment);
    await ports.tend();
    await this.#probe(moment);
    await this.#replay(moment);
    this.#keep(moment.epoch);
  }

  /** What was burnt before this validator knew the operator under its key earns nothing; a key that went from one operator to another is new. */
  #beginToCount(miner: JudgedMiner): void {
    const { counted } = this.#state;
    if (counted.has(purseOf(miner))) return;
    const others = [...counted.keys()].filter((key) => key.startsWith(`${miner.operatorId}|`));
    for (const other of others) counted.delete(other);
    counted.set(purseOf(miner), miner.burnt);
  }

  status(): Record<string, unknown> {
    const { epoch, plan, done, committedEpoch, shown } = this.#state;
    const scores = [...this.#scores].map(([uid, score]) => ({ uid, ...score }));
    return {
      epoch: epoch.toString(),
      committedEpoch: committedEpoch.toString(),
      probesPlanned: plan.length,
      probesDone: done.size,
      shown,
      scores,
    };
  }

  /** A new epoch: a new hidden plan, out of sessions that no earlier plan has used. */
  async #begin(moment: SubnetMoment): Promise<void> {
    const state = this.#state;
    const targets = moment.miners.filter(({ paths }) => paths.length > 0);
    const paths = [...new Set(targets.flatMap((miner) => miner.paths))];
    const wanted = Math.min(SESSIONS_MAX, 2 * this.#rules.probesPerMiner);
    const gathered = this.#gathered.splice(0);
    const isEnough = paths.every((path) => gathered.filter(({ requests }) => requests[0]?.path === path).length >= wanted);
    const stock = isEnough || paths.length === 0 ? [] : await this.#options.stock(paths, wanted);
    const { paid, replayable } = state.shown;
    const replayShare = paid === 0 ? 0 : Math.min(REPLAY_SHARE_MAX, Math.floor((replayable * WHOLE) / paid));
    const corpus: ProbeCorpus = { sessions: [...gathered, ...stock], replayShare, forgetShare: 0 };
    const [fromMs, endMs] = [Number(moment.now) * 1000, Number(moment.endsAt) * 1000];
    state.epoch = moment.epoch;
    state.done = new Set();
    state.plan = planProbes({
      corpus,
      targets,
      perTarget: this.#rules.probesPerMiner,
      accounts: this.#options.accounts,
      window: { fromMs, toMs: fromMs + Math.floor(((endMs - fromMs) * Number(COMMIT_FROM)) / WHOLE) },
      seed: randomBytes(32),
    });
    this.#keep(moment.epoch);
  }

  async #probe(moment: SubnetMoment): Promise<void> {
    const { done, plan } = this.#state;
    const nowMs = Number(moment.now) * 1000;
    const lateMs = Number((moment.endsAt - moment.startsAt) / LATE_SHARE) * 1000;
    const due = plan.filter(({ id, dueMs }) => dueMs <= nowMs && !done.has(id));
    for (const { id } of due) done.add(id);
    const timely = due.filter(({ dueMs }) => nowMs - dueMs <= lateMs);
    if (due.length > 0) this.#write(); // never the same probe twice
    for (let from = 0; from < timely.length; from += this.#rules.probesAtOnce) {
      await Promise.all(timely.slice(from, from + this.#rules.probesAtOnce).map((probe) => this.#sendProbe(probe, moment)));
    }
  }

  async #sendProbe(probe: PlannedProbe, moment: SubnetMoment): Promise<void> {
    const miner = moment.miners.find(({ uid }) => uid === probe.uid);
    if (miner === undefined) return;
    const patienceMs = Math.max(PATIENCE_MS_MIN, Number(moment.endsAt - moment.startsAt) * PATIENCE_MS_PER_S);
    const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(Math.min(this.#rules.probeTimeoutMs, patienceMs))]);
    const asked = await this.#options.ports.ask(probe, miner, signal);
    if (this.#abort.signal.aborted) return;
    const { ttftMs, tpotUs, answered } = asked;
    const record = this.#recordOf(probe.uid);
    const verdict = answered === undefined ? undefined : await this.#judge(answered, { isOwn: true, miner, ttftMs });
    const { outcome, code } = isReceipted(verdict) ? asked : RECEIPT_UNFIT;
    push(record.serving, { outcome, ttftMs, tpotUs });
    if (verdict !== undefined) push(record.verdicts, { outcome: verdict.outcome, reason: verdict.reason });
    this.#entries.push({
      at: Number(moment.now),
      kind: 'probe',
      uid: probe.uid,
      path: probe.path,
      requestHash: `0x${createHash('sha256').update(probe.body).digest('hex')}`,
      outcome,
      code,
      ttftMs,
      tpotUs,
      ...shownVerdict(verdict),
    });
  }

  /** Runs some of the users' requests again. Whose and which is drawn, so that no gateway chooses them and who shows many counts as one. */
  async #replay(moment: SubnetMoment): Promise<void> {
    const { requests, paid } = await this.#options.ports.takeShown();
    const { shown } = this.#state;
    shown.paid += Math.max(paid, requests.length);
    shown.replayable += requests.length;
    for (const request of requests) this.#gather(request, moment);
    const left = new Map<string, ShownRequest[]>();
    for (const request of requests) left.set(request.payer, [...(left.get(request.payer) ?? []), request]);
    for (let count = this.#rules.replaysPerRound; count > 0 && left.size > 0; count -= 1) {
      const [payer, own] = drawn([...left]);
      const request = drawn(own);
      own.splice(own.indexOf(request), 1);
      if (own.length === 0) left.delete(payer);
      await this.#replayOne(request, moment);
    }
  }

  async #replayOne(request: ShownRequest, moment: SubnetMoment): Promise<void> {
    const { uid, path } = request;
    const miner = moment.miners.find((one) => one.uid === uid);
    if (miner === undefined) return;
    const verdict = await this.#judge(request, { isOwn: false, miner });
    if (this.#abort.signal.aborted) return;
    const { verdicts } = this.#recordOf(uid);
    const { outcome, reason } = verdict;
    if (verdicts.filter(({ isUsers }) => isUsers === true).length < USERS_RECORD_MAX) push(verdicts, { outcome, reason, isUsers: true });
    this.#state.shown[outcome] += 1;
    if (outcome === 'refuted' && verdict.evidence === 'replayed') this.#options.onRefuted?.(request, verdict);
    const receiptId = verdict.receipt?.inputs.receiptId;
    this.#entries.push({ at: Number(moment.now), kind: 'replay', uid, path, receiptId, ...shownVerdict(verdict) });
  }

  #gather({ path, contentType, requestBody, uid }: ShownRequest, moment: SubnetMoment): void {
    const held = this.#gathered.reduce((sum, { requests }) => sum + (requests[0]?.body.length ?? 0), requestBody.length);
    if (this.#gathered.length >= SESSIONS_MAX || requestBody.length > SESSION_BYTES_MAX || held > GATHERED_BYTES_MAX) return;
    const request = { path, contentType, body: requestBody, gapMs: 0 };
    this.#gathered.push({ secondOfDay: Number(moment.now % 86_400n), servedBy: [uid], requests: [request] });
  }

  async #judge(answered: AnsweredRequest, of: { isOwn: boolean; miner: JudgedMiner; ttftMs?: number }): Promise<ReplayVerdict> {
    const { codec, modelOf } = this.#options;
    const { isOwn, miner } = of;
    const verdict = await replayRequest(answered, { codec, modelOf, isOwn, miner, signal: this.#abort.signal });
    const isExact = verdict.receipt !== undefined && modelOf(verdict.receipt.subject.modelRoot)?.engine.card.determinism === 'exact';
    if (isOwn && verdict.outcome === 'unproven' && !isExact) this.#noteAnswer(answered, { uid: miner.uid, ttftMs: of.ttftMs ?? 0 });
    return verdict;
  }

  /** Answers of models that draw their words: the same from two miners is a copy. The question is the request's own bytes. */
  #noteAnswer(answered: AnsweredRequest, { uid, ttftMs }: { uid: number; ttftMs: number }): void {
    if (!answered.path.startsWith('/v1/chat') || this.#state.answers.length >= ANSWERS_MAX) return;
    try {
      const asked = JSON.parse(answered.requestBody.toString('utf8')) as { temperature?: number; seed?: number };
      if (!meansSomething({ determinism: 'none' }, asked)) return;
      const type = answered.answerType ?? 'application/json';
      const content = readAnswer('chat', type, signedBytes(type, answered.answer));
      const text = content.task === 'chat' ? content.text : '';
      const hash = (value: string | Buffer) => createHash('sha256').update(value).digest('hex');
      this.#state.answers.push({ question: hash(answered.requestBody), uid, digest: hash(text), length: text.length, ttftMs });
    } catch {
      // An answer that cannot be read was judged as such already.
    }
  }

  #isCommitDue({ now, startsAt, endsAt, epoch }: SubnetMoment): boolean {
    if (this.#state.committedEpoch >= epoch) return false;
    // Each validator at a moment of its own within the stretch, the same after a restart.
    const drawn = BigInt(createHash('sha256').update(`${this.#statePath}|${epoch}`).digest().readUInt32BE());
    const share = COMMIT_FROM + ((COMMIT_TO - COMMIT_FROM) * drawn) / 2n ** 32n;
    return now >= startsAt + ((endsAt - startsAt) * share) / BigInt(WHOLE);
  }

  async #commit(moment: SubnetMoment): Promise<void> {
    const state = this.#state;
    const { weights, smoothed, counted, scores, copies } = weighMiners({ moment, state, rules: this.#rules });
    if (this.#explained < moment.epoch) {
      // Once an epoch, also where the commit has to be tried again.
      this.#explained = moment.epoch;
      const at = Number(moment.now);
      for (const copy of copies) this.#entries.push({ at, kind: 'copies', ...copy });
      for (const [uid, score] of scores) this.#entries.push({ at, kind: 'score', uid, ...score });
      this.#entries.push({ at, kind: 'weights', weights: [...weights], sink: moment.sink, emissionValue: moment.emissionValue });
      this.#keep(moment.epoch);
    }
    if (weights.size > 0) await this.#options.ports.commit(weights);
    Object.assign(state, { committedEpoch: moment.epoch, smoothed, counted, records: new Map(), answers: [] });
    this.#write();
    this.#scores = scores;
    this.#options.log.info('weights-committed', { epoch: moment.epoch, entries: weights.size });
  }

  #recordOf(uid: number): MinerRecord {
    const known = this.#state.records.get(uid);
    if (known !== undefined) return known;
    const fresh = emptyRecord();
    this.#state.records.set(uid, fresh);
    return fresh;
  }

  #keep(epoch: bigint): void {
    this.#evidence.append(epoch, this.#entries.splice(0));
    this.#write();
  }

  /** Keeps the state where it has changed: after a crash the old or the new one is there. */
  #write(): void {
    const text = stateText(this.#state);
    if (text === this.#written) return;
    writeFileDurably(this.#statePath, text);
    this.#written = text;
  }
}

/** An own question came back with a receipt of this miner for it. What comes without one is no answer: nobody could prove anything by it. */
function isReceipted(verdict: ReplayVerdict | undefined): boolean {
  return verdict === undefined || (verdict.receipt !== undefined && verdict.reason !== 'other-miner');
}

function shownVerdict(verdict: ReplayVerdict | undefined): Record<string, unknown> {
  if (verdict === undefined) return {};
  const { outcome, evidence, reason, distance, inflatedBy, receipt } = verdict;
  return { verdict: outcome, evidence, reason, distance, inflatedBy, model: receipt?.subject.model, receiptId: receipt?.inputs.receiptId };
}

function push<T>(list: T[], value: T): void {
  if (list.length < RECORD_MAX) list.push(value);
}

function drawn<T>(list: readonly T[]): T {
  return list[randomInt(list.length)] as T;
}
