import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { after, afterEach, before, test } from 'node:test';
import { type Hex, zeroHash } from 'viem';
import { developmentSigner } from '../chain/index.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../connect/index.ts';
import {
  createInferenceReceipts,
  createMiner,
  ensureReceiptBond,
  fetchOf,
  type InferenceReceipt,
  inferenceReceiptDomain,
  RECEIPT_HEADER,
} from '../inference/index.ts';
import { type ForeignBackend, startForeignBackend } from '../inference/serving/foreign-backend.ts';
import { TEST_PRICE } from '../inference/serving/miner-fixture.ts';
import { createOpenAiBackend } from '../inference/serving/openai-backend.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from '../inference/subnets/subnet-fixture.ts';
import { silentLogger } from '../log.ts';
import { openReceiver, type Receiver } from '../token/index.ts';
import { ask } from './ask.ts';
import type { CommandContext } from './context.ts';
import { draw } from './draw.ts';
import { createOutput } from './output.ts';
import { say } from './say.ts';

/** The development key that pays for commands where there is no wallet. */
const WALLET = developmentSigner(1, 'dev').address;

interface Place {
  operator: TestOperator;
  server: PeerServer;
  receiver: Receiver;
}

let network: TestSubnet;
let backend: ForeignBackend;
const places: Place[] = [];
/** What the first miner signs besides the truth; the second never lies. */
let lie: ((receipt: InferenceReceipt) => void) | undefined;

before(async () => {
  network = await startTestSubnet();
  backend = await startForeignBackend();
  const home = join(network.folder, 'user', 'dev');
  mkdirSync(home, { recursive: true });
  writeFileSync(join(home, 'network.json'), readFileSync(join(network.folder, 'network.json')));
  await network.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [WALLET, 50n * TOKEN] });
  await startMiner('liar', lied);
  await startMiner('twin', async (answer) => answer);
});
afterEach(() => {
  lie = undefined;
});
after(async () => {
  for (const { server, receiver } of places) {
    await server.stop(100);
    await receiver.close();
  }
  await backend.stop();
  await network.stop();
});

test('a miner that signs more than was agreed on is told of, kept as proof and reported for the reward; its honest twin is not', async () => {
  const honest = await asked('twin');
  assert.deepEqual([honest.json.offences, honest.told], [[], '']);
  lie = ({ inputs, outputs }) => Object.assign(outputs, { units: inputs.outputUnitsMax + 5n });
  const had = await balance();
  const before = await lockedOf();
  const { error, told } = await asked('liar', { json: false });
  assert.equal(error?.code, 'no-receipt', 'what nobody signed for is not taken for an answer');
  assert.match(told, /convicted itself: it signed more output than was agreed on .* Reported: the court took 10 .* kept in /);
  const convicted = await convictions();
  assert.deepEqual([convicted.length, convicted[0]?.args.reporter], [1, WALLET]);
  assert.equal(before - (await lockedOf()), convicted[0]?.args.amount);
  const evidence = /kept in (\S+)/.exec(told)?.[1] as string;
  assert.ok(existsSync(evidence));
  assert.ok((await balance()) > had, 'the reward is in the wallet');
  lie = undefined;
  assert.equal((await asked('liar')).error?.code, 'request-not-answered', 'nobody asks whose bond was cut');
  await bondAgain();
  const again = await asked('liar');
  assert.deepEqual([again.error, again.json.offences, (await convictions()).length], [undefined, [], 1]);
});

test('a price above what was paid ahead and an id that an earlier command has a receipt of convict as well; one receipt twice does not', async () => {
  const before = (await convictions()).length;
  lie = ({ inputs, outputs }) => Object.assign(outputs, { price: inputs.voucher + 1n });
  const dear = await asked('liar');
  assert.deepEqual(stateOf(dear), [['price-above-voucher', 'reported']]);
  await bondAgain();
  const receiptId: Hex = `0x${'ab'.repeat(32)}`;
  lie = ({ inputs }) => Object.assign(inputs, { receiptId });
  assert.deepEqual(stateOf(await asked('liar')), []);
  assert.deepEqual(stateOf(await asked('liar')), [['contradiction', 'reported']]);
  await bondAgain();
  assert.deepEqual(stateOf(await asked('liar')), [['contradiction', 'dropped']], 'the court slashes once for an id');
  assert.deepEqual(stateOf(await asked('twin')), []);
  assert.equal((await convictions()).length - before, 2);
});

test('pictures are made by a miner with a backend for them, written as files and accounted for; a size that is none is refused', async () => {
  const output = join(network.folder, 'mill.png');
  const wanted = { output, count: '2', size: '256x256', model: 'twin-brush' };
  const drawn = await commanded((context) => draw(context, 'a mill by a race', wanted));
  assert.equal(drawn.error, undefined);
  const second = join(network.folder, 'mill-2.png');
  assert.deepEqual(
    (drawn.json as unknown as { items: { path: string }[] }).items.map(({ path }) => path),
    [output, second],
  );
  for (const path of [output, second]) assert.equal(readFileSync(path).toString('latin1', 1, 4), 'PNG');
  assert.deepEqual(backend.bodies.at(-1), {
    model: 'twin-brush',
    prompt: 'a mill by a race',
    n: 2,
    size: '256x256',
    response_format: 'b64_json',
  });
  const refused = await commanded((context) => draw(context, 'a mill', { ...wanted, size: 'large' }));
  assert.ok(refused.error !== undefined);
});

test('where an answer cannot be written, nothing is asked', async () => {
  const file = join(network.folder, 'a-file');
  writeFileSync(file, 'precious');
  const before = backend.requests;
  const model = 'twin-brush';
  for (const output of [join(file, 'mill.png'), network.folder]) {
    const drawn = await commanded((context) => draw(context, 'a mill', { output, count: '1', size: '256x256', model }));
    const said = await commanded((context) => say(context, 'a mill', { output, voice: 'alloy', model }));
    const code = output === network.folder ? 'output-exists' : 'output-unwritable';
    assert.deepEqual([drawn.error?.code, said.error?.code], [code, code]);
  }
  assert.equal(backend.requests, before);
  assert.equal(readFileSync(file, 'utf8'), 'precious');
});

const stateOf = ({ json }: Asked) => json.offences.map(({ offence, state }) => [offence, state]);
const balance = () => network.client.read('networkToken', 'balanceOf', [WALLET]);
const convictions = () => network.client.events({ name: 'receiptCourt', event: 'Convicted', args: {} });
const bondAgain = () => {
  const { sender, operatorId } = (places[0] as Place).operator;
  return ensureReceiptBond(network.client, { sender, operatorId });
};
const lockedOf = () => {
  const { client } = network;
  return client.read('stakeVault', 'lockedOfModule', [(places[0] as Place).operator.operatorId, client.address('receiptCourt')]);
};

interface Asked {
  json: { offences: { offence: string; state: string }[] };
  told: string;
  error: { code: string } | undefined;
}

/** `millrace ask` of one model. */
function asked(model: string, { json = true }: { json?: boolean } = {}): Promise<Asked> {
  return commanded((context) => ask(context, 'how many?', { model, maxTokens: '16' }), json);
}

/** What a command prints and how it ends, run as one of its own. */
async function commanded(command: (context: CommandContext) => Promise<void>, json = true): Promise<Asked> {
  const printed = { stdout: '', stderr: '' };
  const sink = (name: keyof typeof printed) =>
    new Writable({
      write(chunk, _encoding, done) {
        printed[name] += chunk;
        done();
      },
    });
  const flags = { data: join(network.folder, 'user'), network: 'dev', rpcUrl: network.chain.rpcUrl, json, logLevel: 'error' as const };
  const output = createOutput({ json, stdout: sink('stdout'), stderr: sink('stderr') });
  const context: CommandContext = { flags, output, signal: new AbortController().signal };
  const error = await command(context).then(
    () => undefined,
    (thrown) => thrown as { code: string },
  );
  const told = printed.stderr.replace(/^Using the public development key.*\n/m, '');
  return { json: json && error === undefined ? JSON.parse(printed.stdout) : { offences: [] }, told, error };
}

/** A miner with two models, under an operator of its own; what it signs passes through `sign`. */
async function startMiner(id: string, sign: (answer: Response, operator: TestOperator) => Promise<Response>): Promise<Place> {
  const { client, folder } = network;
  const operator = await network.join({ stake: 150n * TOKEN });
  const { operatorId, sender, nodeKey: signer } = operator;
  const identity = await openTransportIdentity(join(folder, id));
  const tokens = ['network'] as const;
  const receiver = await openReceiver({
    client,
    receiver: signer.address,
    folder: join(folder, `${id}-earned`),
    tokens,
    claimIntervalSeconds: 300,
    sender,
  });
  const [domain, token] = [inferenceReceiptDomain(client), client.address('networkToken')];
  const models = (['chat', 'image-generation'] as const).map((task) => {
    const card = { id: task === 'chat' ? id : `${id}-brush`, task, licence: 'none', limits: ['a fixture'], contextTokens: 8192 };
    const unit = task === 'chat' ? ('tokens' as const) : ('images' as const);
    return { engine: createOpenAiBackend({ url: backend.url, card }), price: { ...TEST_PRICE, unit }, outputUnitsMax: 64, concurrency: 8 };
  });
  const miner = createMiner({
    operatorId,
    signer,
    domain,
    profile: 'dev',
    models,
    receiver,
    token,
    now: () => client.now(),
    log: silentLogger,
  });
  const honest = fetchOf((request) => miner.answer(request));
  const server = await startPeerServer({ port: 0, identity, fetch: async (request) => sign(await honest(request), operator) });
  const args = [operatorId, identity.transportKey, `https://127.0.0.1:${server.port}`, zeroHash] as const;
  await sender.send({ contract: 'operators', functionName: 'setEndpoint', args });
  await ensureReceiptBond(client, { sender, operatorId });
  const place = { operator, server, receiver };
  places.push(place);
  return place;
}

/** An answer whose receipt says something else, signed by the miner all the same; as it is while the miner does not lie. */
async function lied(answer: Response, { nodeKey }: TestOperator): Promise<Response> {
  if (lie === undefined) return answer;
  const codec = createInferenceReceipts(inferenceReceiptDomain(network.client));
  const body = await answer.text();
  const inStream = new RegExp(`^: ${RECEIPT_HEADER} (\\S+)$`, 'm').exec(body)?.[1];
  const encoded = answer.headers.get(RECEIPT_HEADER) ?? inStream;
  if (encoded === undefined) return new Response(body, answer);
  const { receipt } = codec.fromJson(Buffer.from(encoded, 'base64url').toString('utf8'));
  const changed = { ...receipt, inputs: { ...receipt.inputs }, outputs: { ...receipt.outputs } };
  lie(changed);
  const signed = Buffer.from(codec.toJson(changed, await codec.sign(nodeKey, changed))).toString('base64url');
  const headers = new Headers(answer.headers);
  if (inStream === undefined) headers.set(RECEIPT_HEADER, signed);
  return new Response(body.replace(encoded, signed), { status: answer.status, headers });
}
