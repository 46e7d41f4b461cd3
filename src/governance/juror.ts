import { type ChainClient, fixSeed, type Sender } from '../chain/index.ts';
import { toMillraceError } from '../errors.ts';
import { type Logger, silentLogger } from '../log.ts';
import type { Judge } from './judge.ts';
import { createJurorNotes, isHarmless, type JurorNotes } from './juror-notes.ts';
import { createJurorVotes, type JurorVotes } from './juror-votes.ts';
import { type JurorVote, type JuryCase, readJurorVote, readJuryCase } from './jury-round.ts';
import { dueWork, isOver, type JuryWork, turnOf } from './jury-work.ts';
import { readJurorStanding, unlockSeats } from './seats.ts';
import { openVoteJournal, type VoteJournal } from './vote-journal.ts';

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
const TURN_SECONDS_MAX = 30n;
const TURN_PARTS = 64n;
const WITHDRAW_GAS = 60_000n;
const EXECUTE_ATTEMPTS = 8;

/** Opens the agent of an operator; it holds the seats that the operator has taken. @throws vote-journal-broken */
export function openJuror(options: JurorOptions): Juror {
  return new OpenJuror(options);
}

class OpenJuror implements Juror {
  readonly #options: JurorOptions;
  readonly #notes: JurorNotes;
  readonly #journal: VoteJournal;
  readonly #votes: JurorVotes;
  readonly #abort = new AbortController();
  readonly #over = new Set<bigint>();
  readonly #refusedRulings = new Map<bigint, number>();
  #open = 0;
  #mayBeOwed = true;
  /** When dues are looked for again although nothing is known of, chain seconds: seats may be left by command. */
  #duesAt = 0n;
  #turnSeconds: bigint | undefined;
  #drawSeconds = 0;

  constructor(options: JurorOptions) {
    this.#options = options;
    this.#notes = createJurorNotes(options.log ?? silentLogger, options.operatorId);
    this.#journal = openVoteJournal(options.folder);
    this.#votes = createJurorVotes({ ...options, journal: this.#journal, notes: this.#notes, signal: this.#abort.signal });
    this.#journal.firstOpen();
  }

  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#abort.abort(), { once: true });
    await this.#options.client.watchBlocks(async () => {
      try {
        await this.tend();
      } catch (error) {
        this.#notes.failed('disputes-not-tended', error);
      }
    }, signal);
    await this.settled();
  }

  settled(): Promise<void> {
    return this.#votes.settled();
  }

  record(): JurorRecord {
    return { open: this.#open, ...this.#votes.counts() };
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
    this.#open = ids.filter((id) => !this.#over.has(id)).length;
    this.#moveCursor(last);
    await this.#fetchDues();
  }

  async #tendCase(seen: JuryCase): Promise<void> {
    const { client, operatorId } = this.#options;
    const { disputeId } = seen;
    if (isOver(seen) || (this.#hasGivenUp(disputeId) && seen.unsettled.length === 0)) {
      this.#over.add(disputeId);
      this.#votes.forget(seen);
      return;
    }
    const now = await client.now();
    const vote = await readJurorVote(client, seen, operatorId);
    if (vote.votes > 0) this.#mayBeOwed = true;
    for (const work of dueWork(seen, vote, { drawSeconds: this.#drawSeconds }, now)) {
      try {
        await this.#do(work, { seen, vote, now });
      } catch (error) {
        this.#notes.failed(`jury-${work.kind}-failed`, error, { disputeId, round: seen.round });
      }
    }
  }

  async #do(work: JuryWork, at: { seen: JuryCase; vote: JurorVote; now: bigint }): Promise<void> {
    const { sender, operatorId } = this.#options;
    const { seen, vote, now } = at;
    const { disputeId } = seen;
    if (work.kind === 'vote') return this.#votes.begin(seen, now);
    if (work.kind === 'reveal') return this.#votes.reveal(seen, vote);
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
    this.#notes.done(`jury-${work.kind}`, { disputeId, round: seen.round });
  }

  /** An arbitrable that does not take its ruling keeps nobody's pay; it is told a few times, and anybody may tell it later. */
  async #execute(disputeId: bigint): Promise<void> {
    if (this.#hasGivenUp(disputeId)) return;
    try {
      await this.#options.sender.send({ contract: 'jury', functionName: 'execute', args: [disputeId] });
      this.#notes.done('jury-execute', { disputeId });
    } catch (error) {
      if (isHarmless(error)) return;
      const attempts = (this.#refusedRulings.get(disputeId) ?? 0) + 1;
      this.#refusedRulings.set(disputeId, attempts);
      if (attempts === EXECUTE_ATTEMPTS) this.#notes.failed('ruling-not-taken', error, { disputeId, attempts });
    }
  }

  #hasGivenUp(disputeId: bigint): boolean {
    return (this.#refusedRulings.get(disputeId) ?? 0) >= EXECUTE_ATTEMPTS;
  }

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
      this.#notes.failed('dues-not-fetched', error);
      // A beneficiary that takes no coins is asked again after the next dispute.
      if (toMillraceError(error).code === 'coins-refused') this.#mayBeOwed = false;
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
}
