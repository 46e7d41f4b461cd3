import { createHash, randomBytes, randomInt } from 'node:crypto';
import { type Clock, systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { readAtMost } from '../../read-at-most.ts';
import { checkLeaves, drawLeaves, type OpenedLeaf } from './challenge-check.ts';
import { taskOf } from './challenge-engine.ts';
import { ChallengeClock, type ChallengeTime, deviceSeed } from './challenge-time.ts';
import type { HealthView, Occupant } from './health-view.ts';
import type { Observation, Observations } from './observations.ts';
import type { OwnChallenges } from './own-challenges.ts';
import { askPartner, callPartner, createPartnerBook, type PartnerCaller, type PartnerNode, type SignedAnswer } from './partner-calls.ts';
import { sampleBytes, type TransferLine } from './partner-routes.ts';

/** What a prober stands on. */
export interface ProberOptions extends PartnerCaller {
  view: HealthView;
  operatorId: bigint;
  observations: Observations;
  challenges: OwnChallenges;
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

/** What a partner committed to in time, or not. */
interface Commitment {
  target: Target;
  node: PartnerNode;
  root: Buffer;
  elapsedMs: number;
  signatures: readonly [request: string, answer: string];
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
const ASK_AGAIN_MS = 100;
const OPENING_TIMEOUT_MS = 15_000;
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
  #challenged = 0;

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

  /** A new block was seen: begins the hour's challenge if its time has come just now. Time is counted from here, not from when its seed is read. */
  async onBlock(block: { number: bigint; timestamp: bigint }): Promise<void> {
    const { view } = this.#options;
    const startedAt = this.#clock.nowMs();
    const challenge = await this.#challengeClock.at(block);
    if (challenge === undefined || challenge.hour === this.#challenged) return;
    this.#challenged = challenge.hour;
    // A node that comes later, or whose chain jumped, cannot say how long anybody took.
    if (block.timestamp - challenge.time > BigInt(view.rule.slotSeconds)) return;
    for (const device of view.occupantsAt(challenge.hour)) {
      if (device.operatorId === this.#options.operatorId) this.#options.challenges.begin(challenge, device);
    }
    this.#keep(this.#challenge(await this.#targets(challenge.hour), challenge, startedAt));
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
   * Asks all for their commitments at once; only when each has answered, or is late, are leaves drawn and checked: checking keeps this node from
   * reading answers, and none must seem late for that.
   */
  async #challenge(targets: readonly Target[], challenge: ChallengeTime, startedAt: number): Promise<void> {
    const { line } = this.#options;
    line.hasChallenge = true;
    try {
      const commitments = await Promise.all(targets.map((target) => this.#askCommitment(target, startedAt)));
      for (const commitment of commitments) if (commitment !== undefined) await this.#checkCommitment(commitment, challenge, startedAt);
    } finally {
      line.hasChallenge = false;
    }
  }

  async #askCommitment(target: Target, startedAt: number): Promise<Commitment | undefined> {
    const { deadlineMs } = this.#options.view.rule;
    const { hour, partner } = target;
    try {
      const node = await this.#book(partner.operatorId);
      const body = { hour, seat: partner.seat };
      const asked = { path: '/challenge', body, timeoutMs: deadlineMs, signal: this.#over.signal };
      const { value, requestSignature, answerSignature } = await this.#askInTime(node, asked, startedAt);
      const root = Buffer.from(String(value.root), 'base64');
      return { target, node, root, elapsedMs: this.#elapsedMs(startedAt), signatures: [requestSignature, answerSignature] };
    } catch (error) {
      this.#miss(target, error, startedAt);
      return undefined;
    }
  }

  /** Asks again until the deadline: a node that has not yet seen the block which this one has refuses at first. */
  async #askInTime(node: PartnerNode, asked: Parameters<typeof askPartner>[2], startedAt: number): Promise<SignedAnswer> {
    for (;;) {
      try {
        return await askPartner(this.#options, node, asked);
      } catch (error) {
        this.#over.signal.throwIfAborted();
        if (this.#elapsedMs(startedAt) + ASK_AGAIN_MS >= this.#options.view.rule.deadlineMs) throw error;
        await this.#clock.sleep(ASK_AGAIN_MS, this.#over.signal);
      }
    }
  }

  async #checkCommitment(commitment: Commitment, { seed }: ChallengeTime, startedAt: number): Promise<void> {
    const { rule } = this.#options.view;
    const { target, node, root, elapsedMs, signatures } = commitment;
    const { hour, partner } = target;
    try {
      const task = taskOf(rule, partner, deviceSeed(seed, partner.deviceId));
      const leaves = drawLeaves(task);
      const body = { hour, seat: partner.seat, leaves };
      const opening = { path: '/opening', body, timeoutMs: OPENING_TIMEOUT_MS, signal: this.#over.signal };
      const opened = await askPartner(this.#options, node, opening).then(({ value }) => readLeaves(value.leaves));
      const isRight = root.length === 32 && checkLeaves(task, root, leaves, opened);
      const verdict = elapsedMs > rule.deadlineMs ? 'missed' : isRight ? 'passed' : 'wrong';
      this.#record([target], { challenge: { verdict, elapsedMs }, signatures });
    } catch (error) {
      this.#miss(target, error, startedAt);
    }
  }

  #miss(target: Target, error: unknown, startedAt: number): void {
    const elapsedMs = this.#elapsedMs(startedAt);
    if (this.#over.signal.aborted || elapsedMs > SLEPT_DEADLINES * (this.#options.view.rule.deadlineMs + OPENING_TIMEOUT_MS)) return;
    this.#options.log.debug('challenge-missed', {
      operatorId: target.partner.operatorId,
      seat: target.partner.seat,
      message: String(error),
    });
    this.#record([target], { challenge: { verdict: 'missed', elapsedMs } });
  }

  #elapsedMs(startedAt: number): number {
    return Math.round(this.#clock.nowMs() - startedAt);
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

/** The leaves of an answer; what cannot be read is left out, and so missing. */
function readLeaves(value: unknown): OpenedLeaf[] {
  if (!Array.isArray(value)) return [];
  return value.flatMap((leaf: { index?: unknown; words?: unknown; proof?: unknown }) => {
    const { index, words, proof } = leaf ?? {};
    if (typeof index !== 'number' || typeof words !== 'string' || !Array.isArray(proof) || proof.length > 64) return [];
    const bytes = Buffer.from(words, 'base64');
    if (bytes.length % 4 !== 0) return [];
    const read = Uint32Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readUInt32LE(4 * at));
    return [{ index, words: read, proof: proof.map((hash) => Buffer.from(String(hash), 'base64')) }];
  });
}
