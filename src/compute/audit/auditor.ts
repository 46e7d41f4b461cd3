import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { bytesToHex, type Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { eventArgs } from '../../token/index.ts';
import { PHASE, phaseOf } from '../jobs/job-chain.ts';
import { WORK_LEAF } from '../jobs/job-readers.ts';
import type { FetchContent } from '../part.ts';
import type { JobEngines } from '../verify/engines.ts';
import { type AuditRecord, openAuditJournal } from './audit-journal.ts';
import { allowBond } from './bonds.ts';
import { deliveredWorkOf, demandWork, pushDemand, workDemandOf } from './demand-steps.ts';
import { numbersOf, segmentsOf, summaryOf } from './finding.ts';
import { inspectSegment, type SegmentFinding } from './inspect-segment.ts';
import { type CommittedJob, callerOf, providerStates, readCommittedJob, type StateSource, withinTime } from './job-case.ts';
import { memberStates } from './member-states.ts';
import { bringWorkFromAny } from './member-work.ts';

/** Who audits, with what, and where it keeps what it must not lose. */
export interface AuditorOptions {
  client: ChainClient;
  /** The node key. */
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  folder: string;
  engines: JobEngines;
  fetchContent: FetchContent;
  log: Logger;
}

/** What an auditor did since it was opened. */
export interface AuditorCounts {
  /** Jobs that it is drawn for and that are not over. */
  open: number;
  right: number;
  wrong: number;
  withheld: number;
  cases: number;
  demands: number;
}

/** An operator's agent for the audits that it is drawn for. */
export interface Auditor {
  /** Does what is due now; safe to repeat and to interrupt. Replays run in the background: `settled` waits for them. */
  tend(): Promise<void>;
  settled(): Promise<void>;
  counts(): AuditorCounts;
  stop(): Promise<void>;
}

/** Answers of contracts that say that somebody else was first, or that a moment has passed. */
const HARMLESS: ReadonlySet<string> = new Set([
  'wrong-phase',
  'too-early',
  'too-late',
  'already-sealed',
  'already-before-jury',
  'not-yours',
  'already-drawn',
  'work-is-demanded',
  'demand-closed',
  'demand-too-early',
  'demand-too-late',
  'too-few-members',
  'already-settled',
  'wrong-state',
  'move-still-open',
  'cases-open',
  'no-jury',
]);
const ENGINE_MISSING = 'engine-missing';
const AUDITS_AT_ONCE = 2;
/** A state that is not handed over is asked for again until this part of the time to seal is left. */
const PATIENCE_PARTS = 3n;
/** Of the time to seal, what a provider may take to hand its states over, one after another. */
const FETCH_PARTS = 3;
const DELIVERED_FETCH_MS = 10 * 60_000;
/** Work that did not come in this part of the time to seal is demanded on chain, and then waited for until the smaller part is left. */
const DEMAND_PARTS = 3n;
const DEMANDED_PATIENCE_PARTS = 6n;
/** How long a provider has to settle its job, chain time after its window. */
const SETTLE_PATIENCE_SECONDS = 60n;

/** Opens the agent with the audits that it had under way. @throws audit-journal-broken */
export function openAuditor(options: AuditorOptions): Auditor {
  return new OpenAuditor(options);
}

class OpenAuditor implements Auditor {
  readonly #options: AuditorOptions;
  readonly #journal;
  readonly #working = new Map<Hex, Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #counts = { right: 0, wrong: 0, withheld: 0, cases: 0, demands: 0 };

  constructor(options: AuditorOptions) {
    this.#options = options;
    this.#journal = openAuditJournal(join(options.folder, 'audits'));
  }

  counts(): AuditorCounts {
    return { open: this.#journal.all().length, ...this.#counts };
  }

  async settled(): Promise<void> {
    while (this.#working.size > 0) await Promise.all(this.#working.values());
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.settled();
  }

  async tend(): Promise<void> {
    await this.#learnDraws();
    for (const record of this.#journal.all()) {
      try {
        await this.#tendAudit(record);
      } catch (error) {
        this.#warn('audit-not-tended', record.jobId, error);
      }
    }
  }

  /** Draws that came since the last look, from the chain's events. */
  async #learnDraws(): Promise<void> {
    const { client, operatorId, log } = this.#options;
    const toBlock = await client.public.getBlockNumber({ cacheTime: 0 });
    const fromBlock = this.#journal.nextBlock();
    if (fromBlock !== undefined && fromBlock > toBlock) return;
    const drawn = await client.events({ name: 'computeJobs', event: 'AuditorsDrawn', fromBlock, toBlock });
    for (const { args } of drawn) {
      const index = args.auditors.indexOf(operatorId);
      if (index < 0 || this.#journal.all().some(({ jobId }) => jobId === args.jobId)) continue;
      this.#journal.save({ jobId: args.jobId, index });
      log.info('audit-drawn', { jobId: args.jobId, sealUntil: args.sealUntil });
    }
    this.#journal.setNextBlock(toBlock + 1n);
  }

  async #tendAudit(record: AuditRecord): Promise<void> {
    const { client } = this.#options;
    const { jobId } = record;
    const [{ phase, until }, now] = await Promise.all([phaseOf(client, jobId), client.now()]);
    if (phase === PHASE.settled || phase === PHASE.none) return this.#forget(jobId);
    if (record.lacksWork === true) await this.#tendWorkDemand(record, { isOpen: now < until });
    if (phase === PHASE.sealing && now < until && record.isRefused !== true) {
      if (record.found === undefined) this.#begin(record);
      else await this.#seal(record);
    }
    if (phase === PHASE.revealing && now < until) await this.#reveal(record);
    // What was not sealed in time accuses nobody.
    if (phase === PHASE.window && record.found !== undefined) await this.#accuse(record, { until, now });
    if (phase === PHASE.window && now >= until + SETTLE_PATIENCE_SECONDS) await this.#settle(jobId);
  }

  /** With the settlement come its pay and the end of its duty; a provider that leaves it undone keeps no auditor from other jobs. */
  async #settle(jobId: Hex): Promise<void> {
    const { client, sender } = this.#options;
    const { terms, result } = await readCommittedJob(client, jobId);
    const args = [[terms], [result]] as const;
    await this.#send(jobId, 'settle', () => sender.send({ contract: 'computeJobs', functionName: 'settle', args }));
  }

  #begin(record: AuditRecord): void {
    this.#inBackground(record.jobId, async (signal) => {
      const job = await readCommittedJob(this.#options.client, record.jobId);
      const finding = await this.#audit(job, signal).catch((error) => {
        if (toMillraceError(error).code === ENGINE_MISSING) this.#refuse(record, error);
        throw error;
      });
      if (finding.kind === 'withheld' && (await this.#hasPatience(record, job, finding))) return;
      record.found = { finding, salt: bytesToHex(randomBytes(32)) };
      // Without the salt the seal could not be opened: it is on the disk before anybody knows of it.
      this.#journal.save(record);
      this.#counts[finding.kind] += 1;
      this.#options.log.info('audit-done', { jobId: record.jobId, ...summaryOf(finding) });
    });
  }

  /** Whether what was withheld may still come before the seal; work that is overdue is demanded from now on. */
  async #hasPatience(record: AuditRecord, { jobId, terms }: CommittedJob, { leaf }: { leaf: number }): Promise<boolean> {
    const { client } = this.#options;
    const [{ until }, now] = await Promise.all([phaseOf(client, jobId), client.now()]);
    const [left, whole] = [until - now, BigInt(terms.auditSeconds)];
    if (leaf !== WORK_LEAF) return left > whole / PATIENCE_PARTS;
    if (left <= whole - whole / DEMAND_PARTS) this.#lackWork(record);
    return left > whole / DEMANDED_PATIENCE_PARTS;
  }

  #lackWork(record: AuditRecord): void {
    if (record.lacksWork === true) return;
    record.lacksWork = true;
    this.#journal.save(record);
  }

  /** Demands the work, unless another auditor of the job has, and sees to it that the demand goes on. */
  async #tendWorkDemand({ jobId }: AuditRecord, { isOpen }: { isOpen: boolean }): Promise<void> {
    const { client, sender, log } = this.#options;
    const demandId = await workDemandOf(client, jobId);
    if (demandId !== undefined) return await this.#send(jobId, 'demand', () => pushDemand({ client, sender }, demandId));
    if (!isOpen) return;
    const job = await readCommittedJob(client, jobId);
    await this.#send(jobId, 'demand', async () => {
      const demanded = await demandWork({ client, sender }, job);
      this.#counts.demands += 1;
      log.warn('work-demanded', { jobId, demandId: demanded });
    });
  }

  /** Who has not the engine of a job says nothing of it: it could only be wrong. */
  #refuse(record: AuditRecord, error: unknown): void {
    record.isRefused = true;
    this.#journal.save(record);
    this.#options.log.error('audit-refused', {
      jobId: record.jobId,
      reason: toMillraceError(error).message,
      effect: 'the penalty of silence',
    });
  }

  #inBackground(jobId: Hex, work: (signal: AbortSignal) => Promise<void>): void {
    if (this.#working.has(jobId) || this.#working.size >= AUDITS_AT_ONCE) return;
    const { signal } = this.#stopping;
    const running = work(signal)
      .catch((error) => {
        if (!signal.aborted) this.#warn('audit-failed', jobId, error);
      })
      .finally(() => this.#working.delete(jobId));
    this.#working.set(jobId, running);
  }

  /** The segments that the chain has drawn, one after another; the first wrong one decides, then the first that is withheld. */
  async #audit(job: CommittedJob, signal: AbortSignal): Promise<SegmentFinding> {
    const { client, operatorId } = this.#options;
    const segments = await segmentsOf(client, job, operatorId);
    const source = providerStates(await callerOf(client, this.#options.signer), job);
    const fetchMs = (job.terms.auditSeconds * 1000) / FETCH_PARTS;
    return await this.#inspect(job, { segments, source: withinTime(source, fetchMs), fetchMs, signal });
  }

  async #inspect(
    job: CommittedJob,
    of: { segments: readonly number[]; source: StateSource; fetchMs: number; signal: AbortSignal },
  ): Promise<SegmentFinding> {
    const { client, signer, engines, fetchContent } = this.#options;
    const { segments, source, signal } = of;
    const first = segments[0] ?? 0;
    const patience = AbortSignal.timeout(Math.ceil(of.fetchMs));
    const caller = await callerOf(client, signer);
    const ports = { caller, fetchContent, folder: this.#folderOf(job.jobId), signal: AbortSignal.any([signal, patience]) };
    let withheld: SegmentFinding | undefined;
    const work = await bringWorkFromAny(job, ports).catch((error) => {
      signal.throwIfAborted();
      const { code, message, actor } = toMillraceError(error);
      if (actor === 'host' && !patience.aborted) throw error;
      withheld = { kind: 'withheld', segment: first, leaf: WORK_LEAF, reason: `${code}: ${message}`.slice(0, 300) };
      return undefined;
    });
    if (work === undefined) return withheld as SegmentFinding;
    for (const segment of segments) {
      const finding = await inspectSegment({ job, work, engines, source, segment, signal });
      if (finding.kind === 'wrong') return finding;
      if (finding.kind === 'withheld') withheld ??= finding;
    }
    return withheld ?? { kind: 'right' };
  }

  async #seal({ jobId, index, found }: AuditRecord): Promise<void> {
    const { client, sender } = this.#options;
    const jobs = client.address('computeJobs');
    const audit = await client.read('auditors', 'auditOf', [jobs, jobId, index]);
    if (BigInt(audit.seal) !== 0n || found === undefined) return;
    const seal = await this.#sealOf(jobId, found);
    await this.#send(jobId, 'seal', () =>
      sender.send({ contract: 'auditors', functionName: 'sealAudits', args: [jobs, [jobId], [index], [seal]], key: `audit/seal/${seal}` }),
    );
  }

  async #sealOf(jobId: Hex, { finding, salt }: NonNullable<AuditRecord['found']>): Promise<Hex> {
    const { client, operatorId } = this.#options;
    const { number, segment, stateHash } = numbersOf(finding);
    return await client.read('auditors', 'sealOf', [client.address('computeJobs'), jobId, operatorId, number, segment, stateHash, salt]);
  }

  async #reveal({ jobId, index, found }: AuditRecord): Promise<void> {
    const { client, sender } = this.#options;
    const jobs = client.address('computeJobs');
    const audit = await client.read('auditors', 'auditOf', [jobs, jobId, index]);
    if (audit.finding !== 0 || BigInt(audit.seal) === 0n || found === undefined) return;
    const { number, segment, stateHash } = numbersOf(found.finding);
    const reveal = { jobId, index, finding: number, segment, stateHash, salt: found.salt };
    await this.#send(jobId, 'reveal', () =>
      sender.send({ contract: 'auditors', functionName: 'revealAudits', args: [jobs, [reveal]], key: `audit/reveal/${jobId}/${index}` }),
    );
  }

  // What follows from a finding: a case before the jury, or a demand for the state that was not handed over.

  async #accuse(record: AuditRecord, { until, now }: { until: bigint; now: bigint }): Promise<void> {
    const { client } = this.#options;
    const finding = record.later ?? record.found?.finding;
    const { guilty, canary } = await client.read('computeJobs', 'job', [record.jobId]);
    if (guilty || canary || finding === undefined || finding.kind === 'right') return;
    // A case that is open keeps its job open, beyond the end of the window.
    if (finding.kind === 'wrong' && record.caseId !== undefined) return await this.#pushCase(record, BigInt(record.caseId));
    if (finding.kind === 'withheld' && finding.leaf === WORK_LEAF) return await this.#awaitWork(record, finding);
    if (finding.kind === 'withheld' && record.demandId !== undefined) return await this.#pushDemand(record, finding);
    if (now >= until) return;
    if (finding.kind === 'wrong') await this.#openCase(record, finding);
    else await this.#demand(record, finding);
  }

  /** What was delivered too late for the seal is replayed all the same. */
  async #awaitWork(record: AuditRecord, finding: { leaf: number }): Promise<void> {
    this.#lackWork(record);
    if ((await deliveredWorkOf(this.#options.client, record.jobId)) !== undefined) this.#replayDelivered(record, { finding });
  }

  async #openCase(record: AuditRecord, finding: Extract<SegmentFinding, { kind: 'wrong' }>): Promise<void> {
    const { client, sender, log } = this.#options;
    const { terms, result } = await readCommittedJob(client, record.jobId);
    const { start, end } = finding;
    const key = `audit/case/${record.jobId}`;
    await this.#send(record.jobId, 'case', async () => {
      if (finding.isChainBroken) {
        await sender.send({
          contract: 'jobDisputes',
          functionName: 'proveBrokenChain',
          args: [terms, result, start, start.proof, end, end.proof],
          key,
        });
        return;
      }
      const [{ bond }, value] = await Promise.all([client.read('jobDisputes', 'config'), client.read('jobDisputes', 'juryFee')]);
      await allowBond(client, { sender, court: 'jobDisputes', amount: bond });
      const evidence = `segment ${finding.segment} ends in ${finding.stateHash} here`;
      const args = [terms, result, start, start.proof, end, end.proof, evidence] as const;
      const receipt = await sender.send({ contract: 'jobDisputes', functionName: 'challengeSegment', args, value, key });
      record.caseId = eventArgs(receipt, 'jobDisputes', 'SegmentChallenged').caseId.toString();
      this.#journal.save(record);
      this.#counts.cases += 1;
      log.warn('job-challenged', { jobId: record.jobId, caseId: record.caseId, segment: finding.segment });
    });
  }

  /** A case that found no jury is tried again, and ends when its time is over. */
  async #pushCase({ jobId }: AuditRecord, caseId: bigint): Promise<void> {
    const { client, sender, log } = this.#options;
    const { state, moveUntil } = await client.read('jobDisputes', 'caseOf', [caseId]);
    if (state !== WAITING) return;
    const functionName = (await client.now()) < BigInt(moveUntil) ? 'callJury' : 'expire';
    await this.#send(jobId, functionName, async () => {
      await sender.send({ contract: 'jobDisputes', functionName, args: [caseId] });
      if (functionName === 'expire') log.warn('case-found-no-jury', { jobId, caseId, effect: 'the job is settled as if it were right' });
    });
  }

  async #demand(record: AuditRecord, finding: Extract<SegmentFinding, { kind: 'withheld' }>): Promise<void> {
    const { client, sender, log } = this.#options;
    const { terms, result } = await readCommittedJob(client, record.jobId);
    const { bond, fee, members } = await client.read('stateDemands', 'config');
    await this.#send(record.jobId, 'demand', async () => {
      await allowBond(client, { sender, court: 'stateDemands', amount: bond + fee * BigInt(members) });
      const args = [terms, result, finding.leaf] as const;
      const receipt = await sender.send({
        contract: 'stateDemands',
        functionName: 'demand',
        args,
        key: `audit/demand/${record.jobId}/${finding.leaf}`,
      });
      record.demandId = eventArgs(receipt, 'stateDemands', 'StateDemanded').demandId.toString();
      this.#journal.save(record);
      this.#counts.demands += 1;
      log.warn('state-demanded', { jobId: record.jobId, demandId: record.demandId, leaf: finding.leaf });
    });
  }

  /** Draws the committee, ends the demand when its time is over, and replays what was delivered. */
  async #pushDemand(record: AuditRecord, finding: Extract<SegmentFinding, { kind: 'withheld' }>): Promise<void> {
    const { client, sender } = this.#options;
    const demandId = BigInt(record.demandId as string);
    const { closed } = await client.read('stateDemands', 'demandOf', [demandId]);
    if (closed) return this.#replayDelivered(record, { finding, demandId });
    await this.#send(record.jobId, 'demand', () => pushDemand({ client, sender }, demandId));
  }

  /** All that was drawn, with what was delivered: the state may have been withheld for the sake of the segment before or after it. */
  #replayDelivered(record: AuditRecord, { finding, demandId }: { finding: { leaf: number }; demandId?: bigint }): void {
    this.#inBackground(record.jobId, async (signal) => {
      const { client, signer, operatorId } = this.#options;
      const job = await readCommittedJob(client, record.jobId);
      const caller = await callerOf(client, signer);
      const delivered = [...(record.delivered ?? []), ...(demandId === undefined ? [] : [demandId.toString()])];
      const source = delivered.reduce(
        (otherwise: StateSource, id) => memberStates(caller, { demandId: BigInt(id), otherwise }),
        providerStates(caller, job),
      );
      const later = await this.#inspect(job, {
        segments: await segmentsOf(client, job, operatorId),
        source,
        fetchMs: DELIVERED_FETCH_MS,
        signal,
      });
      // Delivered on chain, or by members that are away: it may be had later.
      if (later.kind === 'withheld' && later.leaf === finding.leaf) return;
      Object.assign(record, { later, delivered, demandId: undefined });
      this.#journal.save(record);
      this.#options.log.info('delivered-state-replayed', { jobId: record.jobId, ...summaryOf(later) });
    });
  }

  async #send(jobId: Hex, what: string, send: () => Promise<unknown>): Promise<void> {
    try {
      await send();
    } catch (error) {
      if (!HARMLESS.has(toMillraceError(error).code)) this.#warn(`audit-${what}-failed`, jobId, error);
    }
  }

  #forget(jobId: Hex): void {
    this.#journal.remove(jobId);
    rmSync(this.#folderOf(jobId), { recursive: true, force: true });
  }

  #folderOf(jobId: Hex): string {
    return join(this.#options.folder, 'work', jobId);
  }

  #warn(event: string, jobId: Hex, error: unknown): void {
    const { code, message } = toMillraceError(error);
    this.#options.log.warn(event, { jobId, code, reason: message.slice(0, 300) });
  }
}

/** `IJobDisputes.State.Waiting`. */
const WAITING = 4;
