import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Postgres, startPostgres } from '../../src/data/index.ts';
import { silentLogger } from '../../src/log.ts';
import type { BareAnvil } from '../bare-anvil.ts';
import { startFront, startOwnChain } from './own-chain.ts';
import { person } from './person.ts';

const root = mkdtempSync(join(tmpdir(), 'millrace-infrastructure-'));
const letter = join(root, 'letter.txt');
const UP = ['up', '--detach', '--nodes', '1', '--rpc-port', '0', '--node-port', '0'];
let chain: BareAnvil;
/** The chain as a public one shows itself, with good randomness. */
let front: { rpcUrl: string; stop(): void };
let postgres: Postgres;
let databaseUrl = '';
const developer = person(root, 'developer');
const stranger = person(root, 'stranger');

before(async () => {
  writeFileSync(letter, 'On machines of our own.\n'.repeat(1000));
  chain = await startOwnChain();
  front = await startFront(chain);
  postgres = await startPostgres({ folder: join(root, 'postgres'), log: silentLogger });
  databaseUrl = postgres.url;
});
after(async () => {
  for (const who of [developer, stranger]) await who.run('down');
  await postgres.stop();
  front.stop();
  await chain.stop();
  rmSync(root, { recursive: true, force: true });
});

test('up on a chain or a database that is not there, or not fit, says so', async () => {
  assert.equal(await developer.codeOf('--rpc-url', 'http://127.0.0.1:1', ...UP), 'chain-unreachable');
  assert.equal(await developer.codeOf('--rpc-url', 'not a url', ...UP), 'bad-rpc-url');
  assert.equal(await developer.codeOf('--rpc-url', chain.rpcUrl, ...UP), 'randomness-unsafe');
  assert.equal(await developer.codeOf('--rpc-url', chain.rpcUrl, ...UP, '--beacon', '0x12'), 'bad-address');
  assert.equal(await developer.codeOf('--rpc-url', front.rpcUrl, ...UP, '--profile', 'laptop'), 'development-key-refused');
  const wrong = new URL(databaseUrl);
  wrong.password = 'wrong';
  const refused = await developer.with({ DATABASE_URL: wrong.href }).run('--json', '--rpc-url', front.rpcUrl, ...UP);
  assert.equal(JSON.parse(refused.stderr).code, 'database-refused');
  assert.doesNotMatch(refused.stderr, new RegExp(String(new URL(databaseUrl).password)));
});

test('with MILLRACE_RPC_URL and DATABASE_URL, up runs neither a chain nor a database, and all works', async () => {
  const own = developer.with({ MILLRACE_RPC_URL: front.rpcUrl, DATABASE_URL: databaseUrl });
  const up = await own.json(...UP);
  assert.deepEqual(up.processes.map(({ name }: { name: string }) => name).sort(), ['follower', 'node-1']);
  assert.equal(up.rpcUrl, front.rpcUrl);
  assert.equal((await developer.json('status')).randomness, 'prevRandao of the chain');
  // Later commands need not be told where the chain is.
  const { cid } = await developer.json('put', letter, '--copies', '1');
  assert.match(await developer.text('get', cid, '-o', '-'), /machines of our own/);
  let kinds: string[] = [];
  while (!kinds.includes('deal-activated')) kinds = (await developer.json('ledger')).items.map(({ kind }: { kind: string }) => kind);
  assert.equal(await developer.codeOf('dev', 'warp', '5m'), 'warp-needs-embedded-chain');
  await developer.json('down');
  assert.equal((await developer.with({ DATABASE_URL: databaseUrl }).json(...UP)).rpcUrl, front.rpcUrl);
});

test('whoever joined follows the network, without nodes that somebody else runs', async () => {
  await stranger.json('--rpc-url', front.rpcUrl, 'join', join(developer.home, 'friends', 'network.json'));
  const up = await stranger.json(...UP);
  assert.deepEqual(up.processes.map(({ name }: { name: string }) => name).sort(), ['database', 'follower']);
  assert.match(await stranger.text(...UP), /provider init/);
  await stranger.json('down');
  rmSync(join(stranger.home, 'friends', 'config.json'));
  assert.equal(await stranger.codeOf(...UP), 'no-rpc-url');
});
