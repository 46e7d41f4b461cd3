import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bytesToHex, type Hex, zeroHash } from 'viem';
import {
  type ChainClient,
  type ChainSupervisor,
  createSender,
  developmentSigner,
  fixSeed,
  nodeKeyConsent,
  type Sender,
  type Signer,
} from '../../src/chain/index.ts';
import { startTestNetwork, type TestNetwork } from '../../src/chain/network-fixture.ts';
import { type AuditSeats, openAuditSeats } from '../../src/compute/audit/audit-seats.ts';
import { type Auditor, openAuditor } from '../../src/compute/audit/auditor.ts';
import { canaryCommitment, canarySeal } from '../../src/compute/audit/canary.ts';
import { openCaseAgent } from '../../src/compute/audit/case-agent.ts';
import { type Committee, openCommittee } from '../../src/compute/audit/committee.ts';
import { openDeliverer } from '../../src/compute/audit/deliverer.ts';
import { segmentJudge } from '../../src/compute/audit/judge-segment.ts';
import { PHASE } from '../../src/compute/jobs/job-chain.ts';
import { keepContent, prepareContents } from '../../src/compute/jobs/job-contents.ts';
import { type JobRecords, openJobRecords } from '../../src/compute/jobs/job-records.ts';
import { answerJobs } from '../../src/compute/jobs/job-routes.ts';
import { DETERMINISM_NUMBER, type JobResult, type JobTerms, jobDomainOf, jobIdOf } from '../../src/compute/jobs/job-terms.ts';
import type { OutputDemandOptions } from '../../src/compute/jobs/output-demand.ts';
import { openRunJournals } from '../../src/compute/jobs/run-journal.ts';
import { type BoxKeyPair, boxKeyOf } from '../../src/compute/jobs/sealed-box.ts';
import { type JobSpec, specHash } from '../../src/compute/spec/job-spec.ts';
import { type Commitment, commitStates } from '../../src/compute/verify/commitment.ts';
import { ENGINE_NUMBER, engineOf } from '../../src/compute/verify/engines.ts';
import { readState } from '../../src/compute/verify/run-segments.ts';
import { createReplayGuard, openTransportIdentity, type PeerServer, startPeerServer } from '../../src/connect/index.ts';
import { enrolJuror, type Juror, openJuror } from '../../src/governance/index.ts';
import { type Executor, StrictEngine, WasmExecutor } from '../../src/host/index.ts';
import { createLogger, type Logger, silentLogger } from '../../src/log.ts';
import { approveMeter, depositStake, depositToRails } from '../../src/token/index.ts';
import { claimStop, forgeRun } from './compute-cheats-forge.ts';
import { type Play, playAuditor } from './compute-cheats-players.ts';
import { type Cheat, MODULE, type WantedJob, wholeSpec, wordCountSpec } from './compute-cheats-specs.ts';

/** One token in base units. */
export const TOKEN = 10n ** 18n;
const STABLE = 10n ** 6n;
/** Chain time between two looks of all agents: less than the shortest time in which something is due. */
const ROUND_SECONDS = 4;

/** A job of a test, from its opening on. */
export interface CheatJob {
  jobId: Hex;
  terms: JobTerms;
  result: JobResult;
  spec: JobSpec;
  commitment: Commitment;
  salt: Hex;
}

/** An operator with its node. */
export interface CheatOperator {
  operatorId: bigint;
  signer: Signer;
  sender: Sender;
  folder: string;
  /** Answers before anything else does. */
  intercept: (request: Request) => Response | undefined;
  fetch: (request: Request) => Response | Promise<Response>;
  server: PeerServer;
}

/** An operator that audits, serves in committees and judges. */
export interface Watcher extends CheatOperator {
  play: Play;
  /** Whether it takes delivery of states; one that does not is a member of committees all the same. */
  servesCommittees: boolean;
  /** Engines for whole jobs. */
  executors: readonly Executor[];
  seats: AuditSeats;
  /** What the contracts refused of what it tried. */
  refusals: string[];
  auditor: Auditor;
  committee: Committee;
  juror: Juror;
  /** Opens its agents again, as after a kill. */
  reopen(): void;
}

/** A real chain with real contracts, providers whose states a test has tampered with, and the product's own agents. */
export class CheatNetwork {
  readonly folder: string;
  readonly chain: ChainSupervisor;
  readonly client: ChainClient;
  readonly faucet: Sender;
  readonly renter: { signer: Signer; sender: Sender };
  readonly strict: StrictEngine;
  readonly wasm: WasmExecutor;
  readonly log: Logger;
  readonly watchers: Watcher[] = [];
  readonly #base: TestNetwork;
  readonly #operators: CheatOperator[] = [];
  readonly #jobs: { job: CheatJob; provider: CheatProvider }[] = [];
  #keys = 8;
  #nonce = 0n;

  private constructor(base: TestNetwork, parts: { renter: { signer: Signer; sender: Sender }; strict: StrictEngine; log: Logger }) {
    this.#base = base;
    ({ folder: this.folder, chain: this.chain, client: this.client, faucet: this.faucet } = base);
    ({ renter: this.renter, strict: this.strict, log: this.log } = parts);
    this.wasm = new WasmExecutor({ imageFolder: join(base.folder, 'modules') });
  }

  static async start(options: { verbose?: boolean; juryVotes?: number } = {}): Promise<CheatNetwork> {
    const log = options.verbose === true ? createLogger({ role: 'test', level: 'info' }) : silentLogger;
    const base = await startTestNetwork({ name: 'cheats', accounts: 60, idleSeconds: 3_600, deploy: { juryVotes: options.juryVotes } });
    const signer = developmentSigner(1, 'dev');
    const network = new CheatNetwork(base, { renter: { signer, sender: base.senderOf(signer) }, strict: await StrictEngine.open(), log });
    await network.#fundRenter();
    return network;
  }

  async #fundRenter(): Promise<void> {
    const { client, faucet } = this;
    const { sender } = this.renter;
    const amount = 1_000n * STABLE;
    await faucet.send({ contract: 'stableToken', functionName: 'mint', args: [sender.address, amount] });
    await depositToRails(client, { sender, token: 'stable', amount });
    await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [sender.address, 100n * TOKEN] });
    await approveMeter(client, { sender, meter: 'computeJobs', token: 'stable', allowance: amount });
  }

  /** An operator with stake, a node that is reached, and money for bonds and the jury. */
  async addOperator(): Promise<CheatOperator> {
    const { client, faucet } = this;
    this.#keys += 2;
    const [owner, signer] = [developmentSigner(this.#keys, 'dev'), developmentSigner(this.#keys + 1, 'dev')];
    const folder = join(this.folder, `operator-${this.#keys}`);
    mkdirSync(folder, { recursive: true });
    const identity = await openTransportIdentity(folder);
    const operator = {
      folder,
      signer,
      intercept: () => undefined,
      fetch: () => new Response(null, { status: 404 }),
    } as unknown as CheatOperator;
    const answer = async (request: Request) => {
      try {
        return operator.intercept(request) ?? (await operator.fetch(request));
      } catch (error) {
        const { code, message } = error as { code?: string; message: string };
        return Response.json({ code, title: message }, { status: 400 });
      }
    };
    operator.server = await startPeerServer({ port: 0, identity, fetch: answer });
    const endpoint = `https://127.0.0.1:${operator.server.port}`;
    const journalFolder = join(this.folder, 'keys');
    const ownerSender = createSender({ client, signer: owner, journalFolder, log: silentLogger });
    const consent = await nodeKeyConsent(client, signer, owner.address);
    const args = [signer.address, owner.address, identity.transportKey, endpoint, zeroHash, consent] as const;
    await ownerSender.send({ contract: 'operators', functionName: 'register', args });
    operator.operatorId = await client.read('operators', 'operatorOfNodeKey', [signer.address]);
    const stake = 1_000n * TOKEN;
    await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [owner.address, stake] });
    await depositStake(client, { sender: ownerSender, operatorId: operator.operatorId, amount: stake });
    ownerSender.close();
    operator.sender = createSender({ client, signer, journalFolder, log: silentLogger });
    await depositToRails(client, { sender: faucet, token: 'network', amount: 100n * TOKEN, account: signer.address });
    this.#operators.push(operator);
    return operator;
  }

  async addWatcher(): Promise<Watcher> {
    const watcher = (await this.addOperator()) as Watcher;
    const { client, strict } = this;
    const { operatorId, sender, signer } = watcher;
    const fetchContent = () => Promise.reject(new RangeError('all contents are handed over'));
    watcher.reopen = () => {
      const engines = { strict, executors: watcher.executors };
      const base = { client, signer, sender, operatorId, folder: watcher.folder, log: this.log };
      watcher.seats = openAuditSeats({ ...base, engines, wanted: 1 });
      watcher.auditor = openAuditor({ ...base, engines, fetchContent });
      watcher.committee = openCommittee({ ...base, fetchContent });
      const judge = segmentJudge({ client, signer, engines, fetchContent, folder: join(watcher.folder, 'judged'), log: this.log });
      watcher.juror = openJuror({ client, sender, operatorId, folder: join(watcher.folder, 'juror'), judges: [judge], log: this.log });
    };
    Object.assign(watcher, { play: 'honest', servesCommittees: true, refusals: [], executors: [this.wasm] });
    watcher.reopen();
    await watcher.seats.begin();
    await enrolJuror({ sender, operatorId }, 1);
    watcher.fetch = (request) => watcher.committee.fetch(request) ?? new Response(null, { status: 404 });
    this.watchers.push(watcher);
    return watcher;
  }

  async addProvider(): Promise<CheatProvider> {
    const operator = await this.addOperator();
    const key = await boxKeyOf(operator.signer);
    return new CheatProvider(this, operator, key);
  }

  /** The terms of a new job, signed by both. */
  async agree(provider: CheatProvider, spec: JobSpec, wanted: Partial<JobTerms> = {}): Promise<{ terms: JobTerms; jobId: Hex; salt: Hex }> {
    const { client, renter } = this;
    this.#nonce += 1n;
    const salt = bytesToHex(randomBytes(32));
    const { operatorId } = provider.operator;
    const seal = await canarySeal(client, { renter: renter.sender.address, nonce: this.#nonce, salt });
    const terms: JobTerms = {
      renter: renter.sender.address,
      operatorId,
      specHash: specHash(spec),
      token: client.address('stableToken'),
      price: 2n * STABLE,
      auditFee: STABLE,
      collateral: 5n * TOKEN,
      determinism: DETERMINISM_NUMBER[spec.determinism],
      engine: ENGINE_NUMBER[engineOf(spec)],
      lowerable: false,
      segments: spec.segments,
      samples: spec.segments,
      auditors: 2,
      openUntil: Number(await client.now()) + 600,
      runSeconds: 600,
      auditSeconds: 90,
      challengeSeconds: 60,
      flagSeal: seal,
      nonce: this.#nonce,
      ...wanted,
    };
    const jobId = jobIdOf(jobDomainOf(client), terms);
    const signatures = {
      renter: await renter.signer.signDigest(jobId),
      operator: await provider.operator.signer.signDigest(jobId),
    };
    await renter.sender.send({ contract: 'computeJobs', functionName: 'openJobs', args: [[terms], [signatures]] });
    return { terms, jobId, salt };
  }

  /** The renter's side of a job whose outputs it waits for. */
  async renterOf({ jobId, terms, spec }: CheatJob): Promise<OutputDemandOptions & { outputsFolder: string }> {
    const { client, renter, folder } = this;
    const journals = openRunJournals(join(folder, 'runs'));
    const files = { [spec.program.source]: join(folder, `${jobId}.wasm`) };
    writeFileSync(files[spec.program.source] as string, MODULE);
    const attempt = { jobId, terms, signature: zeroHash, boxKey: zeroHash };
    const journal = {
      runId: jobId.slice(2, 22),
      name: 'kept',
      account: renter.signer.address,
      spec,
      files,
      attempts: [attempt],
      startedAt: '',
    };
    const caller = { client, signer: renter.signer, key: await boxKeyOf(renter.signer) };
    const sending: OutputDemandOptions['sending'] = (use) => use(renter.sender);
    const outputsFolder = join(folder, 'outputs', jobId);
    return { caller, sending, attempt, journal, journals, outputsFolder, fetchContent: undefined, signal: undefined };
  }

  track(job: CheatJob, provider: CheatProvider): void {
    this.#jobs.push({ job, provider });
  }

  /** Lets all agents work and time pass until something is so; at most 150 rounds. */
  async work(isSo: () => Promise<boolean>, options: { also?: () => Promise<unknown> } = {}): Promise<void> {
    for (let round = 0; round < 150; round += 1) {
      if (await isSo()) return;
      for (const { job, provider } of this.#jobs) await this.#pushJob(job, provider);
      for (const watcher of this.watchers) await this.#pushWatcher(watcher);
      await options.also?.();
      await this.chain.warp(ROUND_SECONDS);
    }
    throw new Error('it did not come to that');
  }

  async #pushWatcher(watcher: Watcher): Promise<void> {
    const { auditor, committee, juror, play } = watcher;
    if (play === 'honest') {
      await auditor.tend();
      await auditor.settled();
    } else {
      for (const { job } of this.#jobs) {
        const refused = await playAuditor(this, watcher, { job, play });
        if (refused !== undefined) watcher.refusals.push(refused);
      }
    }
    if (watcher.servesCommittees) await committee.tend();
    await juror.tend();
    await juror.settled();
  }

  /** Forgets jobs that are over, and lets everybody play honestly again; who has lost a seat by a penalty takes another. */
  async rest(): Promise<void> {
    this.#jobs.length = 0;
    for (const watcher of this.watchers) {
      Object.assign(watcher, { play: 'honest', servesCommittees: true, refusals: [], executors: [this.wasm] });
      watcher.reopen();
      const { operatorId, sender } = watcher;
      await watcher.seats.take();
      const juror = await this.client.read('jury', 'juror', [operatorId]);
      if (juror.seats === 0) await enrolJuror({ sender, operatorId }, 1);
    }
    await this.chain.warp(2);
  }

  /** What a provider's agent does for a committed job: draws, defends, settles. */
  async #pushJob({ jobId, terms, result }: CheatJob, provider: CheatProvider): Promise<void> {
    const { client } = this;
    const { sender } = provider.operator;
    await provider.relent();
    const [phase, until] = await client.read('computeJobs', 'phaseOf', [jobId]);
    if (phase === PHASE.committed) {
      const time = await client.read('computeJobs', 'seedTimeOf', [jobId]);
      if (await fixSeed(client, { sender, time })) {
        await sender.send({ contract: 'computeJobs', functionName: 'drawAuditors', args: [[terms]] }).catch(() => {});
      }
    }
    if (phase === PHASE.window) {
      await provider.cases.tend();
      await provider.deliverer.tend();
      const { openCases } = await client.read('computeJobs', 'job', [jobId]);
      if (openCases === 0 && BigInt(until) <= (await client.now()) && !provider.neverSettles.has(jobId)) {
        await sender.send({ contract: 'computeJobs', functionName: 'settle', args: [[terms], [result]] });
      }
    }
  }

  async outcomeOf({ jobId }: CheatJob): Promise<number> {
    return (await this.client.read('computeJobs', 'job', [jobId])).outcome;
  }

  async isSettled(...jobs: CheatJob[]): Promise<boolean> {
    const seen = await Promise.all(jobs.map(({ jobId }) => this.client.read('computeJobs', 'job', [jobId])));
    return seen.every(({ phase }) => phase === PHASE.settled);
  }

  async stop(): Promise<void> {
    for (const watcher of this.watchers) await watcher.auditor.stop();
    for (const operator of this.#operators) {
      await operator.server.stop(100);
      operator.sender.close();
    }
    await this.#base.stop();
  }
}

/** A provider: the product's own routes over a folder in which a test has put states. */
export class CheatProvider {
  readonly network: CheatNetwork;
  readonly operator: CheatOperator;
  readonly records: JobRecords;
  readonly cases;
  readonly deliverer;
  readonly neverSettles = new Set<Hex>();
  readonly #commitments = new Map<Hex, Commitment>();
  readonly #neverDelivers = new Set<Hex>();
  readonly #keeps = new Set<Hex>();
  readonly #keepsWork = new Map<Hex, boolean | 'until demanded'>();
  readonly #withheld = new Map<Hex, { leaves: readonly number[]; isSilent: boolean }>();

  constructor(network: CheatNetwork, operator: CheatOperator, key: BoxKeyPair) {
    this.network = network;
    this.operator = operator;
    const { client } = network;
    const { signer, sender, operatorId } = operator;
    this.records = openJobRecords(join(operator.folder, 'jobs'));
    const desk = { client, signer, operatorId, records: this.records } as never;
    const idle = { look() {}, segmentsOf: () => undefined, running: () => 0, stop: async () => {} };
    const signedOffer = () => Promise.reject(new RangeError('no offers in this test'));
    const routes = { client, desk, runs: idle, key, guard: createReplayGuard(), signedOffer, isTaking: () => false, nudge() {} } as never;
    operator.fetch = (request) => answerJobs(routes, request) ?? new Response(null, { status: 404 });
    operator.intercept = (request) => this.#intercept(request);
    const commitmentOf = (jobId: Hex) => this.#commitments.get(jobId);
    this.cases = openCaseAgent({ client, sender, operatorId, commitmentOf, log: network.log });
    const stateOf = (jobId: Hex, leaf: number) => readState(this.records.spec(jobId), this.records.folders(jobId).run, leaf);
    const delivered = (jobId: Hex) => (this.#neverDelivers.has(jobId) ? undefined : this.#commitments.get(jobId));
    this.deliverer = openDeliverer({ client, sender, operatorId, commitmentOf: delivered, stateOf, log: network.log });
  }

  #intercept(request: Request): Response | undefined {
    const [, kept] = /jobs\/(0x[0-9a-f]{64})(?:\/artefacts\/.*)?$/.exec(new URL(request.url).pathname) ?? [];
    if (this.#keeps.has(kept as Hex)) return new Response(null, { status: 503 });
    const [, own] = /jobs\/(0x[0-9a-f]{64})\/(?:work|contents\/.*)$/.exec(new URL(request.url).pathname) ?? [];
    if (this.#keepsWork.has(own as Hex)) return new Response(null, { status: 503 });
    const [, jobId, index] = /jobs\/(0x[0-9a-f]{64})\/states\/(\d+)$/.exec(new URL(request.url).pathname) ?? [];
    const withheld = this.#withheld.get(jobId as Hex);
    return withheld?.leaves.includes(Number(index)) ? new Response(null, { status: 503 }) : undefined;
  }

  /** Hands a state to nobody until somebody has demanded it on chain; then to the committee. */
  async relent(): Promise<void> {
    const { client } = this.network;
    for (const [jobId, keeps] of this.#keepsWork) {
      const demandId = await client.read('stateDemands', 'workDemandOf', [jobId]);
      if (keeps === 'until demanded' && demandId !== 0n) this.#keepsWork.delete(jobId);
    }
    for (const [jobId, { isSilent }] of this.#withheld) {
      if (isSilent) continue;
      const demands = await client.events({ name: 'stateDemands', event: 'StateDemanded', args: { jobId } });
      for (const { args } of demands) {
        const { deliverUntil } = await client.read('stateDemands', 'demandOf', [args.demandId]);
        if (deliverUntil !== 0) this.#withheld.delete(jobId);
      }
    }
  }

  /** Keeps states from everybody from now on, committees too. */
  withhold(jobId: Hex, leaves: readonly number[]): void {
    this.#withheld.set(jobId, { leaves, isSilent: true });
    this.#neverDelivers.add(jobId);
  }

  /** Agrees a job, runs it as the cheat says, and commits. */
  async commitJob(cheat: Cheat = {}, wanted: WantedJob = {}): Promise<CheatJob> {
    const { network, operator } = this;
    const { text = 'the mill and the race and the mill\n', whole, ...changes } = wanted;
    const spec = whole === undefined ? wordCountSpec(text, changes.segments ?? 4) : wholeSpec(text, whole);
    const { terms, jobId, salt } = await network.agree(this, spec, changes);
    const handed = [spec.program.source, spec.inputs[0]?.cid as string];
    const signatures = { renter: zeroHash, operator: zeroHash };
    this.records.add({ jobId, terms, signatures, status: 'committed', renterBox: zeroHash, handed }, spec);
    const folders = this.records.folders(jobId);
    for (const [source, bytes] of [
      [handed[0], whole ?? MODULE],
      [handed[1], Buffer.from(text)],
    ] as [string, Uint8Array][]) {
      await keepContent(
        (async function* () {
          yield bytes;
        })(),
        { folders, source, bytesMax: 1 << 24 },
      );
    }
    const ready = await prepareContents({ spec, handed, folders }, { fetchContent: async () => 0, signal: new AbortController().signal });
    const forged =
      whole === undefined
        ? await forgeRun(network.strict, { spec, ...ready }, { folders, wrong: cheat.wrong ?? [] })
        : await claimStop(network.wasm, { spec, ...ready }, { folders, isClaimed: cheat.claimsStop === true });
    const commitment =
      cheat.canaryLeaf === undefined
        ? commitStates(terms.specHash, forged.stateHashes)
        : canaryCommitment(terms.specHash, forged.stateHashes, { salt, leaf: cheat.canaryLeaf });
    const outputDigest = cheat.isOutputWrong ? bytesToHex(randomBytes(32)) : forged.outputDigest;
    const result = { root: commitment.root, outputDigest };
    writeFileSync(folders.stateHashes, Buffer.from(commitment.leaves.map(({ stateHash }) => stateHash.slice(2)).join(''), 'hex'));
    const record = this.records.find(jobId);
    const { end, artefacts } = forged;
    if (record !== undefined) this.records.save({ ...record, result, end, artefacts });
    this.#commitments.set(jobId, commitment);
    if (cheat.keepsOutputs === true) this.#keeps.add(jobId);
    if (cheat.neverSettles === true) this.neverSettles.add(jobId);
    if (cheat.keepsWork !== undefined) this.#keepsWork.set(jobId, cheat.keepsWork);
    if (cheat.withholds !== undefined) this.#withheld.set(jobId, { leaves: cheat.withholds, isSilent: cheat.isSilent === true });
    if (cheat.isSilent === true && cheat.deliversOnChain !== true) this.#neverDelivers.add(jobId);
    await operator.sender.send({ contract: 'computeJobs', functionName: 'commitResults', args: [[terms], [result]] });
    const job = { jobId, terms, result, spec, commitment, salt };
    network.track(job, this);
    return job;
  }
}
