import { createHash, randomBytes, randomInt } from 'node:crypto';
import { type Clock, systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { readAtMost } from '../../read-at-most.ts';
import { type ChallengeAsk, type ChallengeAskerOptions, checkCommitment, OPENING_TIMEOUT_MS, watchCommitments } from './challenge-asker.ts';
import type { ChallengeProgress } from './challenge-engine.ts';
import { ChallengeClock, type ChallengeTime } from './challenge-time.ts';
import type { HealthView, Occupant } from './health-view.ts';
import type { Observation, Observations } from './observations.ts';
import type { OwnChallenges } from './own-challenges.ts';
import { askPartner, callPartner, createPartnerBook, type PartnerCaller, type PartnerNode } from './partner-calls.ts';
import { sampleBytes, type TransferLine } from './partner-routes.ts';
import type { SeedSight } from './seed-sight.ts';

/** What a prober stands on. */
export interface ProberOptions extends PartnerCaller {
  view: HealthView;
  operatorId: bigint;
  observations: Observations;
  challenges: OwnChallenges;
  sight: SeedSight;
  log: Logger;
  clock?: Clock;
  wallMs(): number;
  line: TransferLine;
  /** Between two heartbeats, milliseconds; default: sixty an hour, at most one a second. */
  beatMs?: number;
}

/** A partner that one of the own seats has in a round of an hour. */
interface Target {
  hour: number;
  seat: number;
  round: number;
  partner: Occupant;
}

/** What a partner committed to in time. */
interface Commitment {
  target: Target;
  ask: ChallengeAsk;
  progress: ChallengeProgress;
}

const BEATS_PER_HOUR = 60;
const BEAT_MS_MIN = 1000;
const PING_TIMEOUT_MS = 4000;
const TRANSFER_TIMEOUT_MS = 20_000;
const TRANSFER_ATTEMPTS = 3;
/** A partner whose heartbeat is open for longer has its transfer later: one that hangs must not hold up those of others. */
const STALLED_MS = 800;
/** Transfers are begun within this share of the hour, at a time of their own. */
const TRANSFER_SHARE = 0.7;
/** Longer than a time-out took: this machine slept, and what seemed to fail says nothing of the partner. */
const SLEPT_MS = 2000;
/** Who asks later than such a share of the deadline says nothing of a challenge. */
const LATE_SHARE = 0.8;
/** Who knows no better when a challenge became public than to such a share of the deadline does not say that it was missed: that may be its own doing. */
const DOUBT_SHARE = 0.5;
/** As above, of a challenge with its opening. */
const SLEPT_DEADLINES = 2;
/** A partner that has another transfer, or does not know the pair yet, is asked again; one that refuses all hour long is not spoken of. */
const NOT_NOW = new Set(['transfer-busy', 'partner-refused']);
const ANSWER_BYTES_MAX = 1 << 16;

/**
 * Measures the partners that randomness gives this node's seats: heartbeats through the hour, one transfer each way at a random time, and the
 * hour's challenge when its time comes. Times are this machine's monotonic clock's; what hour it is the chain says.
 */
export class Prober {
  readonly #options: ProberOptions;
  readonly #clock: Clock;
  readonly #book: (operatorId: bigint) => Promise<PartnerNode>;
  readonly #challengeClock: ChallengeClock;
  readonly #over = new AbortController();
  /** When a target's transfer is due, milliseconds from the hour's beginning, how often it failed, and how often it was begun. */
  readonly #planned = new Map<string, { dueMs: number; attempts: number; calls: number }>();
  /** Since when each partner's oldest open heartbeat is open. */
  readonly #open = new Map<bigint, number[]>();
  readonly #running = new Set<Promise<unknown>>();
  #challenged = 0n;

  constructor(options: ProberOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#book = createPartnerBook(options.client);
    this.#challengeClock = new ChallengeClock(options.view);
  }

  /** Begins the heartbeats. */
  start(): void {
    const beatMs = this.#options.beatMs ?? Math.max(BEAT_MS_MIN, (this.#options.view.rule.hourSeconds * 1000) / BEATS_PER_HOUR);
    this.#keep(
      (async () => {
        while (!this.#over.signal.aborted) {
          await this.#beat().catch((error) => this.#options.log.warn('health-beat-failed', { message: String(error) }));
          await this.#clock.sleep(beatMs * (0.75 + randomInt(500) / 1000), this.#over.signal).catch(() => {});
        }
      })(),
    );
  }

  async stop(): Promise<void> {
    this.#over.abort();
    await Promise.allSettled(this.#running);
  }

  /** A new block was seen: begins the hour's challenges whose time has come just now. */
  async onBlock(block: { number: bigint; timestamp: bigint }): Promise<void> {
    const { view, challenges, operatorId } = this.#options;
    const challenge = (await this.#challengeClock.until(block)).at(-1);
    if (challenge === undefined || challenge.time <= this.#challenged) return;
    this.#challenged = challenge.time;
    for (const device of view.occupantsAt(challenge.hour)) if (device.operatorId === operatorId) challenges.begin(challenge, device);
    this.#keep(this.#targets(challenge.hour).then((targets) => this.#challenge(targets, challenge)));
  }

  async #targets(hour: number): Promise<Target[]> {
    const { view, operatorId } = this.#options;
    const seed = await view.seedOf(hour);
    if (seed === undefined) return [];
    const own = view.occupantsAt(hour).filter((one) => one.operatorId === operatorId);
    // A word that would not count, because an earlier round gave the device a partner of this operator, need not be looked for.
    const counts = ({ seat, partner, round }: Target) =>
      view.partnersOf(hour, partner.seat, seed).some((one) => one.round === round && one.partner.seat === seat);
    return own
      .flatMap(({ seat }) => view.drawnPartners(hour, seat, seed).map(({ round, partner }) => ({ hour, seat, round, partner })))
      .filter(counts);
  }

  async #beat(): Promise<void> {
    const { view, protocol } = this.#options;
    const now = protocol.now();
    const hour = view.hourAt(now);
    const targets = await this.#targets(hour);
    for (const [operatorId, group] of Map.groupBy(targets, ({ partner }) => partner.operatorId)) this.#keep(this.#ping(operatorId, group));
    this.#planTransfers(hour, targets, Number(now - view.startOf(hour)) * 1000);
  }

  /** Begins the transfer that is due and was begun least often: a partner that says it is busy all hour long must not keep the others waiting. */
  #planTransfers(hour: number, targets: readonly Target[], sinceMs: number): void {
    const { line, view } = this.#options;
    const due: { target: Target; plan: { dueMs: number; calls: number } }[] = [];
    for (const target of targets) {
      const key = keyOf(target);
      let plan = this.#planned.get(key);
      if (plan === undefined) {
        const dueMs = randomInt(Math.floor(view.rule.hourSeconds * 1000 * TRANSFER_SHARE));
        plan = { dueMs: this.#isTransferred(target) ? Number.POSITIVE_INFINITY : dueMs, attempts: 0, calls: 0 };
        this.#planned.set(key, plan);
      }
      if (sinceMs >= plan.dueMs && !this.#isStalled(target.partner.operatorId)) due.push({ target, plan });
    }
    const next = due.sort((one, other) => one.plan.calls - other.plan.calls)[0];
    if (next !== undefined && !line.busy && !line.hasChallenge) {
      next.plan.dueMs = Number.POSITIVE_INFINITY;
      next.plan.calls += 1;
      line.busy = true;
      this.#keep(
        this.#transfer(next.target).finally(() => {
          line.busy = false;
        }),
      );
    }
    for (const key of this.#planned.keys()) if (Number(key.split('/')[0]) < hour - 1) this.#planned.delete(key);
  }

  #isStalled(operatorId: bigint): boolean {
    const oldest = this.#open.get(operatorId)?.[0];
    return oldest !== undefined && this.#clock.nowMs() - oldest > STALLED_MS;
  }

  #isTransferred({ hour, seat, round }: Target): boolean {
    return this.#options.observations.of(hour).some((one) => one.seat === seat && one.round === round && one.transfer !== undefined);
  }

  /** One heartbeat of a partner's node, which counts for all pairs with it. */
  async #ping(operatorId: bigint, targets: readonly Target[]): Promise<void> {
    const { wallMs, log } = this.#options;
    const startedAt = this.#clock.nowMs();
    const open = this.#open.get(operatorId) ?? [];
    this.#open.set(operatorId, open);
    open.push(startedAt);
    try {
      const node = await this.#book(operatorId);
      const sentAt = this.#clock.nowMs();
      const sentWallMs = wallMs();
      const answer = await askPartner(this.#options, node, {
        path: '/ping',
        body: {},
        timeoutMs: PING_TIMEOUT_MS,
        signal: this.#over.signal,
      });
      const rttUs = Math.round((this.#clock.nowMs() - sentAt) * 1000);
      const theirMs = Number(answer.value.timeMs);
      const skewMs = Number.isFinite(theirMs) ? Math.round(theirMs - sentWallMs - rttUs / 2000) : undefined;
      this.#record(targets, { ping: { answered: true, rttUs, skewMs }, signatures: [answer.requestSignature, answer.answerSignature] });
    } catch (error) {
      if (this.#over.signal.aborted || this.#clock.nowMs() - startedAt > 2 * PING_TIMEOUT_MS + SLEPT_MS) return;
      log.debug('heartbeat-missed', { operatorId, message: String(error) });
      this.#record(targets, { ping: { answered: false } });
    } finally {
      open.splice(open.indexOf(startedAt), 1);
    }
  }

  /** Both ways; one that fails is tried again with a later heartbeat. */
  async #transfer(target: Target): Promise<void> {
    const { log } = this.#options;
    const plan = this.#planned.get(keyOf(target));
    try {
      const node = await this.#book(target.partner.operatorId);
      const downKbs = await this.#download(node);
      const upKbs = await this.#upload(node);
      this.#record([target], { transfer: { downKbs, upKbs } });
    } catch (error) {
      log.debug('transfer-failed', { operatorId: target.partner.operatorId, message: String(error) });
      if (plan === undefined || this.#over.signal.aborted) return;
      if (!(error instanceof MillraceError && NOT_NOW.has(error.code))) plan.attempts += 1;
      if (plan.attempts < TRANSFER_ATTEMPTS) plan.dueMs = 0;
      else this.#record([target], { transfer: { downKbs: 0, upKbs: 0 } });
    }
  }

  async #download(node: PartnerNode): Promise<number> {
    const bytes = sampleBytes(this.#options.view.rule);
    const startedAt = this.#clock.nowMs();
    const call = { path: '/download', body: '{}', timeoutMs: TRANSFER_TIMEOUT_MS, signal: this.#transferSignal() };
    const { response } = await callPartner(this.#options, node, call);
    await requireTransfer(response, node);
    let taken = 0;
    for await (const part of response.body ?? []) taken += part.length;
    return taken === bytes ? this.#kbs(bytes, startedAt) : 0;
  }

  async #upload(node: PartnerNode): Promise<number> {
    const body = randomBytes(sampleBytes(this.#options.view.rule));
    const startedAt = this.#clock.nowMs();
    const call = { path: '/upload', body, timeoutMs: TRANSFER_TIMEOUT_MS, signal: this.#transferSignal() };
    const { response } = await callPartner(this.#options, node, call);
    await requireTransfer(response, node);
    const { sha256 } = JSON.parse((await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8')) as { sha256?: unknown };
    return sha256 === createHash('sha256').update(body).digest('hex') ? this.#kbs(body.length, startedAt) : 0;
  }

  #transferSignal(): AbortSignal {
    return AbortSignal.any([this.#over.signal, AbortSignal.timeout(TRANSFER_TIMEOUT_MS)]);
  }

  #kbs(bytes: number, startedAt: number): number {
    return Math.floor(bytes / Math.max(1, this.#clock.nowMs() - startedAt));
  }

  /**
   * Watches all commitments at once; only when the time is over are leaves drawn and checked: checking keeps this node from reading answers, and none
   * must seem late for that. Time is counted from when the seed may first have been known, so nobody has more of it than the rule gives.
   */
  async #challenge(targets: readonly Target[], challenge: ChallengeTime): Promise<void> {
    const { line, log, sight, view } = this.#options;
    const seen = sight.of(challenge.time);
    const { deadlineMs } = view.rule;
    const lateMs = this.#clock.nowMs() - (seen?.fromMs ?? 0);
    if (seen === undefined || lateMs > LATE_SHARE * deadlineMs) {
      log.info('challenge-seen-late', { hour: challenge.hour, slot: challenge.slot, ...seen, lateMs });
      return;
    }
    const isClear = seen.untilMs - seen.fromMs <= DOUBT_SHARE * deadlineMs;
    line.hasChallenge = true;
    try {
      const commitments = await Promise.all(targets.map((target) => this.#watch(target, challenge, { startMs: seen.fromMs, isClear })));
      for (const commitment of commitments) if (commitment !== undefined) await this.#check(commitment);
    } finally {
      line.hasChallenge = false;
    }
  }

  get #asker(): ChallengeAskerOptions {
    return { ...this.#options, rule: this.#options.view.rule, clock: this.#clock, signal: this.#over.signal };
  }

  async #watch(
    target: Target,
    challenge: ChallengeTime,
    { startMs, isClear }: { startMs: number; isClear: boolean },
  ): Promise<Commitment | undefined> {
    let reason: unknown = 'nothing was done in time';
    try {
      const node = await this.#book(target.partner.operatorId);
      const ask = { node, device: target.partner, challenge, startMs };
      const progress = await watchCommitments(this.#asker, ask);
      if (progress !== undefined) return { target, ask, progress };
    } catch (error) {
      reason = error;
    }
    if (isClear) this.#miss(target, { challenge, startMs }, reason);
    return undefined;
  }

  async #check({ target, ask, progress }: Commitment): Promise<void> {
    try {
      const { signatures, ...judged } = await checkCommitment(this.#asker, ask, progress);
      this.#record([target], { challenge: { slot: ask.challenge.slot, ...judged }, signatures });
    } catch (error) {
      this.#miss(target, ask, error);
    }
  }

  #miss(target: Target, { challenge, startMs }: Pick<ChallengeAsk, 'challenge' | 'startMs'>, error: unknown): void {
    const { log, view } = this.#options;
    const elapsedMs = this.#clock.nowMs() - startMs;
    if (this.#over.signal.aborted || elapsedMs > SLEPT_DEADLINES * (view.rule.deadlineMs + OPENING_TIMEOUT_MS)) return;
    log.debug('challenge-missed', { operatorId: target.partner.operatorId, seat: target.partner.seat, message: String(error) });
    this.#record([target], { challenge: { slot: challenge.slot, verdict: 'missed', doneBps: 0 } });
  }

  #record(targets: readonly Target[], measured: Pick<Observation, 'ping' | 'transfer' | 'challenge' | 'signatures'>): void {
    const at = Number(this.#options.protocol.now());
    for (const { hour, seat, round, partner } of targets) {
      const { operatorId, deviceId } = partner;
      this.#options.observations.add({ hour, seat, round, operatorId: String(operatorId), deviceId: String(deviceId), at, ...measured });
    }
  }

  #keep(work: Promise<unknown>): void {
    const kept = work
      .catch((error) => this.#options.log.warn('health-measurement-failed', { message: String(error) }))
      .finally(() => this.#running.delete(kept));
    this.#running.add(kept);
  }
}

/** @throws transfer-busy, partner-refused */
async function requireTransfer(response: Response, { operatorId }: PartnerNode): Promise<void> {
  if (response.ok) return;
  await readAtMost(response.body, ANSWER_BYTES_MAX);
  throw new MillraceError(response.status === 503 ? 'transfer-busy' : 'partner-refused', {
    actor: 'peer',
    message: `The node of operator ${operatorId} takes no transfer now: ${response.status}`,
    values: { operatorId, status: response.status },
  });
}

function keyOf({ hour, seat, round }: Target): string {
  return `${hour}/${seat}/${round}`;
}
