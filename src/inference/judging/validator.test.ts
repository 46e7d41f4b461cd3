import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { silentLogger } from '../../log.ts';
import type { ChatRequest, Engine, EngineRequest, EngineResult, RunOptions } from '../engines/engine.ts';
import { createTextGenerator, TEXT_CARD } from '../language/text-generator.ts';
import { WITNESS_HEADER } from '../serving/miner.ts';
import { startTestMiner, TEST_DOMAIN, TEST_PRICE, type TestMiner } from '../serving/miner-fixture.ts';
import { createInferenceReceipts } from '../serving/receipt.ts';
import { readEvidence } from './evidence.ts';
import type { JudgedMiner, JudgingPorts, SubnetMoment } from './judging-ports.ts';
import { sendProbe } from './probe-carrier.ts';
import type { CorpusSession } from './probe-corpus.ts';
import { openValidator, type Validator } from './validator.ts';

const CHAT = '/v1/chat/completions';
const EPOCH_SECONDS = 300n;
const SINK = 200;
const engine = createTextGenerator({ limits: { idleMs: 0 } });
const folder = mkdtempSync(join(tmpdir(), 'millrace-judging-'));
const miners = new Map<string, TestMiner>();
const NAMES = ['honest', 'twin', 'swaps the model', 'fast garbage', 'passes on', 'bits of its own', 'counts too much', 'falls silent'];

/** The honest engine with another conduct; each miner runs a real server and signs real receipts. */
function conduct(answer: (request: ChatRequest, options: RunOptions) => Promise<EngineResult>): Engine {
  const run = (request: EngineRequest, options: RunOptions) => answer(request as ChatRequest, options);
  return { card: TEXT_CARD, run: run as Engine['run'], state: () => 'warm', warm: async () => {}, close: async () => {} };
}

const digest = (): `0x${string}` => `0x${randomBytes(32).toString('hex')}`;
const elsewhere = { nonce: digest(), operator: `0x${'42'.repeat(20)}` as const };

/** Another miner computes, and its receipt says the right digest; but its witness names the other. */
async function passOn(request: ChatRequest, options: RunOptions): Promise<EngineResult> {
  const witness = request.witness === undefined ? undefined : { ...request.witness, operator: elsewhere.operator };
  return engine.run({ ...request, witness }, options);
}

const CONDUCTS: Record<string, Engine> = {
  honest: conduct((request, options) => engine.run(request, options)),
  twin: conduct((request, options) => engine.run(request, options)),
  'swaps the model': conduct((request, options) =>
    engine.run({ ...request, sampling: { ...request.sampling, temperature: 1.5, seed: 4711 } }, options),
  ),
  'fast garbage': conduct(async (request) => ({
    task: 'chat',
    text: 'lorem ipsum dolor',
    toolCalls: [],
    finish: 'stop',
    usage: { unit: 'tokens', input: request.messages.length, output: 17 },
    outputDigest: digest(),
  })),
  'passes on': conduct(passOn),
  'bits of its own': conduct(async (request, options) => ({ ...(await passOn(request, options)), outputDigest: digest() })),
  'counts too much': conduct(async (request, options) => {
    const result = await engine.run(request, options);
    return { ...result, usage: { ...result.usage, input: result.usage.input + 500 } };
  }),
  'falls silent': conduct(
    (_, { signal }) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  ),
};

let now = 0n;
let earnedPerEpoch = 10n ** 15n;
const committed: Map<number, number>[] = [];
let asked: string[] = [];

function moment(): SubnetMoment {
  const epoch = now / EPOCH_SECONDS;
  const judged = NAMES.map(
    (name, uid): JudgedMiner => ({
      uid,
      operatorId: BigInt(uid + 1),
      nodeKey: (miners.get(name) as TestMiner).signer.address,
      registeredAt: 1,
      marks: [`owner ${uid}`],
      paths: [CHAT],
      burnt: epoch * earnedPerEpoch,
      hasOwnPurse: true,
      subnets: 1,
    }),
  );
  const [startsAt, endsAt] = [epoch * EPOCH_SECONDS, (epoch + 1n) * EPOCH_SECONDS];
  return { now, epoch, startsAt, endsAt, miners: judged, sink: SINK, emissionValue: 10n ** 17n, returnedBps: 0n };
}

const ports: JudgingPorts = {
  look: async () => moment(),
  ask(probe, { uid }, signal) {
    asked.push(probe.id);
    const { url } = miners.get(NAMES[uid] as string) as TestMiner;
    const late = uid === NAMES.indexOf('falls silent') ? AbortSignal.timeout(50) : signal;
    return sendProbe(probe, { url, headers: { [WITNESS_HEADER]: digest() } }, AbortSignal.any([signal, late]));
  },
  takeShown: async () => ({ requests: [], paid: 0 }),
  commit: async (weights) => void committed.push(new Map(weights)),
  tend: async () => {},
};

let asking = 0;
/** Questions that no plan has had: the stock of a test. */
async function stock(_: readonly string[], count: number): Promise<CorpusSession[]> {
  return Array.from({ length: count }, () => {
    asking += 1;
    const body = { model: TEXT_CARD.id, messages: [{ role: 'user', content: `Of the whale, chapter ${asking}.` }], max_tokens: 6 };
    return {
      secondOfDay: 0,
      requests: [
        { path: CHAT, contentType: 'application/json', body: Buffer.from(JSON.stringify({ ...body, stream: asking % 2 === 0 })), gapMs: 0 },
      ],
    };
  });
}

function open(): Validator {
  return openValidator({
    folder,
    ports,
    codec: createInferenceReceipts(TEST_DOMAIN),
    modelOf: (root) => (root === TEXT_CARD.root ? { engine } : undefined),
    stock,
    accounts: [1],
    rules: { probesPerMiner: 5, feeBps: 200n },
    log: silentLogger,
  });
}

/** Rounds through one epoch, the clock in steps of ten seconds. */
async function throughEpoch(validator: Validator): Promise<void> {
  const epoch = now / EPOCH_SECONDS;
  for (; now / EPOCH_SECONDS === epoch; now += 10n) await validator.round();
}

before(async () => {
  for (const [index, [name, own]] of Object.entries(CONDUCTS).entries()) {
    const models = [{ engine: own, price: TEST_PRICE, outputUnitsMax: 64, concurrency: 8 }];
    miners.set(name, await startTestMiner({ models, keyIndex: index + 1, operatorId: BigInt(index + 1) }));
  }
});
after(async () => {
  for (const miner of miners.values()) await miner.stop();
  await engine.close();
  rmSync(folder, { recursive: true, force: true });
});

test('within three epochs every cheat has less than a fifth of the weight of its honest twin; twins have the same', async () => {
  let validator = open();
  for (let epoch = 0; epoch < 3; epoch += 1) {
    await throughEpoch(validator);
    validator = open(); // it is killed and started again between epochs
  }
  assert.equal(committed.length, 3);
  const weights = committed[2] as Map<number, number>;
  const honest = weights.get(0) ?? 0;
  assert.ok(honest > 0);
  assert.equal(weights.get(1), honest);
  for (const [uid, name] of NAMES.entries()) if (uid > 1) assert.ok((weights.get(uid) ?? 0) * 5 < honest, `${name}: ${weights.get(uid)}`);
  assert.equal(weights.get(SINK), 65_535);
});

test('the evidence of an epoch says what was seen of each miner and why, and holds neither questions nor answers', () => {
  const reasonOf = (uid: number) =>
    new Set(
      readEvidence(join(folder, 'evidence'), { epoch: 1n, uid, kind: 'probe' }).flatMap(({ reason }) =>
        reason === undefined ? [] : [reason],
      ),
    );
  assert.deepEqual([...reasonOf(0)], ['same-output']);
  assert.deepEqual([...reasonOf(2)], ['other-output']);
  assert.deepEqual([...reasonOf(3)], ['other-output']);
  assert.deepEqual([...reasonOf(4)], ['other-witness']);
  assert.deepEqual([...reasonOf(5)], ['unlike-bits']);
  assert.deepEqual([...reasonOf(6)], ['inflated-count']);
  const silent = readEvidence(join(folder, 'evidence'), { epoch: 1n, uid: 7, kind: 'probe' });
  assert.ok(silent.length >= 5 && silent.every(({ outcome }) => outcome === 'failed'));
  const all = readEvidence(join(folder, 'evidence'), { epoch: 1n });
  assert.ok(all.some(({ kind }) => kind === 'weights') && all.some(({ kind }) => kind === 'score'));
  assert.ok(!JSON.stringify(all).includes('whale'));
  assert.ok(all.every(({ outcome }) => outcome !== 'excused'));
});

test('a validator that is killed in the middle of an epoch goes on with its plan: no probe goes out twice, and weights are committed once', async () => {
  asked = [];
  committed.length = 0;
  const epoch = now / EPOCH_SECONDS;
  const end = (epoch + 1n) * EPOCH_SECONDS;
  for (; now < end; now += 10n) await open().round();
  assert.equal(new Set(asked).size, asked.length);
  assert.equal(asked.length, NAMES.length * 5);
  assert.equal(committed.length, 1);
});

test('where nobody was paid the sink has it all, but for what is still smoothed; without a sink it goes by quality', async () => {
  earnedPerEpoch = 0n;
  committed.length = 0;
  const validator = open();
  await throughEpoch(validator);
  assert.equal(committed[0]?.get(SINK), 65_535);
  assert.ok([...(committed[0] ?? [])].every(([uid, weight]) => uid === SINK || weight < 700));
  const look = ports.look;
  ports.look = async () => ({ ...moment(), sink: undefined });
  await throughEpoch(validator);
  ports.look = look;
  const spread = committed[1] as Map<number, number>;
  assert.equal(spread.get(1), spread.get(0));
  const large = [...spread].filter(([, weight]) => weight > 13_000);
  assert.deepEqual(
    large.map(([uid]) => uid),
    [0, 1],
  );
});

test('an own question that comes back without a receipt that fits counts as not answered', async () => {
  earnedPerEpoch = 10n ** 15n;
  committed.length = 0;
  const { ask } = ports;
  ports.ask = async (probe, miner, signal) => {
    const outcome = await ask(probe, miner, signal);
    return miner.uid === 1 && outcome.answered !== undefined ? { ...outcome, answered: { ...outcome.answered, receipt: '' } } : outcome;
  };
  const epoch = now / EPOCH_SECONDS;
  await throughEpoch(open());
  ports.ask = ask;
  const probes = readEvidence(join(folder, 'evidence'), { epoch, uid: 1, kind: 'probe' });
  assert.ok(probes.length >= 5 && probes.every(({ outcome, code }) => outcome === 'failed' && code === 'receipt-unfit'));
  const [score] = readEvidence(join(folder, 'evidence'), { epoch, uid: 1, kind: 'score' });
  assert.deepEqual([score?.serving, score?.quality], ['failed', 0]);
});
