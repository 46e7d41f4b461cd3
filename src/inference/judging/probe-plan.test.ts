import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type SeededRandom, seededRandom } from '../consensus/seeded-random.ts';
import type { CorpusSession, ProbeCorpus } from './probe-corpus.ts';
import { planProbes } from './probe-plan.ts';
import { secretRandom } from './secret-random.ts';
import { WHOLE } from './text-distance.ts';
import { areaUnderCurve, type Example, type Features, trainBayes, trainLogistic } from './traffic-classifier.ts';

/** A request as its miner sees it: who pays, which headers, when, how large, what. */
interface Seen {
  atMs: number;
  payer: string;
  headers: Readonly<Record<string, string>>;
  path: string;
  body: Buffer;
  isProbe: boolean;
}

const SEED = 20_261_122;
const DAY_MS = 86_400_000;
const GATEWAYS = [0.7, 0.3];
const UID = 7;
const CHAT = '/v1/chat/completions';
const WORD_FEATURES = 512;
const SIZE = 32 + WORD_FEATURES;

/** Users write new sentences all the time: a chain over the words of a text that never changes, so that hardly one comes twice. */
function createWriter(random: SeededRandom): () => string {
  const text = readFileSync(join(import.meta.dirname, '../../../LICENSE'), 'utf8');
  const words = text.match(/[A-Za-z][a-z']+/g) ?? [];
  const next = new Map<string, string[]>();
  words.forEach((word, index) => {
    const list = next.get(word) ?? [];
    list.push(words[index + 1] ?? 'the');
    next.set(word, list);
  });
  return () => {
    let word = random.pick(words);
    const sentence = [word];
    for (let left = random.integer(4, 18); left > 0; left -= 1) {
      word = random.pick(next.get(word) ?? words);
      sentence.push(word);
    }
    return `${sentence.join(' ')}. `;
  };
}

/** One day of users' sessions: by the hour, some chat, some embed, each with habits of its own. */
function organicDay(random: SeededRandom, write: () => string, count: number): CorpusSession[] {
  return Array.from({ length: count }, () => {
    const peak = random.fraction() < 0.6 ? 10 : 20;
    const secondOfDay = Math.floor((((peak + 2.5 * random.normal() + 24) % 24) / 24) * 86_400);
    const isChat = random.fraction() < 0.8;
    const limit = random.pick([64, 128, 256]);
    const temperature = random.pick([undefined, undefined, 0.7, 1]);
    const stream = random.fraction() < 0.5;
    const turns = isChat ? random.integer(1, 3) : 1;
    const requests = Array.from({ length: turns }, (_, turn) => {
      const text = Array.from({ length: Math.max(1, Math.round(Math.exp(0.9 + 0.6 * random.normal()))) }, write)
        .join('')
        .trim();
      const body = isChat
        ? { model: 'm', messages: [{ role: 'user', content: text }], max_tokens: limit, temperature, stream }
        : { model: 'e', input: text };
      const gapMs = turn === 0 ? 0 : Math.round(20_000 * Math.exp(0.7 * random.normal()));
      return { path: isChat ? CHAT : '/v1/embeddings', contentType: 'application/json', body: Buffer.from(JSON.stringify(body)), gapMs };
    });
    return { secondOfDay, requests };
  });
}

function seenOf(sessions: readonly CorpusSession[], random: SeededRandom, day: number): Seen[] {
  return sessions.flatMap(({ secondOfDay, requests }) => {
    const payer = `gateway ${random.fraction() < (GATEWAYS[0] as number) ? 0 : 1}`;
    const drawn = random.fraction();
    const headers: Record<string, string> =
      drawn < 0.3 ? { 'millrace-replay': 'allow' } : drawn < 0.35 ? { 'millrace-retention': 'none' } : {};
    let atMs = day * DAY_MS + secondOfDay * 1000 + random.integer(0, 999);
    return requests.map(({ path, body, gapMs }) => {
      atMs += gapMs;
      return { atMs, payer, headers, path, body, isProbe: false };
    });
  });
}

/** Everything that a suspicious miner could reckon with, in the order of arrival. */
function examplesOf(requests: readonly Seen[]): Example[] {
  const lastOf = new Map<string, number>();
  const payers = [...new Set(requests.map(({ payer }) => payer))];
  const known = new Set<string>();
  return [...requests]
    .sort((one, other) => one.atMs - other.atMs)
    .map((seen) => {
      const features = new Map<number, number>();
      const gapMs = seen.atMs - (lastOf.get(seen.payer) ?? seen.atMs - 60_000);
      lastOf.set(seen.payer, seen.atMs);
      const body = JSON.parse(seen.body.toString('utf8')) as Record<string, unknown>;
      const text = String(body.input ?? (body.messages as { content: string }[])[0]?.content);
      const hour = ((seen.atMs % DAY_MS) / DAY_MS) * 2 * Math.PI;
      features.set(0, Math.log(seen.body.length) / 8);
      features.set(1, Math.log1p(Math.max(0, gapMs)) / 15);
      features.set(2, Math.sin(hour));
      features.set(3, Math.cos(hour));
      features.set(4, seen.atMs % 1000 === 0 ? 1 : 0);
      features.set(5, seen.headers['millrace-replay'] === undefined ? 0 : 1);
      features.set(6, seen.headers['millrace-retention'] === undefined ? 0 : 1);
      features.set(7, seen.path === CHAT ? 1 : 0);
      features.set(8, body.stream === true ? 1 : 0);
      features.set(9, Number(body.max_tokens ?? 0) / 256);
      features.set(10, Number(body.temperature ?? 0));
      features.set(11, gapMs < 1000 ? 1 : 0);
      const sentences = text.split('. ');
      features.set(12, sentences.filter((sentence) => known.has(sentence)).length / sentences.length);
      for (const sentence of sentences) known.add(sentence);
      features.set(16 + (payers.indexOf(seen.payer) % 16), 1);
      for (const word of text.toLowerCase().match(/[a-z']+/g) ?? []) features.set(32 + (hashOf(word) % WORD_FEATURES), 1);
      return { features: features as Features, isProbe: seen.isProbe };
    });
}

function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}

/** The best that two classifiers do on days that they were not trained on. */
function bestArea(training: readonly Seen[], held: readonly Seen[], random: SeededRandom): number {
  const shuffled = examplesOf(training)
    .map((example) => ({ example, key: random.fraction() }))
    .sort((one, other) => one.key - other.key)
    .map(({ example }) => example);
  const areas = [trainLogistic, trainBayes].map((train) => {
    const scoreOf = train(shuffled, SIZE);
    return areaUnderCurve(examplesOf(held).map(({ features, isProbe }) => ({ score: scoreOf(features), isProbe })));
  });
  return Math.max(...areas);
}

/** Users of some days, what they allow to be used, and the probes that are made of it. */
function worldOf(seed: number) {
  const random = seededRandom(seed);
  const write = createWriter(random);
  // What users of the day before allow to be used: a third of the sessions; the miner itself answered a tenth of these. Each day has its own.
  const corpora = [1, 2].map((): ProbeCorpus => {
    const sessions = organicDay(random, write, 400).slice(0, 130);
    const served = sessions.map((session, index) => ({ ...session, servedBy: [index % 10 === 0 ? UID : 3] }));
    return { sessions: served, replayShare: 0.3 * WHOLE, forgetShare: 0.05 * WHOLE };
  });
  const planOf = (day: number, perTarget: number) =>
    planProbes({
      corpus: corpora[day - 1] as ProbeCorpus,
      targets,
      perTarget,
      accounts: GATEWAYS,
      window: { fromMs: day * DAY_MS, toMs: (day + 1) * DAY_MS },
      seed: Buffer.from(`${seed} ${day}`),
    });
  const probesOf = (day: number): Seen[] =>
    planOf(day, 90).map((probe) => ({ ...probe, atMs: probe.dueMs, payer: `gateway ${probe.account}`, isProbe: true }));
  return { random, write, corpus: corpora[0] as ProbeCorpus, planOf, probesOf };
}

const targets = [{ uid: UID, paths: [CHAT, '/v1/embeddings'] }];
const { random, write, corpus, planOf } = worldOf(SEED);

const seeds = process.env.MILLRACE_FULL === '1' ? [1, 2, 3, 4, 5, SEED] : [SEED];
for (const seed of seeds) {
  test(`a classifier on payer, headers, size, timing and prompt tells hidden probes from users' requests with an area of at most 0.6 (seed ${seed})`, (t) => {
    const world = worldOf(seed);
    const [training, held] = [1, 2].map((day) => [
      ...seenOf(organicDay(world.random, world.write, 400), world.random, day),
      ...world.probesOf(day),
    ]);
    const area = bestArea(training as Seen[], held as Seen[], world.random);
    t.diagnostic(`area ${area.toFixed(3)}`);
    assert.ok(area <= 0.6, `area ${area.toFixed(3)}`);
  });
}

test('the same classifier finds a careless prober: own account, leave to replay, texts that it sends twice, by the clock', (t) => {
  const careless = (day: number): Seen[] =>
    Array.from({ length: 90 }, (_, index) => ({
      atMs: day * DAY_MS + index * 900_000,
      payer: 'gateway 0',
      headers: { 'millrace-replay': 'allow' },
      path: CHAT,
      body: Buffer.from(
        JSON.stringify({ model: 'm', messages: [{ role: 'user', content: `What is ${index % 10} and one.` }], max_tokens: 128 }),
      ),
      isProbe: true,
    }));
  const [training, held] = [1, 2].map((day) => [...seenOf(organicDay(random, write, 200), random, day), ...careless(day)]);
  const area = bestArea(training as Seen[], held as Seen[], random);
  t.diagnostic(`area ${area.toFixed(3)}`);
  assert.ok(area >= 0.95, `area ${area.toFixed(3)}`);
});

test('a plan is the same for the same seed and another for another; nothing goes to the miner that has seen it', () => {
  const plan = planOf(1, 40);
  assert.ok(plan.length >= 36);
  assert.deepEqual(planOf(1, 40), plan);
  assert.notDeepEqual(
    planOf(2, 40).map(({ body }) => body),
    plan.map(({ body }) => body),
  );
  const seenTexts = corpus.sessions
    .filter(({ servedBy }) => servedBy?.includes(UID))
    .flatMap(({ requests }) => requests.map(({ body }) => body));
  const sentences = seenTexts.flatMap((body) => JSON.stringify(JSON.parse(body.toString())).match(/[A-Z][^."]{20,}\. /gi) ?? []);
  assert.ok(sentences.length > 0);
  for (const { body } of plan) assert.ok(!sentences.some((sentence) => body.toString().includes(sentence)));
  assert.ok(plan.every(({ dueMs }, index) => index === 0 || dueMs >= (plan[index - 1]?.dueMs as number)));
  assert.equal(new Set(plan.map(({ id }) => id)).size, plan.length);
  assert.deepEqual(
    planProbes({
      corpus,
      targets: [{ uid: 1, paths: ['/v1/tasks/ocr'] }],
      perTarget: 5,
      accounts: [1],
      window: { fromMs: 0, toMs: DAY_MS },
      seed: Buffer.from('x'),
    }),
    [],
  );
});

test('secret random numbers repeat by seed, differ by purpose, and are spread evenly', () => {
  const draw = (purpose: string) => {
    const numbers = secretRandom(Buffer.from('seed'), purpose);
    return Array.from({ length: 2000 }, () => numbers.fraction());
  };
  assert.deepEqual(draw('a'), draw('a'));
  assert.notDeepEqual(draw('a'), draw('b'));
  const mean = draw('a').reduce((sum, value) => sum + value, 0) / 2000;
  assert.ok(Math.abs(mean - 0.5) < 0.03);
});

test('the area under the curve is 1 for a perfect order, 0 for its reverse and a half where nothing is told apart', () => {
  const scores = [1, 2, 3, 4].map((score) => ({ score, isProbe: score > 2 }));
  assert.equal(areaUnderCurve(scores), 1);
  assert.equal(areaUnderCurve(scores.map(({ score, isProbe }) => ({ score: -score, isProbe }))), 0);
  assert.equal(areaUnderCurve(scores.map(({ isProbe }) => ({ score: 0, isProbe }))), 0.5);
});
