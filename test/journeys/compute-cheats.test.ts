/**
 * Cheaters on real contracts: providers that make states up, withhold them, or commit to another output; auditors that do not look, lie, copy or stay
 * away; challengers that grieve; with the product's own auditors, committees and jurors, each cheat beside an honest twin. Always: a forged segment
 * and a withheld state. `npm run journeys -- --full`: all.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { openCanary } from '../../src/compute/audit/canary.ts';
import { challengeRoot, openCaseAgent } from '../../src/compute/audit/case-agent.ts';
import { PHASE } from '../../src/compute/jobs/job-chain.ts';
import { tendOutputDemand } from '../../src/compute/jobs/output-demand.ts';
import { commitStates, proveLeaf } from '../../src/compute/verify/commitment.ts';
import { drawSegments } from '../../src/compute/verify/draw-segments.ts';
import { ENGINE_NUMBER } from '../../src/compute/verify/engines.ts';
import { leaveJury } from '../../src/governance/index.ts';
import { buildModule } from '../../tools/examples.ts';
import { campaign } from '../campaign.ts';
import { makeCanaries, startCanaryProvider } from './compute-cheats-canaries.ts';
import { type CheatJob, CheatNetwork, type CheatProvider, TOKEN, type Watcher } from './compute-cheats-network.ts';
import { randomWord } from './compute-cheats-players.ts';

const OUTCOME = { right: 1, guilty: 2, late: 3, canary: 4, notAudited: 5 };
const REPLAYED = 2;

let network: CheatNetwork;
let provider: CheatProvider;

before(async () => {
  network = await CheatNetwork.start({ juryVotes: 3, verbose: process.env.MILLRACE_VERBOSE === '1' });
  provider = await network.addProvider();
  for (let count = 0; count < 6; count += 1) await network.addWatcher();
  await network.chain.warp(2);
});
afterEach(() => network.rest());
after(() => network?.stop());

const outcomes = (...jobs: CheatJob[]) => Promise.all(jobs.map((job) => network.outcomeOf(job)));

async function settlementOf({ jobId }: CheatJob) {
  const [settled] = await network.client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId } });
  assert.ok(settled !== undefined);
  return settled.args;
}

const punishedIn = async ({ jobId }: CheatJob) =>
  (await network.client.events({ name: 'auditors', event: 'AuditorPunished', args: { jobId } })).map(({ args }) => args);

/** Everybody who plays in a job: its auditors are drawn among all watchers, so all play alike. */
function everybody(play: Watcher['play']): void {
  for (const watcher of network.watchers) watcher.play = play;
}

test('a made-up segment is judged and slashed, withheld states convict, and the honest twin is paid', async () => {
  const honest = await provider.commitJob({}, { segments: 2 });
  const forged = await provider.commitJob({ wrong: [1] }, { segments: 2, auditors: 1 });
  const silent = await provider.commitJob({ withholds: [1], isSilent: true }, { segments: 2, auditors: 1 });
  await network.work(() => network.isSettled(honest, forged, silent));
  assert.deepEqual(await outcomes(honest, forged, silent), [OUTCOME.right, OUTCOME.guilty, OUTCOME.guilty]);
  for (const cheat of [forged, silent]) {
    const { slashed, paid } = await settlementOf(cheat);
    assert.deepEqual([slashed, paid], [cheat.terms.collateral, 0n]);
    assert.deepEqual(await punishedIn(cheat), []);
  }
  const { slashed, paid, evidence } = await settlementOf(honest);
  assert.ok(paid > 0n && slashed === 0n && evidence === REPLAYED);
});

test('a forger that keeps its work back but delivers every state is convicted; who hands it to the committee is audited and paid', async () => {
  const states = { withholds: [1], isSilent: true, deliversOnChain: true };
  const forger = await provider.commitJob({ ...states, wrong: [0, 1], keepsWork: true }, { segments: 2 });
  const late = await provider.commitJob({ keepsWork: 'until demanded' }, { segments: 2 });
  await network.work(() => network.isSettled(forger, late));
  assert.deepEqual(await outcomes(forger, late), [OUTCOME.guilty, OUTCOME.right]);
  const { slashed, paid } = await settlementOf(forger);
  assert.deepEqual([slashed, paid], [forger.terms.collateral, 0n]);
  assert.deepEqual([...(await punishedIn(forger)), ...(await punishedIn(late))], []);
  const twin = await settlementOf(late);
  assert.ok(twin.paid > 0n && twin.slashed === 0n && twin.evidence === REPLAYED);
});

campaign('a provider that never settles holds up none of its auditors: they settle for their pay', async () => {
  const job = await provider.commitJob({ neverSettles: true }, { segments: 2 });
  await network.work(() => network.isSettled(job));
  assert.deepEqual(await outcomes(job), [OUTCOME.right]);
});

campaign('forged work that is handed to the committee alone is replayed from there', async () => {
  const forged = await provider.commitJob({ wrong: [1], keepsWork: 'until demanded' }, { segments: 2, auditors: 1 });
  await network.work(() => network.isSettled(forged));
  assert.deepEqual(await outcomes(forged), [OUTCOME.guilty]);
});

test('among three nodes, as `up` starts them, a forger is convicted: one accuses, one judges', async () => {
  const small = await CheatNetwork.start({ verbose: process.env.MILLRACE_VERBOSE === '1' });
  try {
    const accused = await small.addProvider();
    for (let count = 0; count < 2; count += 1) await small.addWatcher();
    await small.chain.warp(2);
    const forged = await accused.commitJob({ wrong: [1] }, { segments: 2 });
    const honest = await accused.commitJob({}, { segments: 2 });
    await small.work(() => small.isSettled(forged, honest));
    assert.deepEqual(await Promise.all([forged, honest].map((job) => small.outcomeOf(job))), [OUTCOME.guilty, OUTCOME.right]);
  } finally {
    await small.stop();
  }
});

test('the simulation draws segments as the contract does', async () => {
  for (const [segments, samples] of [
    [100, 7],
    [5, 4],
    [3, 3],
  ] as const) {
    const of = { value: randomWord(), jobId: randomWord(), auditor: 9n, segments, samples };
    const drawn = await network.client.read('auditors', 'segmentsOf', [of.jobId, { value: of.value, segments, samples }, of.auditor]);
    assert.deepEqual(drawSegments(of), drawn);
  }
});

campaign('whole forgeries, a wrong first state, a wrong output, and agents that are killed after every step', async () => {
  const all = await provider.commitJob({ wrong: [0, 1, 2, 3] }, { auditors: 1 });
  const output = await provider.commitJob({ isOutputWrong: true }, { auditors: 1 });
  const honest = await provider.commitJob({}, { auditors: 1 });
  const reopen = async () => {
    for (const watcher of network.watchers) watcher.reopen();
  };
  await network.work(() => network.isSettled(all, output, honest), { also: reopen });
  assert.deepEqual(await outcomes(all, output, honest), [OUTCOME.guilty, OUTCOME.guilty, OUTCOME.right]);
  assert.deepEqual(await punishedIn(honest), []);
});

campaign(
  'a state that is handed to the committee alone is replayed: honest work is paid, forged work is not, and one silent member changes nothing',
  async () => {
    (network.watchers[0] as Watcher).servesCommittees = false;
    const honest = await provider.commitJob({ withholds: [1] }, { segments: 2, auditors: 1 });
    const forged = await provider.commitJob({ withholds: [1], wrong: [1] }, { segments: 2, auditors: 1 });
    await network.work(() => network.isSettled(honest, forged));
    assert.deepEqual(await outcomes(honest, forged), [OUTCOME.right, OUTCOME.guilty]);
    const delivered = await network.client.events({ name: 'stateDemands', event: 'StateDelivered' });
    assert.ok(delivered.length >= 2);
  },
);

campaign(
  'a committee that confirms nothing convicts nobody whose state fits on the chain, and what is delivered there is replayed',
  async () => {
    for (const watcher of network.watchers) watcher.servesCommittees = false;
    const cheat = { withholds: [1], isSilent: true, deliversOnChain: true };
    const honest = await provider.commitJob(cheat, { segments: 2, auditors: 1 });
    await network.work(() => network.isSettled(honest));
    assert.deepEqual(await outcomes(honest), [OUTCOME.right]);
    const demands = await network.client.events({ name: 'stateDemands', event: 'StateDemanded', args: { jobId: honest.jobId } });
    const demandId = demands[0]?.args.demandId;
    const [delivered] = await network.client.events({ name: 'stateDemands', event: 'StateDelivered', args: { demandId } });
    assert.equal(delivered?.args.signed, 0n, 'nobody has signed: it is on the chain');
  },
);

campaign('a canary convicts auditors that do not look, and pays those that do', async () => {
  const watched = await provider.commitJob({ canaryLeaf: 1 }, { segments: 2 });
  const open = (job: CheatJob) => async () => {
    const { terms, result, commitment, salt } = job;
    await openCanary(network.renter.sender, { terms, result, leaf: proveLeaf(commitment, 1), canary: { salt, leaf: 1 } }).catch(() => {});
  };
  await network.work(() => network.isSettled(watched), { also: open(watched) });
  assert.deepEqual(await outcomes(watched), [OUTCOME.canary]);
  assert.deepEqual(await punishedIn(watched), []);
  await network.rest();
  everybody('rubber-stamp');
  const stamped = await provider.commitJob({ canaryLeaf: 1 }, { segments: 2 });
  await network.work(() => network.isSettled(stamped), { also: open(stamped) });
  const punished = await punishedIn(stamped);
  assert.deepEqual(
    punished.map(({ lied }) => lied),
    [true, true],
  );
  const { slashed } = await settlementOf(stamped);
  assert.equal(slashed, 0n, 'a provider that plays along loses nothing');
});

campaign('an operator cannot call its own forgery a canary', async () => {
  const forged = await provider.commitJob({ wrong: [0] }, { segments: 2, auditors: 1, flagSeal: randomWord() });
  const canary = { salt: randomWord(), leaf: 1 };
  const attempts: string[] = [];
  const also = async () => {
    const sending = openCanary(provider.operator.sender, { ...forged, leaf: proveLeaf(forged.commitment, canary.leaf), canary });
    await sending.catch((error: { code: string }) => attempts.push(error.code));
  };
  await network.work(() => network.isSettled(forged), { also });
  assert.ok(attempts.includes('not-a-canary') && !attempts.some((code) => code === 'unexpected'));
  assert.deepEqual(await outcomes(forged), [OUTCOME.guilty]);
});

campaign('a copied seal opens nothing, and who only copies is punished for silence', async () => {
  const [copier] = network.watchers as [Watcher];
  copier.play = 'copier';
  let job = await provider.commitJob({}, { segments: 2, auditors: 3, challengeSeconds: 30 });
  for (let attempt = 0; attempt < 8; attempt += 1) {
    await network.work(() => network.isSettled(job));
    if (copier.refusals.length > 0) break;
    job = await provider.commitJob({}, { segments: 2, auditors: 3, challengeSeconds: 30 });
  }
  assert.ok(copier.refusals.every((code) => code === 'wrong-opening') && copier.refusals.length > 0, copier.refusals.join());
  const punished = await punishedIn(job);
  assert.deepEqual(
    punished.map(({ auditor, lied }) => [auditor, lied]),
    [[copier.operatorId, false]],
  );
  assert.deepEqual(await outcomes(job), [OUTCOME.right]);
});

campaign('an auditor that lies about honest work loses its bond to the provider, which is paid', async () => {
  everybody('liar');
  const job = await provider.commitJob({}, { segments: 2, auditors: 1 });
  await network.work(() => network.isSettled(job));
  assert.deepEqual(await outcomes(job), [OUTCOME.right]);
  const [ended] = await network.client.events({ name: 'jobDisputes', event: 'CaseEnded', args: { jobId: job.jobId } });
  const beneficiary = await network.client.read('operators', 'beneficiaryOf', [provider.operator.operatorId]);
  assert.equal(ended?.args.bondTo, beneficiary);
});

campaign(
  'where all drawn auditors collude, one honest holder of another commitment finds the segment by bisection and convicts',
  async () => {
    everybody('rubber-stamp');
    const { client } = network;
    const challenger = await network.addOperator();
    const forged = await provider.commitJob({ wrong: [2] }, { segments: 4, auditors: 2, challengeSeconds: 120 });
    const honest = await provider.commitJob({}, { segments: 4, auditors: 2, challengeSeconds: 120 });
    const mine = commitStates(
      forged.terms.specHash,
      honest.commitment.leaves.map(({ stateHash }) => stateHash),
    );
    const agent = openCaseAgent({ client, sender: challenger.sender, commitmentOf: () => mine, log: network.log });
    let caseId: bigint | undefined;
    const also = async () => {
      caseId ??= await challengeRoot(client, { sender: challenger.sender, jobId: forged.jobId, root: mine.root }).catch(() => undefined);
      await agent.tend();
    };
    await network.work(() => network.isSettled(forged, honest), { also });
    assert.deepEqual(await outcomes(forged, honest), [OUTCOME.guilty, OUTCOME.right]);
    const { segment } = await client.read('jobDisputes', 'caseOf', [caseId as bigint]);
    assert.equal(segment, 2);
    const liars = await punishedIn(forged);
    assert.deepEqual(
      liars.map(({ lied }) => lied),
      [true, true],
      'auditors that replayed the segment and found it right have lied',
    );
  },
);

campaign('a griefing challenger loses its bond: with a root of noise, and by letting its time pass', async () => {
  const { client } = network;
  const [noisy, lazy] = [await network.addOperator(), await network.addOperator()];
  const job = await provider.commitJob({}, { segments: 2, auditors: 1, challengeSeconds: 120 });
  const noise = commitStates(
    job.terms.specHash,
    job.commitment.leaves.map(({ stateHash }, index) => (index === 0 ? stateHash : randomWord())),
  );
  const agent = openCaseAgent({ client, sender: noisy.sender, commitmentOf: () => noise, log: network.log });
  const opened = new Map<Watcher['sender'], bigint>();
  const also = async () => {
    for (const { sender } of [noisy, lazy]) {
      if (opened.has(sender)) continue;
      const root = sender === noisy.sender ? noise.root : randomWord();
      const caseId = await challengeRoot(client, { sender, jobId: job.jobId, root }).catch(() => undefined);
      if (caseId !== undefined) opened.set(sender, caseId);
    }
    await agent.tend();
  };
  await network.work(() => network.isSettled(job), { also });
  assert.deepEqual(await outcomes(job), [OUTCOME.right]);
  assert.equal(opened.size, 2);
  const ended = await client.events({ name: 'jobDisputes', event: 'CaseEnded', args: { jobId: job.jobId } });
  const beneficiary = await client.read('operators', 'beneficiaryOf', [provider.operator.operatorId]);
  assert.deepEqual(
    ended.map(({ args }) => args.bondTo),
    [beneficiary, beneficiary],
  );
});

campaign(
  'an operator that lets its time pass is convicted, and who challenges its own forgery loses more than half of the collateral',
  async () => {
    const { client, faucet } = network;
    everybody('rubber-stamp');
    const friend = await network.addOperator();
    const idle = await network.addProvider();
    idle.cases.tend = async () => {};
    await network.chain.warp(2);
    const job = await idle.commitJob({ wrong: [0] }, { segments: 2, auditors: 1, challengeSeconds: 120 });
    const stake = async () => await client.read('stakeVault', 'slashableOf', [idle.operator.operatorId]);
    const before = await stake();
    const money = () => client.read('rails', 'balanceOf', [client.address('networkToken'), friend.signer.address]);
    const [cash, own] = [await money(), before];
    let caseId: bigint | undefined;
    const also = async () => {
      caseId ??= await challengeRoot(client, { sender: friend.sender, jobId: job.jobId, root: randomWord() }).catch(() => undefined);
      const { state, moveUntil } = await client.read('jobDisputes', 'caseOf', [caseId ?? 0n]);
      const isOut = state > 0 && state < 6 && (await client.now()) >= BigInt(moveUntil);
      if (isOut) await faucet.send({ contract: 'jobDisputes', functionName: 'expire', args: [caseId as bigint] });
    };
    await network.work(() => network.isSettled(job), { also });
    assert.deepEqual(await outcomes(job), [OUTCOME.guilty]);
    const lost = own - (await stake());
    assert.equal(lost, job.terms.collateral);
    const gained = (await money()) - cash;
    assert.ok(gained * 2n <= lost, `${gained} of ${lost} came back; ${TOKEN} is one token`);
  },
);

/** A module of the class `exact-output` that writes a file, or first takes all the memory that it gets. */
const writer = (isHog: boolean) =>
  buildModule(
    'writer',
    `(module (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 8) "\\10\\00\\00\\00\\04\\00\\00\\00mill")
      (func (export "_start")
        ${isHog ? '(loop $on (br_if $on (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable' : ''}
        (drop (call $open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 1) (i64.const 64) (i64.const 64) (i32.const 0) (i32.const 64)))
        (drop (call $write (i32.load (i32.const 64)) (i32.const 8) (i32.const 1) (i32.const 0)))))`,
  );

campaign('a whole job that is stopped by its limits is paid, auditors agree; who only says so of one that ends is convicted', async () => {
  const ended = await provider.commitJob({}, { whole: await writer(false), segments: 1, samples: 1, auditors: 1 });
  const stopped = await provider.commitJob({}, { whole: await writer(true), segments: 1, samples: 1, auditors: 1 });
  const claimed = await provider.commitJob({ claimsStop: true }, { whole: await writer(false), segments: 1, samples: 1, auditors: 1 });
  await network.work(() => network.isSettled(ended, stopped, claimed));
  assert.deepEqual(await outcomes(ended, stopped, claimed), [OUTCOME.right, OUTCOME.right, OUTCOME.guilty]);
  for (const honest of [ended, stopped]) {
    const { paid, slashed, evidence } = await settlementOf(honest);
    assert.ok(paid > 0n && slashed === 0n && evidence === REPLAYED);
    assert.deepEqual(await punishedIn(honest), []);
  }
});

/** Takes the engine for whole jobs from watchers, as from machines that are started again without it. */
async function loseEngine(watchers: readonly Watcher[]): Promise<void> {
  for (const watcher of watchers) {
    watcher.executors = [];
    watcher.reopen();
    await watcher.seats.begin();
  }
  await network.chain.warp(2);
}

const auditorsOf = async ({ jobId }: CheatJob) => {
  const [drawn] = await network.client.events({ name: 'computeJobs', event: 'AuditorsDrawn', args: { jobId } });
  return drawn?.args.auditors ?? [];
};

test('an auditor’s seats are for the engines that its machine has, and follow them', async () => {
  const [one] = network.watchers as [Watcher];
  const count = (engine: keyof typeof ENGINE_NUMBER) => network.client.read('auditors', 'auditorCount', [ENGINE_NUMBER[engine]]);
  const counts = () => Promise.all((['none', 'strict', 'module', 'image'] as const).map(count));
  assert.deepEqual(await one.seats.standing(), { seats: 1, engines: ['strict', 'module'] });
  assert.deepEqual(await counts(), [6n, 6n, 6n, 0n]);
  await loseEngine([one]);
  assert.deepEqual(await one.seats.standing(), { seats: 1, engines: ['strict'] });
  assert.deepEqual(await counts(), [6n, 6n, 5n, 0n]);
  assert.equal(await one.seats.leave(), 1);
  await one.seats.begin();
  assert.deepEqual(await one.seats.standing(), { seats: 0, engines: [] }, 'who has left comes back by command only');
  await one.seats.take();
  assert.deepEqual(await counts(), [6n, 6n, 5n, 0n]);
});

campaign('auditors that lack the engine of a job are never drawn for it and lose nothing; the others replay it', async () => {
  const [lacking, able] = [network.watchers.slice(0, 2), network.watchers.slice(2)];
  await loseEngine(lacking);
  // Their nodes give up the jury's seats too, since the jury asks nobody for an engine; three jurors remain beside the auditor who accuses.
  for (const { operatorId, sender } of lacking) await leaveJury(network.client, { operatorId, sender });
  const fromBlock = await network.client.public.getBlockNumber({ cacheTime: 0 });
  const module = await writer(false);
  // A seat backs two audits: three seats are enough for these, whoever is drawn for the strict one.
  const wanted = { whole: module, segments: 1, samples: 1, auditors: 1 };
  const whole = [await provider.commitJob({}, wanted), await provider.commitJob({}, wanted)];
  const forged = await provider.commitJob({ claimsStop: true }, wanted);
  const strict = await provider.commitJob({}, { auditors: 2 });
  await network.work(() => network.isSettled(...whole, forged, strict));
  assert.deepEqual(await outcomes(...whole, forged, strict), [...whole.map(() => OUTCOME.right), OUTCOME.guilty, OUTCOME.right]);
  const ids = new Set(able.map(({ operatorId }) => operatorId));
  for (const job of [...whole, forged]) assert.ok((await auditorsOf(job)).every((auditor) => ids.has(auditor)));
  for (const job of [...whole, strict]) assert.equal((await settlementOf(job)).evidence, REPLAYED);
  assert.deepEqual(await network.client.events({ name: 'auditors', event: 'AuditorPunished', fromBlock }), []);
});

campaign(
  'where too few auditors have the engine a job is refused, or lowered where its terms accept that, and nobody is punished',
  async () => {
    await loseEngine(network.watchers.slice(0, 5));
    const wanted = { whole: await writer(false), segments: 1, samples: 1, auditors: 2 };
    await assert.rejects(provider.commitJob({}, wanted), { code: 'too-few-for-class' });
    const lowered = await provider.commitJob({}, { ...wanted, lowerable: true });
    const strict = await provider.commitJob({}, { auditors: 1 });
    await network.work(() => network.isSettled(lowered, strict));
    assert.deepEqual(await outcomes(lowered, strict), [OUTCOME.right, OUTCOME.right]);
    assert.deepEqual([(await settlementOf(lowered)).evidence, (await settlementOf(strict)).evidence], [0, REPLAYED]);
    const said = await network.client.events({ name: 'computeJobs', event: 'ClassLowered', args: { jobId: lowered.jobId } });
    assert.equal(said.length, 1);
  },
);

campaign(
  'terms that name another engine than the specification convict who ran them: auditors and jurors need no engine to see it',
  async () => {
    await loseEngine(network.watchers);
    const misnamed = { determinism: 3, engine: ENGINE_NUMBER.strict };
    const trap = await provider.commitJob({}, { whole: await writer(false), segments: 1, samples: 1, auditors: 2, ...misnamed });
    const honest = await provider.commitJob({}, { auditors: 2 });
    await network.work(() => network.isSettled(trap, honest));
    assert.deepEqual(await outcomes(trap, honest), [OUTCOME.guilty, OUTCOME.right]);
    for (const job of [trap, honest]) assert.deepEqual(await punishedIn(job), []);
  },
);

campaign(
  'outputs that are kept from their renter are demanded on chain: they come from the committee, or the price comes back',
  async () => {
    const cheat = { keepsOutputs: true };
    const strict = await provider.commitJob(cheat, { segments: 2, auditors: 1 });
    const whole = await provider.commitJob(cheat, { whole: await writer(false), segments: 1, samples: 1, auditors: 1 });
    const gone = await provider.commitJob(cheat, { segments: 2, auditors: 1 });
    const renters = await Promise.all([strict, whole, gone].map((job) => network.renterOf(job)));
    const isInWindow = async () => (await network.client.read('computeJobs', 'phaseOf', [gone.jobId]))[0] >= PHASE.window;
    await network.work(isInWindow, { also: async () => {} });
    provider.withhold(gone.jobId, [2]);
    const news = new Map(renters.map((renter) => [renter, [] as string[]]));
    const also = async () => {
      for (const renter of renters) {
        const [phase, until] = await network.client.read('computeJobs', 'phaseOf', [renter.attempt.jobId]);
        const seen = { phase, until: BigInt(until), now: await network.client.now() };
        const found = await tendOutputDemand(renter, seen);
        if (found.kind !== 'none') news.get(renter)?.push(found.kind);
        if (found.kind === 'delivered') Object.assign(renter.journal, found);
        if (found.kind === 'convicted') {
          const { terms, result } = gone;
          await network.renter.sender.send({ contract: 'computeJobs', functionName: 'settle', args: [[terms], [result]] }).catch(() => {});
        }
      }
    };
    await network.work(async () => (await network.isSettled(strict, whole, gone)) && renters[1]?.journal.artefacts !== undefined, { also });
    assert.deepEqual(await outcomes(strict, whole, gone), [OUTCOME.right, OUTCOME.right, OUTCOME.guilty]);
    assert.deepEqual(
      renters.map((renter) => news.get(renter)?.slice(0, 2)),
      [
        ['demanded', 'delivered'],
        ['demanded', 'delivered'],
        ['demanded', 'convicted'],
      ],
    );
    const textOf = (at: number) => {
      const { journal, outputsFolder } = renters[at] as (typeof renters)[0];
      return readFileSync(join(outputsFolder, journal.artefacts?.[0]?.cid as string), 'utf8');
    };
    assert.match(textOf(0), /^lines 1\nwords 8\n/);
    assert.equal(textOf(1), 'mill');
    const { returned, paid, slashed } = await settlementOf(gone);
    assert.ok(paid === 0n && returned >= (gone.terms.price * 99n) / 100n && slashed === gone.terms.collateral);
  },
);

campaign('the agent of canaries catches who does not look, pays who does, and keeps within its budget', async () => {
  const plays = await startCanaryProvider(network);
  try {
    everybody('rubber-stamp');
    const lazy = await makeCanaries(network, { budget: 10n ** 6n, countMax: 1 });
    const [caught] = lazy.canaries;
    assert.deepEqual([lazy.why, caught?.isShown, caught?.missed.length, caught?.seen.length], ['count', true, 2, 0]);
    assert.ok(lazy.spent > 0n && lazy.spent <= 10n ** 6n);
    await network.rest();
    const budget = 12n * 1000n;
    const awake = await makeCanaries(network, { budget, countMax: 50 });
    assert.equal(awake.why, 'budget');
    assert.ok(awake.spent <= budget && awake.canaries.length >= 1, `${awake.canaries.length} for ${awake.spent}`);
    for (const { isShown, missed, seen } of awake.canaries) assert.deepEqual([isShown, missed, seen.length], [true, [], 2]);
  } finally {
    await plays.stop();
  }
});
