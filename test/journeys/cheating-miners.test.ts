import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { seededRandom } from '../../src/inference/consensus/seeded-random.ts';
import { createInferenceReceipts, inferenceReceiptDomain, openReceiptReporter, readEvidence } from '../../src/inference/index.ts';
import { formatAmount } from '../../src/units.ts';
import { campaignSeed } from '../campaign.ts';
import type { Conduct } from '../cheating-miner-child.ts';
import { type CheatingNetwork, type JourneyMiner, startCheatingNetwork, until } from './cheating-network.ts';
import { type Asking, createUser, type Told } from './cheating-user.ts';

const CHEATS: readonly Conduct[] = ['dies', 'swaps the model', 'copies', 'fast garbage', 'counts too much', 'signs above the limit'];
const EPOCHS = 3;
/** The user asks in the first 60 % of an epoch of 600 s; validators commit from 70 % of it on. */
const ASKING_STEPS = 18;
const STEP_SECONDS = 20;
/** In each epoch: questions with each miner named first, and questions that the gateway places. */
const NAMED = 4;
const FREE = 12;
/** Streams that a miner is answering when it is killed. */
const CUT = 4;
const LONG_ANSWER = 800;
/** Honest miners' earnings of the third epoch lie within this part of their mean. */
const BAND = 0.4;
const ERRORS = ['no-miner', 'miner-failed', 'answer-not-signed'];

let network: CheatingNetwork;
let firstEpoch: bigint;
/** What the user was told in each epoch. */
const told: Told[][] = [];
const random = seededRandom(campaignSeed());
const minerOf = (conduct: Conduct) => network.miners.find((miner) => miner.conduct === conduct) as JourneyMiner;

before(async () => {
  network = await startCheatingNetwork(CHEATS);
});
after(() => network?.stop());

/** One epoch: questions in the order of the seed, beside the validators' probes; then nothing until it is over. */
async function throughEpoch(at: number): Promise<void> {
  const { subnet, miners, pass } = network;
  const user = createUser(network, random);
  told.push(user.told);
  const named = miners.flatMap((miner) => Array.from({ length: NAMED }, (_, index): Asking => ({ miner, isStream: index % 2 === 0 })));
  const questions = shuffled([...named, ...Array.from({ length: FREE }, (_, index): Asking => ({ isStream: index % 2 === 0 }))]);
  const upTo = (step: number) => Math.floor((questions.length * step) / ASKING_STEPS);
  for (let step = 0; step < ASKING_STEPS; step += 1) {
    const some = questions.slice(upTo(step), upTo(step + 1));
    await Promise.all([pass(STEP_SECONDS), ...some.map((asking) => user.ask(asking))]);
    if (at === 0 && step === ASKING_STEPS / 2) await killWhileItStreams(user.ask);
  }
  await user.ask({ miner: minerOf('dies'), isOnly: true, isStream: false });
  const end = await subnet.client.read('subnets', 'epochStart', [subnet.subnetId, firstEpoch + BigInt(at + 1)]);
  while ((await subnet.client.now()) < end) await pass(STEP_SECONDS);
}

/** The miner answers several streams at once and is killed when the first of them begins. */
async function killWhileItStreams(ask: (asking: Asking) => Promise<Told>): Promise<void> {
  const miner = minerOf('dies');
  let killing: Promise<void> | undefined;
  const onFirst = () => {
    killing ??= miner.kill();
  };
  const streams = await Promise.all(
    Array.from({ length: CUT }, () => ask({ miner, isOnly: true, isStream: true, tokensMax: LONG_ANSWER, onFirst })),
  );
  await killing;
  assert.ok(streams.some(({ code }) => code === 'miner-failed'));
}

test('for three epochs a user gets answers or honest errors while six miners cheat; receipts are right, and nothing is charged that was not signed', async () => {
  const { subnet, pass } = network;
  firstEpoch = (await subnet.epoch()) + 1n;
  await subnet.warpToEpoch(firstEpoch);
  await pass(0);
  for (let at = 0; at < EPOCHS; at += 1) await throughEpoch(at);
  for (const { code, by, verdict, isSigned, charged, signed, dueMax } of told.flat()) {
    if (code !== undefined) {
      assert.ok(ERRORS.includes(code), code);
      continue;
    }
    const who = by?.conduct ?? 'nobody';
    assert.ok(charged <= signed, `${who} charges ${charged}, signed ${signed}`);
    // The gateway counts input and output again.
    assert.ok(charged <= dueMax, `${who} charges ${charged}, at most ${dueMax} are due`);
    // Whatever is wrong with an answer, its own receipt proves it; an answer whose receipt is no good costs nothing.
    if (who === 'honest' || who === 'dies') assert.equal(verdict?.reason, 'same-output');
    else if (isSigned) assert.equal(verdict?.outcome, 'refuted', `${who}: ${verdict?.reason}`);
    assert.equal(isSigned, who !== 'signs above the limit');
  }
  const booked = () => network.gateway.keys.list().find(({ id }) => id === network.keyId)?.spent;
  const charges = told.flat().reduce((sum, { charged }) => sum + charged, 0n);
  await until('all is booked', () => booked() === charges);
});

test('who signs more than was agreed on loses a part of its bond to the agent of a validator that saw the receipt, and nobody else does', async () => {
  const { subnet, judge, seenReceipts } = network;
  const codec = createInferenceReceipts(inferenceReceiptDomain(subnet.client));
  const seen = [...seenReceipts].filter((text) => text !== '');
  const read = seen.map((text) => codec.fromJson(Buffer.from(text, 'base64url').toString('utf8')));
  const above = read.filter(({ receipt }) => receipt.outputs.units > receipt.inputs.outputUnitsMax);
  const { operatorId } = minerOf('signs above the limit');
  assert.ok(above.length > 0 && above.every(({ receipt }) => receipt.subject.operatorId === operatorId));
  const folder = join(subnet.folder, 'reports');
  const agent = openReceiptReporter({ client: subnet.client, sender: judge.sender, folder, isDuty: true, everyMs: 0 });
  for (const encoded of seen) agent.see({ encoded });
  await agent.tend();
  await agent.close();
  const convicted = await subnet.client.events({ name: 'receiptCourt', event: 'Convicted' });
  assert.ok(convicted.length > 0 && convicted.length <= above.length);
  for (const { args } of convicted) {
    assert.deepEqual([args.operatorId, args.reporter], [operatorId, judge.sender.address]);
    assert.ok(args.amount > 0n && args.reward > 0n);
  }
});

test('by what the chain paid, each cheat has less than a fifth of its honest twin in the third epoch; honest miners have about the same', async () => {
  const { subnet, pass, miners } = network;
  const { client, subnetId } = subnet;
  const last = firstEpoch + BigInt(EPOCHS) - 1n;
  await until('the third epoch is final and credited', async () => {
    await pass(2 * STEP_SECONDS);
    const { next } = await client.read('subnetEpochs', 'accountOf', [subnetId]);
    return next > last && (await client.read('subnetEpochs', 'creditedOf', [subnetId, last])) !== 0n;
  });
  const credits = (await client.events({ name: 'subnetEpochs', event: 'Credited', args: { subnetId } })).map(({ args }) => args);
  for (const { uid, operatorId } of miners) {
    const owed = credits.filter((credit) => credit.uid === uid).reduce((sum, { miner }) => sum + miner, 0n);
    if (owed > 0n) await subnet.faucet.send({ contract: 'subnetEpochs', functionName: 'payMiner', args: [operatorId] });
    const paid = await client.events({ name: 'subnetEpochs', event: 'MinerPaid', args: { operatorId } });
    assert.equal(
      paid.reduce((sum, { args }) => sum + args.amount, 0n),
      owed,
    );
  }
  const earned = ({ uid }: JourneyMiner, epoch: bigint) =>
    credits.find((credit) => credit.uid === uid && credit.epoch === epoch)?.miner ?? 0n;
  const rows = miners.map((miner, at) => {
    const twin = miners[at - (at % 2) + 1] as JourneyMiner;
    const epochs = Array.from({ length: EPOCHS }, (_, index) => earned(miner, firstEpoch + BigInt(index)));
    return { miner, epochs, share: Number(earned(miner, last)) / Number(earned(twin, last)) };
  });
  show(rows);
  const honest = rows.filter(({ miner }) => miner.conduct === 'honest').map(({ epochs }) => Number(epochs.at(-1)));
  const mean = honest.reduce((sum, amount) => sum + amount, 0) / honest.length;
  for (const amount of honest) assert.ok(Math.abs(amount - mean) <= BAND * mean, `an honest miner has ${amount / mean} of their mean`);
  // The first epoch's ranks are on chain when the third begins.
  const { free, byCheats } = placedIn(EPOCHS - 1);
  assert.ok(byCheats * 3 <= free, `of ${free} answers that the gateway placed, ${byCheats} came from cheats`);
  for (const { miner, share } of rows) if (miner.conduct !== 'honest') assert.ok(share < 0.2, `"${miner.name}" has ${share} of its twin`);
});

function show(rows: readonly { miner: JourneyMiner; epochs: readonly bigint[]; share: number }[]): void {
  const all = told.flat();
  const print = (line: string) => process.stdout.write(`${line}\n`);
  print(`seed ${campaignSeed()}; inference tokens paid by the chain in three epochs; what the user was told`);
  print('| miner | epoch 1 | 2 | 3 | of its twin | right | refuted by its receipt | free, bad receipt | errors | validators say |');
  for (const { miner, epochs, share } of rows) {
    const own = all.filter(({ by }) => by === miner);
    const count = (is: (one: Told) => boolean) => own.filter(is).length;
    const amounts = epochs.map((amount) => formatAmount(amount, 18).slice(0, 6));
    const errors = all.filter(({ code, asking }) => code !== undefined && asking.miner === miner).map(({ code }) => code);
    const cells = [
      miner.name,
      ...amounts,
      `${(share * 100).toFixed(1)} %`,
      count(({ code, verdict }) => code === undefined && verdict?.outcome === 'confirmed'),
      count(({ verdict }) => verdict?.outcome === 'refuted'),
      count(({ code, isSigned }) => code === undefined && !isSigned),
      tally(errors),
      tally(reasonsOf(miner)),
    ];
    print(`| ${cells.join(' | ')} |`);
  }
  const answers = all.filter(({ code }) => code === undefined);
  const over = answers.reduce((sum, { charged, due }) => sum + (charged > due ? charged - due : 0n), 0n);
  print(
    `${all.length} questions, ${answers.length} answers, ${answers.filter(({ isSigned }) => isSigned).length} receipts verified and run again`,
  );
  print(
    `charged ${formatAmount(
      answers.reduce((sum, { charged }) => sum + charged, 0n),
      18,
    )}, of it for what was not there ${formatAmount(over, 18)}`,
  );
  told.forEach((_, at) => {
    const { free, byCheats } = placedIn(at);
    print(`epoch ${at + 1}: of ${free} answers that the gateway placed, ${byCheats} came from cheats`);
  });
}

/** Answers of an epoch for which the user named nobody. */
function placedIn(at: number): { free: number; byCheats: number } {
  const free = (told[at] as Told[]).filter(({ asking, code }) => asking.miner === undefined && code === undefined);
  return { free: free.length, byCheats: free.filter(({ by }) => by?.conduct !== 'honest').length };
}

/** What a validator has on record of a miner, in the three epochs. */
function reasonsOf({ uid }: JourneyMiner): string[] {
  const epochs = Array.from({ length: EPOCHS }, (_, at) => firstEpoch + BigInt(at));
  const entries = epochs.flatMap((epoch) => readEvidence(network.evidenceFolder, { epoch, uid }));
  return entries.filter(({ kind }) => kind === 'probe' || kind === 'replay').map(({ reason, code }) => String(reason ?? code));
}

function tally(words: readonly (string | undefined)[]): string {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word ?? '', (counts.get(word ?? '') ?? 0) + 1);
  return [...counts].map(([word, count]) => `${count} ${word}`).join(', ');
}

function shuffled<T>(values: readonly T[]): T[] {
  const left = [...values];
  return values.map(() => left.splice(random.integer(0, left.length - 1), 1)[0] as T);
}
