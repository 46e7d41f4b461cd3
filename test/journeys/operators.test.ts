import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { localNetwork } from './local-network.ts';
import { freePort, person } from './person.ts';

const COIN = 10n ** 18n;
const network = localNetwork();
const root = mkdtempSync(join(tmpdir(), 'millrace-operators-'));
const owner = person(root, 'owner');
const heir = person(root, 'heir');
const letter = join(root, 'letter.txt');
const addresses: Record<string, string> = {};
let node: ChildProcess | undefined;
let port = 0;

before(async () => {
  writeFileSync(letter, 'An operator’s day.\n'.repeat(3000));
  const { rpcUrl } = await network.json('up', '--detach', '--nodes', '1');
  const manifest = join(network.home, 'data', 'dev', 'network.json');
  for (const [name, who] of Object.entries({ owner, heir })) {
    await who.json('--rpc-url', rpcUrl, 'join', manifest);
    addresses[name] = (await who.json('wallet', 'create')).address;
    await network.json('wallet', 'send', addresses[name] as string, '10', '--gas');
  }
  await network.json('wallet', 'send', addresses.owner as string, '3000');
  port = await freePort();
});
after(async () => {
  await stopNode();
  await network.remove();
  rmSync(root, { recursive: true, force: true });
});

test('what is no address, endpoint, price or operator is refused before anything happens', async () => {
  assert.equal(await owner.codeOf('wallet', 'send', `${addresses.heir?.slice(0, -1)}`, '1'), 'bad-address');
  assert.equal(await owner.codeOf('wallet', 'send', addresses.heir as string, '1,5'), 'bad-amount');
  assert.equal(await owner.codeOf('wallet', 'send', addresses.heir as string, '999999'), 'erc20-insufficient-balance');
  assert.equal(await owner.codeOf('provider', 'init', '--endpoint', 'http://127.0.0.1:9000'), 'bad-endpoint');
  assert.equal(await owner.codeOf('provider', 'run', '--ask-collateral', 'much'), 'bad-ask');
  assert.equal(await owner.codeOf('provider', 'run', '--ask-min-size', '2GiB', '--ask-max-size', '1GiB'), 'bad-ask');
  assert.equal(await owner.codeOf('provider', 'stake', '1'), 'no-node-key');
  assert.equal(await owner.codeOf('provider', 'stake', '1', '--operator', 'me'), 'bad-option');
  assert.equal(await owner.codeOf('provider', 'drain'), 'node-not-running');
});

test('an operator joins with prices of its own, from flags and from the settings of the network', async () => {
  const made = await owner.json('provider', 'init', '--endpoint', `https://127.0.0.1:${port}`, '--stake', '1500');
  assert.equal(made.operatorId, '2');
  await owner.json('wallet', 'send', made.nodeKey, '1', '--gas');
  const settings = join(owner.home, 'friends', 'config.json');
  writeFileSync(settings, JSON.stringify({ ...JSON.parse(readFileSync(settings, 'utf8')), askMinPrice: '0.5' }));
  await startNode();
  const mine = (await owner.json('asks')).items.find(({ operatorId }: { operatorId: string }) => operatorId === '2');
  assert.equal(mine.ask.pricePerGibPeriod, (2n * COIN).toString());
  assert.equal(mine.ask.minPricePerPeriod, (COIN / 2n).toString());
  assert.equal((await owner.json('provider', 'status')).roles.storage.accepting, true);
});

let cid = '';
test('a node that drains takes no deals, also after a restart, until it resumes', async () => {
  await network.json('provider', 'drain', '--node', '1');
  cid = (await network.json('put', letter, '--copies', '1')).cid;
  assert.equal((await network.json('ls')).items[0].deals[0].operatorId, '2');
  assert.equal((await owner.json('provider', 'drain')).running, 1);
  await stopNode();
  await startNode();
  assert.equal((await owner.json('provider', 'status')).draining, true);
  const refused = await network.run('--json', 'put', letter, '--copies', '1', '--public');
  assert.equal(JSON.parse(refused.stderr).code, 'no-provider');
  assert.equal((await network.json('provider', 'resume', '--node', '1')).draining, false);
  assert.equal((await owner.json('provider', 'resume')).draining, false);
});

test('a node that moves says so on chain, and its data is found again', async () => {
  await stopNode();
  port = await freePort();
  const { changed } = await owner.json('provider', 'endpoint', `https://127.0.0.1:${port}`);
  assert.equal(changed, true);
  assert.equal((await owner.json('provider', 'endpoint', `https://127.0.0.1:${port}`)).changed, false);
  await startNode();
  assert.equal(await network.text('get', cid, '-o', '-'), readFileSync(letter, 'utf8'));
});

test('the node key is replaced at once; the old one can do nothing, the new one goes on proving', async () => {
  await stopNode();
  const before = await owner.json('provider', 'show');
  const { present } = await owner.json('provider', 'rotate', 'node-key');
  assert.equal(await owner.codeOf('provider', 'rotate', 'node-key', '--cancel'), 'bad-option');
  await owner.json('wallet', 'send', present, '1', '--gas');
  await startNode();
  assert.equal((await network.json('dev', 'warp', '10m')).misses, 0);
  const after = await owner.json('provider', 'show');
  assert.ok(BigInt(after.items[1].provenThrough) > BigInt(before.items[1].provenThrough));
});

test('owner and beneficiary change after a delay, and a change can be cancelled', async () => {
  const { heir: next } = addresses as { heir: string };
  assert.equal(await owner.codeOf('provider', 'rotate', 'owner', '--finish'), 'no-rotation-pending');
  assert.equal(await owner.codeOf('provider', 'rotate', 'treasurer', next), 'bad-option');
  assert.equal(await owner.codeOf('provider', 'rotate', 'owner', next, '--finish'), 'bad-option');
  assert.equal((await owner.json('provider', 'rotate', 'owner', next)).pending.address.toLowerCase(), next.toLowerCase());
  assert.equal(await heir.codeOf('provider', 'rotate', 'owner', '--finish', '--operator', '2'), 'rotation-too-early');
  assert.equal((await owner.json('provider', 'rotate', 'owner', '--cancel')).pending, null);
  await owner.json('provider', 'rotate', 'beneficiary', next);
  assert.equal((await network.json('dev', 'warp', '11m')).misses, 0);
  const finished = await owner.json('provider', 'rotate', 'beneficiary', '--finish');
  assert.equal(finished.present.toLowerCase(), next.toLowerCase());
});

test('stake is added, leaves after the delay, and earnings go to the beneficiary alone', async () => {
  assert.equal((await owner.json('provider', 'stake', '200')).stake, (1700n * COIN).toString());
  await owner.json('provider', 'unstake', '200');
  assert.equal((await network.json('back', '2', '60')).amount, (60n * COIN).toString());
  assert.equal(await owner.codeOf('backing', 'leave', '1'), 'not-backed');
  const leaving = await network.json('backing', 'leave', '2', '--amount', '20');
  const [backed] = (await network.json('backing')).items;
  assert.deepEqual([backed.operatorId, backed.amount, leaving.amount], ['2', (40n * COIN).toString(), (20n * COIN).toString()]);
  assert.equal((await network.json('backing', 'withdraw')).waiting.length, 1);
  assert.equal(await owner.codeOf('provider', 'unstake', '99999'), 'insufficient-unlocked');
  const early = await owner.json('provider', 'withdraw');
  assert.deepEqual([early.unstaked, early.earned, early.waiting.length], ['0', '0', 1]);
  assert.equal((await network.json('dev', 'warp', '61m')).misses, 0);
  for (const { dealId } of (await network.json('deals')).items) await network.json('deal', 'settle', dealId);
  assert.equal((await owner.json('provider', 'withdraw')).unstaked, (200n * COIN).toString());
  assert.equal((await network.json('backing', 'withdraw')).stake, leaving.amount);
  const { earned } = await heir.json('provider', 'withdraw', '--operator', '2');
  assert.ok(BigInt(earned) >= 10n * (COIN / 2n), earned);
  assert.equal((await heir.json('wallet', 'show')).tokens, earned);
});

test('an operator leaves its deals for a fee, and then takes its stake home', async () => {
  const left = await owner.json('provider', 'leave');
  assert.deepEqual([left.dealsLeft.length, left.running, left.draining], [1, 0, true]);
  const [deal] = (await network.json('deals')).items;
  assert.equal(deal.state, 'terminated');
  await network.json('dev', 'warp', '5m');
  for (let minute = 0; (await owner.json('provider', 'status')).running > 0; minute++) {
    assert.ok(minute < 10, 'its last proof is counted within ten minutes');
    await network.json('dev', 'warp', '1m');
  }
  const mine = (await owner.json('provider', 'show')).items[1];
  assert.equal(mine.locked, '0');
  const { amount } = await owner.json('provider', 'unstake', String(BigInt(mine.own) / COIN));
  await stopNode();
  await network.json('dev', 'warp', '61m');
  assert.equal((await owner.json('provider', 'withdraw')).unstaked, amount);
});

async function startNode(): Promise<void> {
  node = owner.start('provider', 'run', '--listen', `127.0.0.1:${port}`, '--quota', '1GiB', '--ask-price', '2');
  await owner.ready(node);
}

async function stopNode(): Promise<void> {
  const child = node;
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  await new Promise((resolve) => child.once('exit', resolve));
}
