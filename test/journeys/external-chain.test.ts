import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Address } from 'viem';
import type { BareAnvil } from '../bare-anvil.ts';
import { deployBeacon, passTime, sendGas, startFront, startOwnChain } from './own-chain.ts';
import { freePort, type Person, person } from './person.ts';

const COIN = 10n ** 18n;
const root = mkdtempSync(join(tmpdir(), 'millrace-external-'));
const manifest = join(root, 'network.json');
const letter = join(root, 'letter.txt');
const [founder, anna, boris, client, friend] = ['founder', 'anna', 'boris', 'client', 'friend'].map((name) => person(root, name)) as [
  Person,
  Person,
  Person,
  Person,
  Person,
];
/** The client again, on another machine. */
const heir = person(root, 'heir', 'password of client');
const running: ChildProcess[] = [];
let chain: BareAnvil;
let beacon: Address;
const addresses: Record<string, Address> = {};

before(async () => {
  writeFileSync(letter, 'To whom it may concern.\n'.repeat(5000));
  chain = await startOwnChain();
  beacon = await deployBeacon(chain);
});
after(async () => {
  await Promise.all(running.map((child) => stopped(child)));
  await chain.stop();
  rmSync(root, { recursive: true, force: true });
});

const deployArgs = () => ['--rpc-url', chain.rpcUrl, 'deploy', '--profile', 'laptop', '--beacon', beacon, '--out', manifest];

test('a chain whose randomness somebody chooses is refused, and so is a key without gas', async () => {
  const { address } = await founder.json('wallet', 'create');
  addresses.founder = address;
  assert.equal(await founder.codeOf('--rpc-url', chain.rpcUrl, 'deploy', '--profile', 'laptop'), 'randomness-unsafe');
  const constant = await startFront(chain, { prevRandao: `0x${'7'.repeat(64)}` });
  assert.equal(await founder.codeOf('--rpc-url', constant.rpcUrl, 'deploy', '--profile', 'laptop'), 'randomness-unsafe');
  constant.stop();
  assert.equal(await founder.codeOf('--rpc-url', chain.rpcUrl, 'deploy', '--profile', 'laptop', '--beacon', address), 'beacon-missing');
  assert.equal(await founder.codeOf('--rpc-url', chain.rpcUrl, 'deploy', '--profile', 'laptop', '--beacon', '0x12'), 'bad-address');
  assert.equal(await founder.codeOf(...deployArgs()), 'no-funds');
});

test('a deployment killed in the middle goes on, and repeating it changes nothing', async () => {
  await sendGas(chain, addresses.founder as Address, 100n * COIN);
  const first = founder.start(...deployArgs());
  const plan = join(founder.home, 'friends', 'deploy.json');
  while (!existsSync(plan) || Object.keys(JSON.parse(readFileSync(plan, 'utf8')).contracts).length < 4) {
    assert.equal(first.exitCode, null, 'the deployment was over before it could be killed');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  first.kill('SIGKILL');
  await new Promise((resolve) => first.once('exit', resolve));
  const before = JSON.parse(readFileSync(plan, 'utf8')).contracts;
  const deployed = await founder.json(...deployArgs());
  for (const [name, { address }] of Object.entries<{ address: Address }>(before))
    assert.equal(deployed.modules[name].address.toLowerCase(), address.toLowerCase());
  const sent = await chain.public.getTransactionCount({ address: addresses.founder as Address });
  assert.deepEqual(await founder.json(...deployArgs()), deployed);
  assert.equal(await chain.public.getTransactionCount({ address: addresses.founder as Address }), sent);
  const powers = await founder.json('status', '--powers');
  assert.deepEqual(
    powers.items.filter((item: { holderKind: string }) => item.holderKind === 'account'),
    [],
  );
});

test('strangers join by the manifest, get tokens from the founder, and run providers of their own', async () => {
  for (const [name, who] of Object.entries({ anna, boris, client, friend })) {
    await who.json('--rpc-url', chain.rpcUrl, 'join', manifest);
    addresses[name] = (await who.json('wallet', 'create')).address;
  }
  assert.equal(await anna.codeOf('provider', 'run'), 'no-node-key');
  assert.equal(await anna.codeOf('provider', 'init', '--endpoint', 'https://127.0.0.1:1'), 'no-funds');
  for (const name of ['anna', 'boris', 'client']) {
    await founder.json('wallet', 'send', addresses[name] as string, '5', '--gas');
    await founder.json('wallet', 'send', addresses[name] as string, '20000');
  }
  assert.equal((await client.json('wallet', 'show')).tokens, (20_000n * COIN).toString());
  const operators = await Promise.all([anna, boris].map((who) => becomeProvider(who)));
  assert.deepEqual(operators.sort(), ['1', '2']);
  assert.equal((await client.json('asks')).items.length, 2);
});

let cid = '';
test('a client stores a file with strangers and reads it back', async () => {
  const quicker = passTime(chain, 5);
  const stored = await client.json('put', letter, '--copies', '2', '--periods', '24').finally(() => quicker.stop());
  cid = stored.cid;
  assert.deepEqual(
    stored.deals.map((deal: { isActive: boolean }) => deal.isActive),
    [true, true],
  );
  assert.equal(await client.text('get', cid, '-o', '-'), readFileSync(letter, 'utf8'));
});

test('with the laptop lost, the keystore and the CID bring the file back on another machine', async () => {
  const backup = join(root, 'keystore.json');
  await client.json('wallet', 'export', backup);
  rmSync(client.home, { recursive: true });
  await heir.json('--rpc-url', chain.rpcUrl, 'join', manifest);
  assert.equal(await heir.codeOf('get', cid, '-o', '-'), 'no-wallet');
  assert.equal((await heir.json('wallet', 'import', backup)).address, addresses.client);
  assert.equal(await heir.text('get', cid, '-o', '-'), readFileSync(letter, 'utf8'));
  assert.deepEqual(
    (await heir.json('ls')).items.map((item: { cid: string }) => item.cid),
    [cid],
  );
});

test('another wallet cannot open it, until the owner shares it with its key', async () => {
  const { sharingKey } = await friend.json('wallet', 'show');
  assert.equal(await friend.codeOf('get', cid, '-o', join(root, 'stolen')), 'no-key');
  assert.equal(existsSync(join(root, 'stolen')), false);
  const { grant } = await heir.json('share', cid, '--to', sharingKey);
  assert.equal(await friend.text('get', cid, '--grant', grant, '-o', '-'), readFileSync(letter, 'utf8'));
  assert.equal(await anna.codeOf('get', cid, '--grant', grant, '-o', '-'), 'grant-not-yours');
});

/** Registers, funds the node key, and runs the provider as a process of its own. */
async function becomeProvider(who: Person): Promise<string> {
  const port = await freePort();
  const { operatorId, nodeKey } = await who.json('provider', 'init', '--endpoint', `https://127.0.0.1:${port}`, '--stake', '10000');
  await who.json('wallet', 'send', nodeKey, '1', '--gas');
  const child = who.start('provider', 'run', '--listen', `127.0.0.1:${port}`, '--quota', '1GiB');
  running.push(child);
  await who.ready(child);
  return operatorId;
}

async function stopped(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await new Promise((resolve) => child.once('exit', resolve));
}
