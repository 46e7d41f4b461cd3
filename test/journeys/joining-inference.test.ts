import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { minersOfNetwork } from '../../src/gateway/index.ts';
import { createInferenceReceipts, inferenceReceiptDomain, RECEIPT_HEADER, verifyReceipt } from '../../src/inference/index.ts';
import { startTestSubnet, type TestSubnet, TOKEN } from '../../src/inference/subnets/subnet-fixture.ts';
import { freePort, person } from './person.ts';

const BACKEND = fileURLToPath(new URL('./tiny-backend.ts', import.meta.url));
const SECRET = 'sk-of-the-owner-of-the-little-mill';
const MODEL = 'miller';

const root = mkdtempSync(join(tmpdir(), 'millrace-joining-'));
const stranger = person(root, 'stranger');
const shop = person(root, 'shop');
const keyFile = join(root, 'backend.key');
const running: ChildProcess[] = [];
let network: TestSubnet;
let slow: Awaited<ReturnType<typeof startSlowWay>>;
let backend: ChildProcess;
let backendPort = 0;
let miner: ChildProcess;
let minerPort = 0;
let minerSaid = '';
let gateway: ChildProcess;
let url = '';
let key = '';
let nodeKey = '';

before(async () => {
  writeFileSync(keyFile, `${SECRET}\n`, { mode: 0o600 });
  network = await startTestSubnet({ tempoSeconds: 600 });
  slow = await startSlowWay(network.chain.rpcUrl);
  const manifest = join(network.folder, 'network.json');
  [minerPort] = await Promise.all([freePort(), startBackend(0)]);
  for (const who of [stranger, shop]) {
    await who.json('--rpc-url', network.chain.rpcUrl, 'join', manifest);
    const { address } = await who.json('wallet', 'create');
    await network.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [address, 500n * TOKEN] });
    await network.faucet.send({ to: address, value: 10n * TOKEN });
  }
});
after(async () => {
  for (const child of running) child.kill('SIGKILL');
  slow?.stop();
  await network.stop();
  rmSync(root, { recursive: true, force: true });
});

test('who pays too little, stakes too little or has no key is refused before anything is spent', async () => {
  assert.equal(await stranger.codeOf('miner', 'init', '--subnet', '1', '--price-max', '0.5'), 'price-above-limit');
  assert.equal(await stranger.codeOf('miner', 'init', '--subnet', '1', '--stake', '49'), 'stake-below-bond');
  assert.equal(await stranger.codeOf('miner', 'run'), 'no-node-key');
  assert.equal(await shop.codeOf('gateway', 'run'), 'no-gateway-purse');
  assert.equal(BigInt((await stranger.json('wallet', 'show')).tokens), 500n * TOKEN);
});

test('a stranger joins with two commands: operator, stake, a uid at a stated price, and a backend of the own machine', async () => {
  const endpoint = `https://127.0.0.1:${minerPort}`;
  const made = await stranger.json('miner', 'init', '--subnet', '1', '--price-max', '1.5', '--endpoint', endpoint);
  assert.equal(made.uids[0].paid, TOKEN.toString());
  nodeKey = made.nodeKey;
  assert.deepEqual(await minersOfNetwork(network.client), [], 'nobody asks a miner whose receipts are not bonded');
  const ready = await startMiner();
  assert.deepEqual([ready.uids[0].uid, ready.bond.isBonded, ready.bond.locked], [0, true, (50n * TOKEN).toString()]);
  assert.equal((await minersOfNetwork(network.client))[0]?.miner, nodeKey);
  const args = readFileSync(`/proc/${miner.pid}/cmdline`, 'utf8');
  assert.ok(!args.includes(SECRET) && !minerSaid.includes(SECRET));
  for (const path of filesBelow(stranger.home)) assert.ok(!readFileSync(path).includes(SECRET), path);
});

test('a gateway with a purse of its own sells it to a caller with a key, by plain fetch, with a receipt of the class reputation only', async () => {
  await shop.json('gateway', 'init', '--tokens', '20');
  ({ key } = await shop.json('gateway', 'keys', 'create', 'alice', '--budget', '2'));
  await startGateway();
  assert.equal((await ask({}, 'sk-millrace-none')).status, 401);
  const whole = await ask({});
  const body = (await whole.json()) as { choices: { message: { content: string } }[] };
  assert.equal(body.choices[0]?.message.content, 'you said 3 words and the mill turns');
  const codec = createInferenceReceipts(inferenceReceiptDomain(network.client));
  const { receipt } = verifyReceipt(codec, whole.headers.get(RECEIPT_HEADER) as string, { miner: nodeKey as `0x${string}` });
  assert.deepEqual([receipt.evidence, receipt.subject.model, receipt.outputs.units], ['reputation only', MODEL, 8n]);
  const streamed = await (await ask({ stream: true })).text();
  assert.match(streamed, /: millrace-receipt .+\n\ndata: \[DONE\]/);
  const refused = (await (await ask({ response_format: { type: 'json_object' } })).json()) as { error: { code: string } };
  assert.equal(refused.error.code, 'unsupported_parameter');
  assert.equal((await fetch(`${url}/health`)).status, 200);
  assert.match(await (await fetch(`${url}/recognize`)).text(), /<title>Millrace/);
  assert.match(await (await fetch(`${url}/metrics`)).text(), /millrace_gateway_purse_base_units \d{18,}/);
});

test('the same miner serves an embedded model, whose answers can be repeated', async () => {
  const asked = { model: 'moby-dick-1m', max_tokens: 16 };
  const answers = [await ask(asked, key, { 'millrace-replay': 'allow' }), await ask(asked)];
  const codec = createInferenceReceipts(inferenceReceiptDomain(network.client));
  const receipts = answers.map((answer) => verifyReceipt(codec, answer.headers.get(RECEIPT_HEADER) as string, {}).receipt);
  assert.deepEqual(
    receipts.map(({ evidence }) => evidence),
    ['replayed', 'reputation only'],
  );
  assert.equal(receipts[0]?.outputs.outputDigest, receipts[1]?.outputs.outputDigest);
});

test('a validator joins likewise, judges, and commits to its weights', async () => {
  const made = await shop.json('validator', 'init', '--subnet', '1', '--stake', '200', '--tokens', '5');
  assert.equal(made.uids[0].uid, 1);
  const validator = shop.start('validator', 'run', '--listen', '127.0.0.1:0');
  running.push(validator);
  await shop.ready(validator);
  // It commits when the epoch is nearly over.
  await network.warpToEpoch(await network.epoch(), 570);
  const committed = () => network.client.events({ name: 'weightsBoard', event: 'Committed', args: { subnetId: 1n } });
  for (let tries = 0; (await committed()).length === 0; tries += 1) {
    assert.ok(tries < 120, 'it commits within two minutes');
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  const { uids, roles } = await shop.json('validator', 'status');
  assert.deepEqual([uids[0].hasPermit, roles.validator.subnets.length], [true, 1]);
  assert.equal(await stop(validator), 0);
});

test('a backend that was killed is an honest error that costs nothing, and its return is noticed', async () => {
  const spent = (await keyItem()).spent;
  await stop(backend, 'SIGKILL');
  const failed = await ask({});
  const { error } = (await failed.json()) as { error: { code: string; message: string } };
  assert.equal(failed.status, 503);
  assert.match(error.message, /backend of this model does not answer/);
  assert.equal((await keyItem()).spent, spent);
  await startBackend(backendPort);
  await untilAnswered();
});

test('a miner that ends cleanly and starts again, while its backend is away, goes on: uid, bond and earnings are kept', async () => {
  const before = await stranger.json('miner', 'status');
  assert.ok(BigInt(before.roles.miner.earned) > 0n);
  assert.equal(await stop(miner), 0);
  assert.equal((await ask({})).status, 503);
  await stop(backend, 'SIGKILL');
  const ready = await startMiner();
  assert.deepEqual([ready.uids[0].uid, ready.bond.isBonded], [0, true]);
  await startBackend(backendPort);
  await untilAnswered();
  const after = await stranger.json('miner', 'status');
  assert.ok(BigInt(after.roles.miner.earned) > BigInt(before.roles.miner.earned));
});

test('a gateway that starts again knows its keys and what they have spent; a revoked one is good for nothing', async () => {
  const { spent, id } = await keyItem();
  assert.equal(await stop(gateway), 0);
  await startGateway();
  assert.equal((await keyItem()).spent, spent);
  await untilAnswered();
  await shop.json('gateway', 'keys', 'revoke', id);
  assert.equal((await ask({})).status, 401);
});

test('a miner leaves while the chain takes its time: its person sees how far it is, breaks off, and goes on where it was', async () => {
  const claimed = async () => {
    const { claimed, earned } = (await stranger.json('miner', 'status')).roles.miner;
    return [BigInt(claimed), BigInt(earned)] as const;
  };
  const [before] = await claimed();
  for (let at = 0; at < 2; at += 1)
    assert.equal((await ask({}, (await shop.json('gateway', 'keys', 'create', `late-${at}`)).key)).status, 200);
  slow.hold();
  const said = await stranger.text('miner', 'leave', '--no-wait');
  assert.match(said, /has left: gateways pass it over .*\nNot over yet: .*\nIn .*: millrace miner unlock/);
  assert.deepEqual(await minersOfNetwork(network.client), []);
  const broken = stranger.start('miner', 'leave');
  running.push(broken);
  await until(async () => (await stranger.json('miner', 'leave', '--no-wait')).waiting.claimable !== '0');
  assert.notEqual(await stop(broken), 0, 'it waits for the claim, and can be broken off');
  assert.equal((await claimed())[0], before);
  slow.release();
  const { waiting, unlocksAt } = await stranger.json('miner', 'leave');
  assert.deepEqual(waiting, { requests: 0, tabs: 0, claimable: '0' });
  const [after, earned] = await claimed();
  assert.ok(after > before);
  assert.equal(after, earned, 'all that it earned is claimed');
  assert.equal((await stranger.json('miner', 'leave')).unlocksAt, unlocksAt, 'leaving again changes nothing');
  assert.equal(await stranger.codeOf('miner', 'unlock'), 'still-locked');
  await network.chain.warp(Number(BigInt(unlocksAt) - (await network.client.now())) + 1);
  assert.equal((await stranger.json('miner', 'unlock')).free, (100n * TOKEN).toString());
});

/** A way to the chain that lets everything through but, while it holds, transactions: a chain whose blocks are long. */
async function startSlowWay(to: string) {
  let holding: Promise<void> = Promise.resolve();
  let release = () => {};
  const server = createServer(async (request, response) => {
    const body = await text(request);
    if (body.includes('eth_sendRawTransaction')) await holding;
    const answer = await fetch(to, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    hold() {
      holding = new Promise((resolve) => {
        release = resolve;
      });
    },
    release: () => release(),
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await isSo()); tries += 1) {
    assert.ok(tries < 300, 'it comes to that');
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function ask(more: object, bearer = key, wishes: Record<string, string> = {}): Promise<Response> {
  const body = JSON.stringify({ model: MODEL, messages: [{ role: 'user', content: 'how goes it' }], ...more });
  const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/json', ...wishes };
  return fetch(`${url}/v1/chat/completions`, { method: 'POST', body, headers });
}

/** A miner that failed is cooled down for moments; then one request tries it again. */
async function untilAnswered(): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    const { status } = await ask({});
    if (status === 200) return;
    assert.ok(tries < 100, `still status ${status}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function keyItem(): Promise<{ id: string; spent: string }> {
  return (await shop.json('gateway', 'keys', 'list')).items[0];
}

async function startBackend(port: number): Promise<void> {
  backend = spawn(process.execPath, [BACKEND, String(port), SECRET], { stdio: ['ignore', 'pipe', 'inherit'] });
  running.push(backend);
  const [printed] = (await once(backend.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  backendPort = Number(printed.toString());
}

// biome-ignore lint/suspicious/noExplicitAny: a test reads what the command promises
async function startMiner(): Promise<any> {
  const served = ['--backend', `http://127.0.0.1:${backendPort}/v1`, '--backend-model', `chat:${MODEL}=miller-7b`];
  const own = ['--model', 'moby-dick-1m', '--listen', `127.0.0.1:${minerPort}`];
  miner = stranger.start('--rpc-url', slow.url, 'miner', 'run', ...own, ...served, '--backend-key-file', keyFile);
  running.push(miner);
  const take = (chunk: Buffer) => {
    minerSaid += chunk.toString();
  };
  miner.stdout?.on('data', take);
  miner.stderr?.on('data', take);
  return stranger.ready(miner);
}

async function startGateway(): Promise<void> {
  gateway = shop.start('gateway', 'run', '--listen', '127.0.0.1:0');
  running.push(gateway);
  ({ url } = await shop.ready(gateway));
}

async function stop(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const ended = once(child, 'exit') as Promise<[number | null]>;
  child.kill(signal);
  return (await ended)[0];
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}
