import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { after, before, test } from 'node:test';
import { EMBEDDED_MODELS, fetchModel } from '../../src/inference/index.ts';
import { contentPort } from '../../src/node/content-port.ts';
import { localNetwork } from './local-network.ts';

const network = localNetwork();
const file = join(network.home, 'letter.txt');
before(() => writeFileSync(file, 'A letter to a friend.\n'.repeat(2000)));
after(() => network.remove());

test('before anything runs, millrace says what to do next, and errors name themselves', async () => {
  assert.match(await network.text(), /millrace up/);
  const refused = await network.run('--json', 'status');
  assert.equal(refused.code, 2);
  assert.equal(JSON.parse(refused.stderr).code, 'no-network');
  assert.equal((await network.run('nonsense')).code, 2);
  assert.match(await network.text('put', '--help'), /Examples:/);
  const { items } = await network.json('config', 'show');
  const setting = (wanted: string) => items.find(({ name }: { name: string }) => name === wanted);
  assert.deepEqual(
    [setting('askPrice').from, setting('gatewayListen').value, setting('rpcUrl').from],
    ['default', '127.0.0.1:8090', 'unset'],
  );
});

test('one command starts a whole network, and a second start finds it running', async () => {
  const up = await network.json('up', '--detach');
  assert.equal(up.status, 'ready');
  assert.equal(up.nodes.length, 3);
  const again = await network.json('up', '--detach');
  assert.equal(again.alreadyRunning, true);
  assert.equal(again.rpcUrl, up.rpcUrl);
  for (const [code, ...flags] of [
    ['running-otherwise', '--nodes', '4'],
    ['running-otherwise', '--with', 'storage,compute'],
    ['profile-fixed', '--profile', 'laptop'],
  ] as [string, ...string[]][]) {
    assert.equal(JSON.parse((await network.run('--json', 'up', '--detach', ...flags)).stderr).code, code);
  }
  assert.match(await network.text(), /NOT SECURE/);
});

let cid = '';
test('a file is stored in two copies, proven on chain, and comes back identical', async () => {
  const stored = await network.json('put', file, '--copies', '2');
  cid = stored.cid;
  assert.equal(stored.deals.length, 2);
  assert.equal(new Set(stored.deals.map((deal: { operatorId: string }) => deal.operatorId)).size, 2);
  assert.ok(stored.deals.every((deal: { isActive: boolean }) => deal.isActive));
  const copy = join(network.home, 'copy.txt');
  const got = await network.json('get', cid, '-o', copy);
  assert.equal(got.wasSealed, true);
  assert.deepEqual(readFileSync(copy), readFileSync(file));
  assert.equal(await network.text('get', cid, '-o', '-'), readFileSync(file, 'utf8'));
  assert.deepEqual(
    (await network.json('ls')).items.map((item: { cid: string; name: string; copies: number }) => [item.cid, item.name, item.copies]),
    [[cid, basename(file), 2]],
  );
});

test('time is moved, every provider proves every period and is paid exactly for them', async () => {
  const warped = await network.json('dev', 'warp', '20m');
  assert.equal(warped.misses, 0);
  assert.ok(warped.proofs >= 6, `${warped.proofs} proofs`);
  const provenThrough = async () => (await network.json('status')).providers as { operatorId: string; provenThrough: string }[];
  const through = (rows: Awaited<ReturnType<typeof provenThrough>>, operatorId: string) =>
    BigInt(rows.find((row) => row.operatorId === operatorId)?.provenThrough as string);
  const [before, unsettled, after] = [await provenThrough(), (await network.json('deals')).items, await provenThrough()];
  for (const { operatorId, firstPeriod, provenPeriods, nextProof } of unsettled) {
    assert.ok(BigInt(provenPeriods) >= through(before, operatorId) - BigInt(firstPeriod), 'deals shows less than status');
    assert.ok(BigInt(provenPeriods) <= through(after, operatorId) - BigInt(firstPeriod), 'deals shows more than status');
    assert.ok(BigInt(nextProof.period) >= through(before, operatorId) && BigInt(nextProof.until) > BigInt(nextProof.from));
  }
  for (const { dealId } of unsettled) await network.json('deal', 'settle', dealId);
  const { items } = await network.json('deals');
  for (const deal of items) {
    assert.ok(BigInt(deal.settledPeriods) >= 3n && BigInt(deal.settledPeriods) <= BigInt(deal.provenPeriods));
    assert.equal(BigInt(deal.paid), BigInt(deal.pricePerPeriod) * BigInt(deal.settledPeriods));
    assert.equal(deal.refunded, '0');
  }
});

test('the demo loses its own deal alone: beside it every provider proves every period, and nothing of the user is refunded or ended', async () => {
  type Row = { dealId: string; state: string; refunded: string };
  const mine = (await network.json('deals')).items.map(({ dealId }: Row) => dealId);
  assert.match(await network.text('demo'), /the deal is ended. Slashed 0.1 /);
  assert.equal((await network.json('dev', 'warp', '15m')).misses, 0);
  for (const dealId of mine) await network.json('deal', 'settle', dealId);
  const { items } = await network.json('deals');
  for (const { dealId, state, refunded } of items as Row[]) {
    if (mine.includes(dealId)) assert.deepEqual([dealId, state, refunded], [dealId, 'active', '0']);
  }
  assert.deepEqual(items.map(({ state }: Row) => state).sort(), ['active', 'active', 'active', 'terminated']);
  assert.ok(
    (await network.json('status')).providers.every(
      ({ failed, missesInRow }: { failed: boolean; missesInRow: number }) => !failed && missesInRow === 0,
    ),
  );
});

test('every screen shows the same rewards, and the audit finds them again', async () => {
  type Row = { operatorId: string; rewards: string };
  const inStatus = async () => (await network.json('status')).providers.map(({ operatorId, rewards }: Row) => [operatorId, rewards]);
  // A proof between two commands adds to what they show: compared is what stood still.
  for (let tries = 0; ; tries += 1) {
    const before = await inStatus();
    const shown = (await network.json('provider', 'show')).items.map(({ operatorId, rewards }: Row) => [operatorId, rewards]);
    const { operators } = await network.json('rewards');
    const earned = operators.map((row: { operatorId: string; earned: string }) => [row.operatorId, row.earned]);
    const after = await inStatus();
    if (JSON.stringify(before) !== JSON.stringify(after) && tries < 5) continue;
    assert.deepEqual([shown, earned, after], [before, before, before]);
    break;
  }
  assert.equal((await network.json('audit')).clean, true);
});

test('a folder goes and comes with its tree, and one file of it can be read alone', async () => {
  const folder = join(network.home, 'album');
  mkdirSync(join(folder, 'summer'), { recursive: true });
  writeFileSync(join(folder, 'summer', 'sea.txt'), 'blue');
  writeFileSync(join(folder, 'empty.txt'), '');
  const stored = await network.json('put', folder, '--copies', '1', '--public');
  const copy = join(network.home, 'album-copy');
  await network.json('get', stored.cid, '-o', copy);
  assert.equal(readFileSync(join(copy, 'summer', 'sea.txt'), 'utf8'), 'blue');
  assert.equal(readFileSync(join(copy, 'empty.txt'), 'utf8'), '');
  assert.equal(await network.text('get', stored.cid, '--path', 'summer/sea.txt', '-o', '-'), 'blue');
});

test('a model is stored under the content identifier that every miner knows, and a machine without npm gets it there', async () => {
  const entry = EMBEDDED_MODELS.find(({ id }) => id === 'silero-vad-v5') as (typeof EMBEDDED_MODELS)[number];
  const { cid } = await network.json('models', 'store', entry.id);
  assert.equal(cid, entry.content);
  const [folder, packagesFolder] = [join(network.home, 'models-elsewhere'), join(network.home, 'no-packages')];
  const bare = { folder, packagesFolder, registry: 'none' };
  await assert.rejects(fetchModel(entry, bare), { code: 'model-unavailable' });
  const [file] = await fetchModel(entry, { ...bare, fetchFolder: contentPort(await network.client()) });
  assert.equal(
    createHash('sha256')
      .update(readFileSync(file?.path as string))
      .digest('hex'),
    entry.files[0]?.sha256,
  );
});

test('who holds which power is listed, and no plain account holds one', async () => {
  const { items } = await network.json('status', '--powers');
  assert.ok(items.length > 5);
  assert.deepEqual(
    items.filter((item: { holderKind: string }) => item.holderKind === 'account'),
    [],
  );
});

test('after a kill -9 of the supervisor, up goes on with what still runs', async () => {
  const before = await network.json('status');
  const supervisor = JSON.parse(readFileSync(join(network.home, 'data', 'dev', 'processes', 'supervisor.json'), 'utf8'));
  process.kill(supervisor.identity.pid, 'SIGKILL');
  const up = await network.json('up', '--detach');
  assert.equal(up.status, 'ready');
  const pid = (status: { processes: { name: string; pid: number }[] }, name: string) =>
    status.processes.find((part) => part.name === name)?.pid;
  assert.equal(pid(up, 'chain'), pid(before, 'chain'));
  assert.equal(pid(up, 'node-1'), pid(before, 'node-1'));
});

test('after down and up everything is still there', async () => {
  const chain = (await network.json('status')).processes.find(({ name }: { name: string }) => name === 'chain');
  process.kill(chain.pid, 'SIGKILL');
  // It is started again at once: who asks in the meantime is told so, and not to start what runs.
  assert.doesNotMatch((await network.run('--json', 'ls')).stderr, /not-running/);
  await network.json('down');
  assert.equal((await network.json('down')).stopped, false);
  assert.equal(JSON.parse((await network.run('--json', 'ls')).stderr).code, 'not-running');
  const up = await network.json('up', '--detach');
  assert.deepEqual([up.nodes.length, up.nodes[0].roles], [3, ['storage']]);
  assert.equal(await network.text('get', cid, '-o', '-'), readFileSync(file, 'utf8'));
  const warped = await network.json('dev', 'warp', '10m');
  assert.equal(warped.misses, 0);
});

test('all that is kept can be copied away and taken over under another name', async () => {
  const backup = join(network.home, 'backup');
  assert.equal(JSON.parse((await network.run('--json', 'export', backup)).stderr).code, 'still-running');
  await network.json('down');
  await network.json('export', backup);
  await network.json('--network', 'copy', 'import', backup);
  await network.json('up', '--network', 'copy', '--detach');
  assert.equal(await network.text('--network', 'copy', 'get', cid, '-o', '-'), readFileSync(file, 'utf8'));
  await network.json('--network', 'copy', 'down');
  await network.json('up', '--detach');
});

test('bad input is refused with a code, and nothing is half done', async () => {
  const codeOf = async (...args: string[]) => JSON.parse((await network.run('--json', ...args)).stderr).code;
  writeFileSync(join(network.home, 'empty'), '');
  assert.equal(await codeOf('put', join(network.home, 'absent')), 'source-missing');
  assert.equal(await codeOf('put', join(network.home, 'empty')), 'empty-content');
  assert.equal(await codeOf('get', 'not-a-cid'), 'bad-cid');
  assert.equal(await codeOf('get', 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy'), 'no-holders');
  assert.equal(await codeOf('put', file, '--copies', '9'), 'no-provider');
  assert.equal(await codeOf('put', file, '--copies', 'many'), 'bad-option');
  assert.equal(await codeOf('put', file, '--max-price', '0.000000000000000001'), 'too-expensive');
  assert.equal(await codeOf('dev', 'warp', 'soon'), 'bad-duration');
  assert.equal(await codeOf('--network', 'Not A Name', 'status'), 'bad-network-name');
});
