import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Hex } from 'viem';
import { buildModule } from '../../../tools/examples.ts';
import { createSigner } from '../../chain/index.ts';
import { WasmExecutor } from '../../host/index.ts';
import { approveMeter, depositToRails, railsBalance, withdrawEarnings } from '../../token/index.ts';
import { startTestLeases, type TestLeaseNode, type TestLeases, until } from '../leases/lease-fixture.ts';
import type { ComputeContext, FetchContent } from '../part.ts';
import { encodeJobSpec, type JobSpec, runtimeOf } from '../spec/job-spec.ts';
import { type JobRequest, parseJob } from '../spec/parse-job.ts';
import { surveyProviders } from './choose-provider.ts';
import { fetchFile, fetchProgress, fetchState, fetchWork, type JobPeer, sendContent, sendOrder } from './job-api.ts';
import { PHASE, phaseOf } from './job-chain.ts';
import { sourcesOf } from './job-contents.ts';
import { costOf, orderToJson } from './job-desk.ts';
import { type JobPolicy, type JobProvider, startJobProvider } from './job-provider.ts';
import { type JobTerms, jobDomainOf, jobIdOf, termsToJson } from './job-terms.ts';
import { type RunJobOptions, runJob } from './run-job.ts';
import { AUDITORS_MAX, composeTerms, fundJob } from './run-terms.ts';
import { boxKeyOf } from './sealed-box.ts';

const EXAMPLES = fileURLToPath(new URL('../../../examples/', import.meta.url));
const MODULE = join(EXAMPLES, 'word-count/word-count.wasm');
const TEXT = join(EXAMPLES, 'word-count/story.txt');
const POLICY: JobPolicy = {
  prices: { stable: { cpuSecond: 11n, gibSecond: 2n, job: 1000n } },
  collateral: 2n * 10n ** 18n,
  wallSecondsMax: 60,
  spareSeconds: 60,
  takesCommands: false,
  takesCanaries: false,
  jobsMax: 16,
  keepSeconds: 86_400,
};

let network: TestLeases;
let node: TestLeaseNode;
let provider: JobProvider;
let request: JobRequest;
let files: Record<string, string>;

const start = async (policy: Partial<JobPolicy> = {}, more: Partial<ComputeContext> = {}) =>
  (await node.start((context) => startJobProvider({ ...context, ...more, policy: { ...POLICY, ...policy }, pollMs: 100 }))) as JobProvider;

before(async () => {
  request = parseJob(readFileSync(join(EXAMPLES, 'word-count.yaml'), 'utf8'));
  files = { [request.spec.program.source]: MODULE, [request.spec.inputs[0]?.cid as string]: TEXT };
  network = await startTestLeases({ verbose: process.env.VERBOSE === '1' });
  node = await network.startNode(1);
  provider = await start();
});
after(() => network.stop());

function runOptions(more: Partial<RunJobOptions> = {}): RunJobOptions {
  const { client, renter } = network;
  return {
    client,
    signer: renter.signer,
    sending: (use) => use(renter.sender),
    folder: renter.folder,
    name: request.name,
    spec: request.spec,
    needs: request.needs,
    token: 'stable',
    // Nobody audits or judges on this network: the class is lowered, and the receipt says so.
    lowerable: true,
    auditors: 1,
    samples: 2,
    files,
    ...more,
  };
}

/** Terms for the provider by its present offer, signed by the renter. */
async function order(change: Partial<JobTerms> = {}, spec: JobSpec = request.spec) {
  const { client, renter } = network;
  const [candidate] = await surveyProviders(client, { log: network.log });
  assert.ok(candidate !== undefined);
  const { offer, peer } = candidate;
  const wish = {
    spec,
    offer,
    renter: renter.signer.address,
    token: 'stable' as const,
    lowerable: true,
    auditors: 1,
    samples: 2,
  };
  const terms = { ...(await composeTerms(client, { ...wish, price: 10_000n })), ...change };
  const jobId = jobIdOf(jobDomainOf(client), terms);
  const signature = await renter.signer.signDigest(jobId);
  const key = await boxKeyOf(renter.signer);
  const order = { signature, renterBox: key.publicKey, handed: sourcesOf(spec).filter((source) => source in files) };
  const bytes = orderToJson({ ...order, terms: termsToJson(terms), spec: encodeJobSpec(spec) });
  const caller = { client, signer: renter.signer, key };
  const send = (source: string, path: string) =>
    sendContent(caller, peer, {
      jobId,
      source,
      boxKey: offer.boxKey,
      bytes: (async function* () {
        yield readFileSync(path);
      })(),
    });
  const handOver = async () => {
    for (const [source, path] of Object.entries(files)) await send(source, path);
  };
  return { jobId, terms, bytes, peer, boxKey: offer.boxKey, caller, send, handOver };
}

/** Allows what so many jobs cost, and has it at the rails. */
async function fundJobs(terms: JobTerms, count: bigint): Promise<void> {
  const { client, renter } = network;
  const allowance = count * costOf(client, terms);
  await depositToRails(client, { sender: renter.sender, token: 'stable', amount: allowance });
  await approveMeter(client, { sender: renter.sender, meter: 'computeJobs', token: 'stable', allowance });
}

const isOpen = async (jobId: Hex) => (await phaseOf(network.client, jobId)).phase >= PHASE.running;

async function settlementOf(jobId: Hex) {
  const { client } = network;
  await until('it is settled', async () => (await phaseOf(client, jobId)).phase === PHASE.settled);
  const [settled, ...more] = await client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId } });
  assert.ok(settled !== undefined && more.length === 0);
  return settled.args;
}

test('jobs run from choice to receipt, two at a time: outputs checked, each paid once, class lowered and said so', async () => {
  const { client } = network;
  const other = { ...request.spec, seed: '1' };
  const [result, beside] = await Promise.all([runJob(runOptions()), runJob(runOptions({ spec: other }))]);
  assert.notEqual(beside.jobId, result.jobId);
  assert.equal(beside.outputCid, result.outputCid, 'counting does not look at the seed');
  assert.equal(result.end, 'exit 0');
  assert.match(readFileSync(join(result.outputFolder, result.outputCid), 'utf8'), /^lines 8\nwords 133\n/);
  assert.equal(result.evidence, 'reputation only');
  assert.ok(result.receipt?.signature !== undefined);
  const settled = await client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId: result.jobId } });
  assert.equal(settled.length, 1);
  const { beneficiary } = await client.read('operators', 'operator', [node.operatorId]);
  const all = await client.events({ name: 'computeJobs', event: 'JobSettled' });
  const paid = all.reduce((sum, { args }) => sum + args.paid, 0n);
  assert.equal(all.length, 2);
  assert.equal(await railsBalance(client, { token: 'stable', account: beneficiary }), paid);
  assert.equal(await client.read('computeJobs', 'held', [client.address('stableToken')]), 0n);
});

test('the id of a job, and how many auditors it may have, are the contracts’', async () => {
  const { terms, jobId } = await order();
  assert.equal(await network.client.read('computeJobs', 'jobIdOf', [terms]), jobId);
  assert.equal(await network.client.read('jobRules', 'AUDITORS_MAX'), BigInt(AUDITORS_MAX));
});

test('an order that says anything else than the offer is refused with the reason, and its honest twin is taken', async () => {
  const { client, renter } = network;
  const refused = async (change: Partial<JobTerms>, code = 'job-refused') => {
    const { bytes, peer, boxKey } = await order(change);
    await assert.rejects(sendOrder(peer, bytes, { boxKey }), { code }, JSON.stringify(Object.keys(change)));
  };
  await refused({ price: 100n });
  await refused({ specHash: `0x${'12'.repeat(32)}` });
  await refused({ segments: 4 });
  await refused({ engine: 3 });
  await refused({ collateral: 3n * 10n ** 18n });
  await refused({ token: client.address('networkToken') });
  await refused({ openUntil: 1 });
  await refused({ runSeconds: 11 });
  await refused({ renter: createSigner(`0x${'77'.repeat(32)}`).address }, 'bad-job-signature');
  const unfunded = await order();
  await assert.rejects(sendOrder(unfunded.peer, unfunded.bytes, unfunded), { code: 'job-refused' });
  await fundJob(client, renter.sender, unfunded.terms);
  const signature = await sendOrder(unfunded.peer, unfunded.bytes, unfunded);
  assert.equal(await sendOrder(unfunded.peer, unfunded.bytes, unfunded), signature, 'the same order twice is one job');
  await unfunded.handOver();
  await until('it is open', () => isOpen(unfunded.jobId));
});

test('a job goes on after its provider was stopped at each step; strangers see nothing of it, wrong contents are not taken', async () => {
  const { client, renter } = network;
  const { jobId, terms, bytes, peer, boxKey, caller, send } = await order();
  await fundJob(client, renter.sender, terms);
  await sendOrder(peer, bytes, { boxKey });
  await node.stopParts();
  provider = await start();
  const [program, text] = Object.keys(files) as [string, string];
  await assert.rejects(send(text, MODULE), { code: 'content-differs' });
  await assert.rejects(send(`sha256:${'00'.repeat(32)}`, TEXT), { code: 'content-unwanted' });
  assert.deepEqual((await fetchProgress(caller, peer, jobId)).missing, [program, text]);
  await send(program, MODULE);
  await node.stopParts();
  provider = await start();
  assert.deepEqual((await fetchProgress(caller, peer, jobId)).missing, [text]);
  await send(text, TEXT);
  await until('the job runs or has run', () => provider.jobs().some((one) => one.jobId === jobId && one.status !== 'open'));
  await node.stopParts();
  provider = await start();
  await until('it is committed', async () => (await phaseOf(client, jobId)).phase >= PHASE.window);

  const stranger = createSigner(`0x${'55'.repeat(32)}`);
  const strange = { client, signer: stranger, key: await boxKeyOf(stranger) };
  const artefact = provider.jobs().find((one) => one.jobId === jobId)?.artefacts?.[0];
  assert.ok(artefact !== undefined);
  const denied = [
    () => fetchWork(strange, peer, jobId),
    () => fetchState(strange, peer, { jobId, index: 1 }),
    () => fetchProgress(strange, peer, jobId),
    () => fetchFile(strange, peer, { jobId, part: 'artefacts', name: artefact.cid }),
    () => fetchFile(strange, peer, { jobId, part: 'contents', name: text }),
  ];
  for (const one of denied) await assert.rejects(one(), { code: 'not-a-reader' });
  assert.equal((await fetchWork(caller, peer, jobId)).terms.nonce, terms.nonce);
  const { leaf } = await fetchState(caller, peer, { jobId, index: 3 });
  assert.equal(leaf.index, 3);
  await assert.rejects(
    fetchFile(caller, peer, { jobId, part: 'artefacts', name: 'bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }),
    {
      code: 'job-part-missing',
    },
  );
  await settlementOf(jobId);
});

test('a job without a result in time is settled as late: the renter has its price back, the provider loses stake', async () => {
  const { client, renter } = network;
  // Nothing is left of the machine once the job is open.
  await node.stopParts();
  provider = await start({}, { capacity: { ...node.context.capacity, reserve: () => undefined } });
  const { jobId, terms, bytes, peer, boxKey, handOver } = await order();
  await fundJob(client, renter.sender, terms);
  await sendOrder(peer, bytes, { boxKey });
  await handOver();
  await until('the job is open', () => isOpen(jobId));
  await network.chain.warp(terms.runSeconds + 1);
  const late = await settlementOf(jobId);
  await node.stopParts();
  provider = await start();
  assert.equal(late.paid, 0n);
  assert.ok(late.returned >= (terms.price * 99n) / 100n);
  assert.equal(late.slashed, terms.collateral / 10n);
  const refund = await railsBalance(client, { token: 'stable', account: renter.signer.address });
  assert.ok(refund >= late.returned);
  assert.equal(await withdrawEarnings(client, { sender: renter.sender, token: 'stable' }), refund, 'it can be taken out');
});

test('a renter that hands nothing over cannot make its provider late, and neither can what nobody has', async () => {
  const { client } = network;
  const silent = await order();
  await fundJobs(silent.terms, 2n);
  await sendOrder(silent.peer, silent.bytes, silent);
  const nowhere = { ...request.spec, inputs: [{ path: 'text', cid: `bafy${'a'.repeat(55)}` }] };
  const missing = await order({}, nowhere);
  await sendOrder(missing.peer, missing.bytes, missing);
  await missing.send(request.spec.program.source, MODULE);
  await until('it was looked for', () => provider.jobs().some((one) => one.jobId === missing.jobId && one.reason !== undefined));
  await network.chain.warp(silent.terms.openUntil - Number(await client.now()) + 1);
  for (const { jobId } of [silent, missing]) {
    await until('both are given up', () => provider.jobs().some((one) => one.jobId === jobId && one.status === 'settled'));
    assert.equal((await phaseOf(client, jobId)).phase, PHASE.none, 'it was never opened, so nothing is due');
  }
});

test('orders without end on the money of one are not taken: one may wait for each job that the renter has the money for', async () => {
  // Their contents are never handed over, so none comes on the chain.
  const orders = await Promise.all(Array.from({ length: 4 }, () => order()));
  const taken = async () => {
    const answers = await Promise.allSettled(orders.map(({ peer, bytes, boxKey }) => sendOrder(peer, bytes, { boxKey })));
    const refusals = answers.flatMap((one) => (one.status === 'rejected' ? [one.reason.code] : []));
    assert.ok(
      refusals.every((code) => code === 'job-refused'),
      refusals.join(),
    );
    return answers.length - refusals.length;
  };
  const [{ terms }] = orders as [(typeof orders)[0]];
  await fundJobs(terms, 1n);
  assert.equal(await taken(), 1);
  await fundJobs(terms, 3n);
  assert.equal(await taken(), 3);
  await network.chain.warp(Math.max(...orders.map((one) => one.terms.openUntil)) - Number(await network.client.now()) + 1);
  await until('all are given up', () => provider.jobs().every(({ status }) => status === 'settled'));
});

test('a job for which the machine has no time is refused and told so; its twin is taken once the room is there', async () => {
  const [{ capacity }, { client, renter }] = [node.context, network];
  const lease = capacity.reserve('lease 1', { ...capacity.total, cpus: capacity.total.cpus - 0.5 });
  assert.ok(lease !== undefined);
  const { jobId, terms, bytes, peer, boxKey, handOver } = await order();
  await fundJob(client, renter.sender, terms);
  await assert.rejects(sendOrder(peer, bytes, { boxKey }), { code: 'no-room-in-time' });
  lease.release();
  await sendOrder(peer, bytes, { boxKey });
  await handOver();
  assert.equal((await settlementOf(jobId)).slashed, 0n);
});

test('a program too large for the disk that its provider gives to those of others is refused before its job is opened', async () => {
  const spec = { ...request.spec, determinism: 'none' as const, segments: 1, runtime: runtimeOf('module', 'none') };
  const bring = async (imageBytesMax: number) => {
    await node.stopParts();
    const wasm = new WasmExecutor({ imageFolder: join(network.folder, 'modules'), imageBytesMax });
    provider = await start({}, { executors: [wasm] });
    const ordered = await order({}, spec);
    await fundJobs(ordered.terms, 2n);
    await sendOrder(ordered.peer, ordered.bytes, ordered);
    await ordered.handOver();
    return ordered.jobId;
  };
  const large = await bring(1_000);
  await until('it is refused', () => provider.jobs().some((one) => one.jobId === large && /^image-over-bound/.test(one.reason ?? '')));
  const bytes = readFileSync(MODULE).length;
  const twin = await bring(bytes);
  assert.equal((await settlementOf(twin)).slashed, 0n);
  assert.equal((await phaseOf(network.client, large)).phase, PHASE.none, 'nothing is due');
  assert.match(await provider.metrics(), new RegExp(`millrace_compute_temporary_images_bytes{engine="wasm"} ${bytes}\n`));
});

test('what a provider brought from the network it hands to who may check the job, when the network has it no more', async () => {
  await node.stopParts();
  const [program, text] = Object.keys(files) as [string, string];
  let isThere = true;
  const fetchContent: FetchContent = async (cid, path) => {
    assert.ok(cid === text && isThere);
    isThere = false;
    copyFileSync(TEXT, path);
    return readFileSync(TEXT).length;
  };
  provider = await start({}, { fetchContent });
  const result = await runJob(runOptions({ files: { [program]: MODULE } }));
  const { client, renter } = network;
  const caller = { client, signer: renter.signer, key: await boxKeyOf(renter.signer) };
  const [candidate] = await surveyProviders(client, { log: network.log });
  const parts = await fetchFile(caller, candidate?.peer as JobPeer, { jobId: result.jobId, part: 'contents', name: text });
  const got: Uint8Array[] = [];
  for await (const part of parts) got.push(part);
  assert.deepEqual(Buffer.concat(got), readFileSync(TEXT));
});

test('jobs that are made to reach a limit are paid like any other, and their renter learns which it was', async () => {
  await node.stopParts();
  provider = await start({ takesCommands: true });
  const folder = mkdtempSync(join(tmpdir(), 'millrace-jobs-test-'));
  const endless = await buildModule(
    'endless',
    `(module (memory 1) (func (export "allocate") (param i32) (result i32) (i32.const 0)) (func (export "begin") (param i32 i32 i32))
      (func (export "segment") (param i32) (loop $on (br $on))) (func (export "output") (result i64) (i64.const 4)))`,
  );
  const limits = { ...request.spec.limits, memoryBytes: 16 << 20, wallSeconds: 10, outputBytes: 100 };
  const made = async (name: string, spec: Pick<JobSpec, 'program' | 'argv' | 'determinism'>, program?: Uint8Array) => {
    const path = join(folder, name);
    if (program !== undefined) writeFileSync(path, program);
    const full = { ...request.spec, ...spec, limits, inputs: [], segments: 1, runtime: runtimeOf(spec.program.kind, spec.determinism) };
    const result = await runJob(runOptions({ name, spec: full, files: program === undefined ? {} : { [spec.program.source]: path } }));
    const { outcome, paid, slashed } = await settlementOf(result.jobId);
    assert.deepEqual([outcome, slashed, paid > 0n, result.artefacts.every(({ sizeBytes }) => sizeBytes === 0)], [1, 0n, true, true], name);
    assert.equal(result.receipt?.receipt.outputs.end, result.end);
    assert.ok(result.receipt?.signature !== undefined);
    return result;
  };
  const moduleOf = (program: Uint8Array) => ({
    kind: 'module' as const,
    source: `sha256:${createHash('sha256').update(program).digest('hex')}`,
  });
  const fuel = await made('fuel', { program: moduleOf(endless), argv: ['module'], determinism: 'wasm-strict' }, endless);
  assert.equal(fuel.end, 'fuel');
  const garbage = Buffer.from('no module at all');
  const unfit = await made('garbage', { program: moduleOf(garbage), argv: ['module'], determinism: 'wasm-strict' }, garbage);
  assert.equal(unfit.end, 'trap');
  const flood = { program: { kind: 'command' as const, source: '' }, argv: ['yes'], determinism: 'none' as const };
  const stopped = await made('flood', flood);
  assert.equal(stopped.end, 'stopped');
  assert.match(stopped.endReason ?? '', /^output-exceeded/);
  assert.equal((await made('honest twin', { ...flood, argv: ['true'] })).end, 'exit 0');
  rmSync(folder, { recursive: true, force: true });
});
