import { randomBytes } from 'node:crypto';
import { type Address, bytesToHex, encodeAbiParameters, type Hex, keccak256 } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { type MillraceError, toMillraceError } from '../errors.ts';
import { type Logger, silentLogger } from '../log.ts';
import { readEvidence } from './evidence.ts';
import type { Judge } from './judge.ts';
import { type JurorVote, type JuryCase, readJurorVote, readJuryCase } from './jury-round.ts';
import { fixSeed } from './jury-seed.ts';
import { dueWork, isOver, type JuryWork, turnOf } from './jury-work.ts';
import { readJurorStanding, unlockSeats } from './seats.ts';
import { type DecidedVote, openVoteJournal, type VoteJournal } from './vote-journal.ts';

/** Who a juror is, what it can judge, and where it keeps what it must not lose. */
export interface JurorOptions {
  client: ChainClient;
  /** Of the operator's node key. */
  sender: Sender;
  operatorId: bigint;
  /** Votes and their salts. */
  folder: string;
  /** One for each arbitrable whose questions this juror can answer. */
  judges: readonly Judge[];
  log?: Logger;
}

/** What a juror did since it was opened, and what it waits for. */
export interface JurorRecord {
  /** Disputes that are looked at: not over yet. */
  open: number;
  committed: number;
  revealed: number;
  /** Votes that it was drawn for and has no answer for (yet). */
  unanswered: number;
}

/** An operator's agent at the jury. */
export interface Juror {
  /**
   * Does what is due now in every dispute: draws, decides and commits its own votes, reveals, closes, executes, settles, and fetches what it is owed.
   * Safe to repeat and to interrupt. Answers of judges are waited for in the background; `settled` waits for them.
   */
  tend(): Promise<void>;
  /** Resolves when no judge is at work. */
  settled(): Promise<void>;
  /** Tends at every block until the signal ends it; what fails is logged and tried again. */
  run(signal: AbortSignal): Promise<void>;
  record(): JurorRecord;
}

const READS_AT_ONCE = 16;
const JUDGING_AT_ONCE = 4;
/** A judge that had no answer is asked again after this part of the time to commit. */
const ASKS = 8n;
const ASK_SECONDS_MIN = 5n;
const TURN_SECONDS_MAX = 30n;
const TURN_PARTS = 64n;
const WITHDRAW_GAS = 60_000n;
const EXECUTE_ATTEMPTS = 8;

/** Answers of the contract that say that somebody else was first, or that a moment has passed. */
const HARMLESS: ReadonlySet<string> = new Set([
  'wrong-phase',
  'too-early',
  'too-late',
  'already-settled',
  'already-voted',
  'nothing-owed',
  'nothing-to-unlock',
  'still-locked',
  'too-few-jurors',
]);

/** Opens the agent of an operator; it holds the seats that the operator has taken. @throws vote-journal-broken */
export function openJuror(options: JurorOptions): Juror {
  return new OpenJuror(options);
}

class OpenJuror implements Juror {
  readonly #options: JurorOptions;
  readonly #log: Logger;
  readonly #journal: VoteJournal;
  readonly #judges: ReadonlyMap<string, Judge>;
  readonly #abort = new AbortController();
  readonly #judging = new Map<string, Promise<void>>();
  /** By dispute and round: when the judge is asked again, chain seconds. */
  readonly #askAgainAt = new Map<string, bigint>();
  readonly #over = new Set<bigint>();
  readonly #refusedRulings = new Map<bigint, number>();
  readonly #said = new Set<string>();
  #open = new Set<bigint>();
  #done = { committed: 0, revealed: 0 };
  #mayBeOwed = true;
  /** When dues are looked for again although nothing is known of, chain seconds: seats may be left by command. */
  #duesAt = 0n;
  #turnSeconds: bigint | undefined;
  #drawSeconds = 0;

  constructor(options: JurorOptions) {
    this.#options = options;
    this.#log = options.log ?? silentLogger;
    this.#journal = openVoteJournal(options.folder);
    this.#judges = new Map(options.judges.map((judge) => [judge.arbitrable.toLowerCase(), judge]));
    this.#journal.firstOpen();
  }

  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#abort.abort(), { once: true });
    await this.#options.client.watchBlocks(async () => {
      try {
        await this.tend();
      } catch (error) {
        this.#warn('disputes-not-tended', error);
      }
    }, signal);
    await this.settled();
  }

  async settled(): Promise<void> {
    while (this.#judging.size > 0) await Promise.all(this.#judging.values());
  }

  record(): JurorRecord {
    return { open: this.#open.size, ...this.#done, unanswered: this.#askAgainAt.size };
  }

  async tend(): Promise<void> {
    const { client } = this.#options;
    await this.#readTimes();
    const last = await client.read('jury', 'disputeCount');
    const ids: bigint[] = [];
    for (let id = this.#journal.firstOpen(); id <= last; id += 1n) if (!this.#over.has(id)) ids.push(id);
    for (let from = 0; from < ids.length; from += READS_AT_ONCE) {
      const batch = ids.slice(from, from + READS_AT_ONCE);
      const cases = await Promise.all(batch.map((id) => readJuryCase(client, id)));
      for (const seen of cases) await this.#tendCase(seen);
    }
    this.#open = new Set(ids.filter((id) => !this.#over.has(id)));
    this.#moveCursor(last);
    await this.#fetchDues();
  }

  async #tendCase(seen: JuryCase): Promise<void> {
    const { client, operatorId } = this.#options;
    const { disputeId } = seen;
    if (isOver(seen) || (this.#hasGivenUp(disputeId) && seen.unsettled.length === 0)) {
      this.#over.add(disputeId);
      this.#journal.forget(disputeId, seen.round + 1);
      return;
    }
    const now = await client.now();
    const vote = await readJurorVote(client, seen, operatorId);
    if (vote.votes > 0) this.#mayBeOwed = true;
    for (const work of dueWork(seen, vote, { drawSeconds: this.#drawSeconds }, now)) {
      try {
        await this.#do(work, { seen, vote, now });
      } catch (error) {
        const { code } = toMillraceError(error);
        if (!HARMLESS.has(code)) this.#warn(`jury-${work.kind}-failed`, error, { disputeId, round: seen.round });
      }
    }
  }

  async #do(work: JuryWork, at: { seen: JuryCase; vote: JurorVote; now: bigint }): Promise<void> {
    const { sender, operatorId } = this.#options;
    const { seen, vote, now } = at;
    const { disputeId } = seen;
    if (work.kind === 'vote') return this.#beginToJudge(seen, now);
    if (work.kind === 'reveal') return this.#reveal(seen, vote);
    if (now < work.since + turnOf(seen, operatorId, this.#turnSeconds ?? 1n)) return;
    switch (work.kind) {
      case 'draw':
        if (!(await fixSeed(this.#options.client, { sender, time: seen.seedTime }))) return;
        await sender.send({ contract: 'jury', functionName: 'draw', args: [disputeId] });
        break;
      case 'execute':
        return this.#execute(disputeId);
      case 'settle':
        await sender.send({ contract: 'jury', functionName: 'settle', args: [disputeId, work.round] });
        this.#mayBeOwed = true;
        break;
      default:
        await sender.send({ contract: 'jury', functionName: work.kind, args: [disputeId] });
    }
    this.#log.info(`jury-${work.kind}`, { disputeId, round: seen.round });
  }

  /** An arbitrable that does not take its ruling keeps nobody's pay; it is told a few times, and anybody may tell it later. */
  async #execute(disputeId: bigint): Promise<void> {
    if (this.#hasGivenUp(disputeId)) return;
    try {
      await this.#options.sender.send({ contract: 'jury', functionName: 'execute', args: [disputeId] });
      this.#log.info('jury-execute', { disputeId });
    } catch (error) {
      const { code } = toMillraceError(error);
      if (HARMLESS.has(code)) return;
      const attempts = (this.#refusedRulings.get(disputeId) ?? 0) + 1;
      this.#refusedRulings.set(disputeId, attempts);
      if (attempts === EXECUTE_ATTEMPTS) this.#warn('ruling-not-taken', error, { disputeId, attempts });
    }
  }

  #hasGivenUp(disputeId: bigint): boolean {
    return (this.#refusedRulings.get(disputeId) ?? 0) >= EXECUTE_ATTEMPTS;
  }

  // Votes of its own: decided by a judge, kept on the disk, then committed.

  #beginToJudge(seen: JuryCase, now: bigint): void {
    const key = `${seen.disputeId}/${seen.round}`;
    if (this.#judging.has(key) || this.#judging.size >= JUDGING_AT_ONCE || now < (this.#askAgainAt.get(key) ?? 0n)) return;
    const work = this.#vote(seen, { key, now })
      .catch((error) => {
        if (!HARMLESS.has(toMillraceError(error).code))
          this.#warn('vote-not-cast', error, { disputeId: seen.disputeId, round: seen.round });
        this.#askLater(key, { seen, now });
      })
      .finally(() => this.#judging.delete(key));
    this.#judging.set(key, work);
  }

  #askLater(key: string, { seen, now }: { seen: JuryCase; now: bigint }): void {
    const part = (seen.commitUntil - now) / ASKS;
    this.#askAgainAt.set(key, now + (part > ASK_SECONDS_MIN ? part : ASK_SECONDS_MIN));
  }

  async #vote(seen: JuryCase, { key, now }: { key: string; now: bigint }): Promise<void> {
    const { sender } = this.#options;
    const { disputeId, round } = seen;
    let decided = this.#journal.find(disputeId, round);
    if (decided === undefined) {
      const ruling = await this.#ask(seen, now);
      if (this.#abort.signal.aborted) return;
      if (ruling === undefined) return this.#askLater(key, { seen, now });
      decided = this.#decide(seen, ruling);
      // Without the salt the vote could not be revealed: it is on the disk before anybody knows of it.
      this.#journal.keep(disputeId, round, decided);
    }
    const { commitment } = decided;
    await sender.send({ contract: 'jury', functionName: 'commit', args: [disputeId, commitment], key: `juror/commit/${commitment}` });
    this.#askAgainAt.delete(key);
    this.#done.committed += 1;
    this.#log.info('vote-committed', { disputeId, round });
  }

  /** What the judge of the arbitrable answers; never a guess. */
  async #ask(seen: JuryCase, now: bigint): Promise<bigint | undefined> {
    const { client } = this.#options;
    const { disputeId, round, arbitrable, choices } = seen;
    const about = { disputeId, round, arbitrable };
    const judge = this.#judges.get(arbitrable.toLowerCase());
    if (judge === undefined) {
      this.#warnOnce('no-judge', { ...about, effect: 'no vote is cast, which costs the penalty' });
      return undefined;
    }
    const patienceMs = Number(seen.commitUntil - now) * 1000;
    const signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(patienceMs)]);
    const ruling = await judge.judge(seen, await readEvidence(client, seen), signal);
    if (ruling === undefined) this.#warnOnce('no-answer', { ...about, effect: 'no vote is cast unless the judge answers in time' });
    if (ruling === undefined || (ruling >= 0n && ruling <= choices)) return ruling;
    this.#warnOnce('unknown-answer', { ...about, ruling, choices, effect: 'no vote is cast' });
    return undefined;
  }

  #decide({ disputeId, round }: JuryCase, ruling: bigint): DecidedVote {
    const { client, operatorId } = this.#options;
    const salt = bytesToHex(randomBytes(32));
    const place = { chainId: BigInt(client.chainId), jury: client.address('jury'), disputeId, round, operatorId };
    return { ruling, salt, commitment: voteCommitment(place, { ruling, salt }) };
  }

  async #reveal({ disputeId, round }: JuryCase, { commitment }: JurorVote): Promise<void> {
    const { sender, operatorId } = this.#options;
    const decided = this.#journal.find(disputeId, round);
    if (decided === undefined || decided.commitment !== commitment) {
      return this.#warnOnce('opening-lost', { disputeId, round, effect: 'the vote cannot be revealed, which costs the penalty' });
    }
    const args = [disputeId, operatorId, decided.ruling, decided.salt] as const;
    await sender.send({ contract: 'jury', functionName: 'reveal', args, key: `juror/reveal/${commitment}` });
    this.#done.revealed += 1;
    this.#log.info('vote-revealed', { disputeId, round, ruling: decided.ruling });
  }

  // What others owe it, and what it remembers.

  /** Coins are fetched when they are worth more than twice the fee; stake that backs nothing any more is freed. */
  async #fetchDues(): Promise<void> {
    const { client, sender, operatorId } = this.#options;
    const now = await client.now();
    if (!this.#mayBeOwed && now < this.#duesAt) return;
    this.#duesAt = now + BigInt(this.#drawSeconds);
    const { beneficiary, owedCoins, owedTokens, freeable, unlocksAt, openVotes } = await readJurorStanding(client, operatorId);
    const fee = (await client.public.getGasPrice()) * WITHDRAW_GAS;
    try {
      if (owedCoins > 2n * fee) await sender.send({ contract: 'jury', functionName: 'withdraw', args: [beneficiary] });
      if (owedTokens > 0n) await sender.send({ contract: 'jury', functionName: 'withdrawTokens', args: [beneficiary] });
      const isFree = freeable > 0n && now >= (unlocksAt ?? 0n);
      if (isFree) await unlockSeats({ sender, operatorId });
      // Whoever still has votes out, or stake on its way, looks again.
      this.#mayBeOwed = openVotes > 0 || (freeable > 0n && !isFree);
    } catch (error) {
      const { code } = toMillraceError(error);
      if (!HARMLESS.has(code)) this.#warn('dues-not-fetched', error);
      // A beneficiary that takes no coins is asked again after the next dispute.
      if (code === 'coins-refused') this.#mayBeOwed = false;
    }
  }

  async #readTimes(): Promise<void> {
    if (this.#turnSeconds !== undefined) return;
    const { drawSeconds } = await this.#options.client.read('jury', 'config');
    const turn = BigInt(drawSeconds) / TURN_PARTS;
    this.#drawSeconds = drawSeconds;
    this.#turnSeconds = turn < 1n ? 1n : turn > TURN_SECONDS_MAX ? TURN_SECONDS_MAX : turn;
  }

  #moveCursor(last: bigint): void {
    const before = this.#journal.firstOpen();
    let first = before;
    while (first <= last && this.#over.has(first)) {
      this.#over.delete(first);
      first += 1n;
    }
    if (first !== before) this.#journal.setFirstOpen(first);
  }

  #warn(event: string, error: unknown, about: { disputeId?: bigint; round?: number; attempts?: number } = {}): void {
    const { code, message }: MillraceError = toMillraceError(error);
    this.#log.warn(event, { operatorId: this.#options.operatorId, ...about, code, reason: message.slice(0, 300) });
  }

  #warnOnce(event: string, about: { disputeId: bigint; round: number; [name: string]: string | bigint | number }): void {
    const key = `${event} ${about.disputeId} ${about.round}`;
    if (this.#said.has(key)) return;
    this.#said.add(key);
    this.#log.warn(event, { operatorId: this.#options.operatorId, ...about });
  }
}

/** What a juror commits to, as `IJury.commitmentOf` works it out. */
export function voteCommitment(
  place: { chainId: bigint; jury: Address; disputeId: bigint; round: number; operatorId: bigint },
  { ruling, salt }: { ruling: bigint; salt: Hex },
): Hex {
  const types = ['uint256', 'address', 'uint256', 'uint8', 'uint64', 'uint256', 'bytes32'].map((type) => ({ type }));
  const { chainId, jury, disputeId, round, operatorId } = place;
  return keccak256(encodeAbiParameters(types, [chainId, jury, disputeId, round, operatorId, ruling, salt]));
}
