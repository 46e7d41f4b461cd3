// What a user lets validators repeat, `millrace validator run --cases 1` brings before the jury when it is a lie: every part is the command of a person.
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { zeroHash } from 'viem';
import { developmentSigner } from '../../src/chain/index.ts';
import { readJuryCase } from '../../src/governance/jury-round.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from '../../src/inference/subnets/subnet-fixture.ts';
import type { CheatingMinerOptions } from '../cheating-miner-child.ts';
import { freePort, type Person, person } from './person.ts';

const LIAR = fileURLToPath(new URL('../cheating-miner-child.ts', import.meta.url));
/** `IReceiptCourt.Offence`: what a jury has found. */
const JURY_VERDICT = 3;
const GUILTY = 1n;
const JURORS = 3;
const PATIENCE_MS = 240_000;
const LOOK_MS = 250;
const STEP_SECONDS = 10;

const root = mkdtempSync(join(tmpdir(), 'millrace-cases-'));
const [user, judge, twin] = ['user', 'judge', 'twin'].map((name) => person(root, name)) as [Person, Person, Person];
const jurors = Array.from({ length: JURORS }, (_, at) => person(root, `juror-${at + 1}`));
const running: ChildProcess[] = [];
let network: TestSubnet;
let liar: TestOperator;
let twinId: bigint;
let judgeKey: string;
/** Answers of each operator. */
const answeredBy = new Map<bigint, number>();
let asked = 0;

before(async () => {
  network = await startTestSubnet({ tempoSeconds: 600 });
  const manifest = join(network.folder, 'network.json');
  for (const who of [user, judge, twin, ...jurors]) {
    await who.json('--rpc-url', network.chain.rpcUrl, 'join', manifest);
    const { address } = await who.json('wallet', 'create');
    await network.faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [address, 2_000n * TOKEN] });
    await network.faucet.send({ to: address, value: 10n * TOKEN });
  }
  liar = await startLiar();
  const port = await freePort();
  const made = await twin.json('miner', 'init', '--subnet', '1', '--endpoint', `https://127.0.0.1:${port}`);
  twinId = BigInt(made.operatorId);
  await start(twin, 'miner', 'run', '--model', 'moby-dick-1m', '--listen', `127.0.0.1:${port}`);
  for (const juror of jurors) {
    await juror.json('juror', 'enrol');
    await start(juror, 'juror', 'run', '--listen', '127.0.0.1:0');
  }
});
after(async () => {
  for (const child of running) child.kill('SIGKILL');
  await network?.stop();
  rmSync(root, { recursive: true, force: true });
});

test('a validator that may bring one case brings the lie of one miner before the jury, which runs it again: the liar is slashed, its twin is not', async () => {
  const { client } = network;
  const port = await freePort();
  const place = ['--endpoint', `https://127.0.0.1:${port}`];
  const made = await judge.json('validator', 'init', '--subnet', '1', '--stake', '1000', '--tokens', '50', '--gas', '1', ...place);
  judgeKey = made.nodeKey;
  await start(judge, 'validator', 'run', '--cases', '1', '--listen', `127.0.0.1:${port}`);
  await until('it holds a permit', async () => (await judge.json('validator', 'status')).uids[0].hasPermit);
  const [before, ofTwin] = [await lockedOf(liar.operatorId), await lockedOf(twinId)];
  await until('a case is open', async () => {
    await ask();
    return (await challenged()).length > 0;
  });
  await until('both miners have answered, the liar again', async () => {
    await ask();
    return [liar.operatorId, twinId].every((id) => (answeredBy.get(id) ?? 0) > 1);
  });
  await until('the jury has ruled', async () => {
    // Jurors have the time that they need: each phase ends when all of them have done what is due.
    const { phase } = await readJuryCase(client, await client.read('jury', 'disputeCount'));
    if (phase !== 'voting') await network.chain.warp(STEP_SECONDS);
    return (await client.events({ name: 'receiptCourt', event: 'CaseClosed' })).length > 0;
  });
  const [case_, ...others] = await challenged();
  assert.deepEqual([case_?.args.operatorId, case_?.args.challenger, others.length], [liar.operatorId, judgeKey, 0]);
  const [closed] = await client.events({ name: 'receiptCourt', event: 'CaseClosed' });
  assert.equal(closed?.args.ruling, GUILTY);
  const convicted = await client.events({ name: 'receiptCourt', event: 'Convicted' });
  assert.deepEqual(
    convicted.map(({ args }) => [args.operatorId, args.offence, args.reporter]),
    [[liar.operatorId, JURY_VERDICT, judgeKey]],
  );
  assert.equal(before - (await lockedOf(liar.operatorId)), convicted[0]?.args.amount);
  assert.equal(await lockedOf(twinId), ofTwin);
  const { caseBond } = await client.read('receiptCourt', 'config');
  const bond = await client.read('rails', 'balanceOf', [client.address('networkToken'), judgeKey as `0x${string}`]);
  assert.equal(bond, caseBond, 'the bond came back');
  const { roles } = await judge.json('validator', 'status');
  assert.equal(roles.validator.court.cases, 1, 'no case more than it may bring, whatever else it saw');
});

/** One question that validators may repeat; whoever of the two miners is chosen answers it. */
async function ask(): Promise<void> {
  asked += 1;
  const question = `${asked} ships left the harbour in the morning and the captain asked`;
  const { operatorId } = await user.json('ask', question, '--replay', '--max-tokens', '12');
  answeredBy.set(BigInt(operatorId), (answeredBy.get(BigInt(operatorId)) ?? 0) + 1);
}

const challenged = () => network.client.events({ name: 'receiptCourt', event: 'Challenged' });
const lockedOf = (operatorId: bigint) =>
  network.client.read('stakeVault', 'lockedOfModule', [operatorId, network.client.address('receiptCourt')]);

/** A command that stays, until it says that it is ready. */
async function start(who: Person, ...args: string[]): Promise<void> {
  const child = who.start(...args);
  running.push(child);
  await who.ready(child);
}

/** A bonded miner that answers as a worse model would and signs for the better one. */
async function startLiar(): Promise<TestOperator> {
  const operator = await network.join({ stake: 100n * TOKEN });
  const { operatorId, owner, nodeKey } = operator;
  const keyIndex = Array.from({ length: 40 }, (_, index) => index).find(
    (index) => developmentSigner(index, 'dev').address === nodeKey.address,
  );
  const options: CheatingMinerOptions = {
    conduct: 'swaps the model',
    rpcUrl: network.chain.rpcUrl,
    manifestPath: join(network.folder, 'network.json'),
    folder: join(network.folder, 'liar'),
    dataFolder: network.folder,
    keyIndex: keyIndex as number,
    operatorId: operatorId.toString(),
    logFile: join(network.folder, 'liar.log'),
    source: { url: '', key: '', operators: [] },
  };
  const child = fork(LIAR, [JSON.stringify(options)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  running.push(child);
  const hello = await new Promise<{ port: number; transportKey: `0x${string}` }>((resolve, reject) => {
    child.once('exit', (code) => reject(new TypeError(`The liar ended with ${code}`)));
    child.once('message', (message) => resolve(message as { port: number; transportKey: `0x${string}` }));
  });
  const args = [operatorId, hello.transportKey, `https://127.0.0.1:${hello.port}`, zeroHash] as const;
  await owner.send({ contract: 'operators', functionName: 'setEndpoint', args });
  return operator;
}

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new TypeError(`It does not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}
