import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { FOREIGN } from '../suite.ts';
import { localNetwork, MAIN } from './local-network.ts';
import { type Person, person } from './person.ts';

const run = promisify(execFile);
const network = localNetwork();
const root = mkdtempSync(join(tmpdir(), 'millrace-s3-'));
const [friend, stranger, laptop] = ['friend', 'stranger', 'laptop'].map((name) => person(root, name, 'one password')) as [
  Person,
  Person,
  Person,
];
const page = Buffer.from('<script>document.title = "owned"</script><b>hello</b>\n');
const photo = randomBytes(3_000_000);
let rpcUrl = '';
const started: ChildProcess[] = [];

/** Starts a command of the network's person that stays, and gives what it prints when it is ready. */
// biome-ignore lint/suspicious/noExplicitAny: a test reads what the command promises
async function stay(...args: string[]): Promise<{ said: any; child: ChildProcess }> {
  const env = {
    PATH: process.env.PATH,
    NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
    HOME: network.home,
    MILLRACE_HOME: join(network.home, 'data'),
  };
  const child = spawn(process.execPath, [MAIN, '--json', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  started.push(child);
  return { said: await friend.ready(child), child };
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await new Promise((resolve) => child.once('exit', resolve));
}

/** curl, which signs by itself. */
async function curl(keys: { accessKey: string; secretKey: string }, ...args: string[]): Promise<Buffer> {
  const signing = ['-sS', '--fail-with-body', '--aws-sigv4', 'aws:amz:us-east-1:s3', '--user', `${keys.accessKey}:${keys.secretKey}`];
  return (await run('curl', [...signing, ...args], { encoding: 'buffer', maxBuffer: 64 << 20 })).stdout;
}

async function untilProven(bucket: string, objects: number): Promise<void> {
  for (const deadline = performance.now() + 180_000; ; ) {
    const row = (await network.json('s3', 'status')).items.find(({ name }: { name: string }) => name === bucket);
    if (row?.proven === objects) return;
    if (performance.now() > deadline) throw new TypeError(`not proven: ${JSON.stringify(row)}`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

before(async () => {
  ({ rpcUrl } = await network.json('up', '--detach'));
  const manifest = join(network.home, 'data', 'dev', 'network.json');
  for (const who of [friend, stranger, laptop]) await who.json('--rpc-url', rpcUrl, 'join', manifest);
  for (const who of [friend, stranger]) await who.json('wallet', 'create');
  mkdirSync(join(root, 'album', 'sub'), { recursive: true });
  writeFileSync(join(root, 'album', 'photo.bin'), photo);
  writeFileSync(join(root, 'album', 'sub', 'page.html'), page);
});
after(async () => {
  for (const child of started) await end(child, 'SIGTERM');
  await network.remove();
  rmSync(root, { recursive: true, force: true });
});

test('a folder shared with a friend opens with one command, for nobody else, and not when a letter of the grant is changed', async () => {
  const { cid } = await network.json('put', join(root, 'album'), '--copies', '2');
  const { sharingKey } = await friend.json('wallet', 'show');
  const { grant } = await network.json('share', cid, '--to', sharingKey);
  await friend.json('open', grant, '-o', join(root, 'opened'));
  assert.deepEqual(readFileSync(join(root, 'opened', 'photo.bin')), photo);
  assert.deepEqual(readFileSync(join(root, 'opened', 'sub', 'page.html')), page);
  writeFileSync(join(root, 'letter'), `${grant}\n`);
  await friend.json('open', join(root, 'letter'), '-o', join(root, 'opened again'));
  assert.equal(await stranger.codeOf('open', grant, '-o', join(root, 'stolen')), 'grant-not-yours');
  assert.equal(await stranger.codeOf('open', cid, '-o', join(root, 'stolen')), 'no-key');
  const at = 40;
  const changed = grant.slice(0, at) + (grant[at] === 'a' ? 'b' : 'a') + grant.slice(at + 1);
  assert.match(await friend.codeOf('open', changed, '-o', join(root, 'stolen')), /^(grant-not-yours|bad-grant|no-holders)$/);
  assert.equal(await network.run('link', cid, '--json').then(({ stderr }) => JSON.parse(stderr).code), 'content-sealed');
});

test('a link to public content works without a wallet, in ranges, and cannot run scripts; the local gateway verifies the same bytes', async () => {
  const { cid } = await network.json('put', join(root, 'album'), '--public');
  const { items } = await network.json('link', cid);
  const { said, child } = await stay('gateway', '--port', '0');
  for (const base of [items[0].url as string, `${said.url}/ipfs/${cid}`]) {
    const list = await fetch(base);
    assert.match(await list.text(), /<a href="\.\/photo\.bin">photo\.bin<\/a>/);
    const shown = await fetch(`${base}/sub/page.html`);
    assert.equal(shown.headers.get('content-type'), 'text/html; charset=utf-8');
    assert.match(shown.headers.get('content-security-policy') ?? '', /^sandbox; default-src 'none'/);
    assert.deepEqual(Buffer.from(await shown.arrayBuffer()), page);
    const part = await fetch(`${base}/photo.bin`, { headers: { range: 'bytes=1999990-2000009' } });
    assert.equal(part.status, 206);
    assert.deepEqual(Buffer.from(await part.arrayBuffer()), photo.subarray(1_999_990, 2_000_010));
    const etag = part.headers.get('etag') as string;
    assert.equal((await fetch(`${base}/photo.bin`, { headers: { 'if-none-match': etag } })).status, 304);
    assert.deepEqual((await run('curl', ['-sSL', `${base}/photo.bin`], { encoding: 'buffer', maxBuffer: 64 << 20 })).stdout, photo);
    assert.equal((await fetch(`${base}/nothing`)).status, 404);
  }
  await friend.json('open', `${items[0].url}/photo.bin`, '-o', join(root, 'from link'));
  assert.deepEqual(readFileSync(join(root, 'from link')), photo);
  await end(child, 'SIGTERM');
});

test('a stock S3 client does its everyday work: buckets, objects, listings, multipart, copies, presigned URLs, errors', async (context) => {
  const found = await run('python3', ['-c', 'import boto3']).then(
    () => true,
    () => false,
  );
  if (!found) return context.skip(`${FOREIGN}boto3 is not installed for python3`);
  const { said, child } = await stay('s3', '--port', '0');
  const { accessKey, secretKey } = await network.json('s3', 'keys');
  const env = {
    ...process.env,
    AWS_ACCESS_KEY_ID: accessKey,
    AWS_SECRET_ACCESS_KEY: secretKey,
    AWS_DEFAULT_REGION: 'us-east-1',
    AWS_EC2_METADATA_DISABLED: 'true',
  };
  const script = new URL('../foreign/s3-client/everyday.py', import.meta.url).pathname;
  try {
    const { stdout } = await run('python3', [script, said.endpoint, 'everyday'], { env, timeout: 120_000 });
    assert.equal(stdout.trim(), 'ok');
  } finally {
    await end(child, 'SIGTERM');
  }
});

test('what an endpoint acknowledged outlives kill -9, goes to the network, and comes back on another machine by keystore and CID', async () => {
  const first = await stay('s3', '--port', '0', '--pack-every', '1s');
  const keys = await network.json('s3', 'keys');
  const url = `${first.said.endpoint}/box`;
  await curl(keys, '-X', 'PUT', url);
  const files = new Map<string, Buffer>(Array.from({ length: 20 }, (_, i) => [`small/${i}.txt`, randomBytes(1000 + i)]));
  files.set('large.bin', randomBytes(9_000_000));
  for (const [key, bytes] of files) {
    writeFileSync(join(root, 'upload'), bytes);
    await curl(keys, '-T', join(root, 'upload'), '-H', 'x-amz-content-sha256: UNSIGNED-PAYLOAD', `${url}/${key}`);
  }
  await end(first.child, 'SIGKILL');

  const second = await stay('s3', '--port', '0', '--pack-every', '1s');
  for (const [key, bytes] of files) assert.deepEqual(await curl(keys, `${second.said.endpoint}/box/${key}`), bytes);
  await untilProven('box', files.size);
  const head = await run('curl', [
    '-sS',
    '--head',
    '--aws-sigv4',
    'aws:amz:us-east-1:s3',
    '--user',
    `${keys.accessKey}:${keys.secretKey}`,
    `${second.said.endpoint}/box/large.bin`,
  ]);
  assert.match(head.stdout, /x-millrace-state: proven\r\n/);
  assert.match(
    head.stdout,
    new RegExp(
      `etag: "${createHash('md5')
        .update(files.get('large.bin') as Buffer)
        .digest('hex')}"`,
    ),
  );
  for (const [key, bytes] of files) assert.deepEqual(await curl(keys, `${second.said.endpoint}/box/${key}`), bytes, 'from the network');
  const range = await curl(keys, '-r', '4999990-5000009', `${second.said.endpoint}/box/large.bin`);
  assert.deepEqual(range, files.get('large.bin')?.subarray(4_999_990, 5_000_010));
  await end(second.child, 'SIGTERM');
  const { items } = await network.json('s3', 'status');
  const total = items.reduce((sum: number, row: { objects: number }) => sum + row.objects, 0);
  const { cid, objects, left } = await network.json('s3', 'export');
  assert.deepEqual({ objects, left }, { objects: total, left: 0 });

  // The same wallet on another machine: here the development key of profile dev, in an empty data folder.
  const other = join(root, 'other');
  mkdirSync(join(other, 'dev'), { recursive: true });
  cpSync(join(network.home, 'data', 'dev', 'network.json'), join(other, 'dev', 'network.json'));
  const env = {
    PATH: process.env.PATH,
    NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
    HOME: other,
    MILLRACE_HOME: other,
    MILLRACE_RPC_URL: rpcUrl,
  };
  const restored = await run(process.execPath, [MAIN, '--json', 's3', 'restore', cid], { env });
  assert.deepEqual(JSON.parse(restored.stdout), { buckets: items.length, objects: total });
  const child = spawn(process.execPath, [MAIN, '--json', 's3', '--port', '0'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  started.push(child);
  const said = (await laptop.ready(child)) as { endpoint: string; accessKey: string; secretKey: string };
  for (const [key, bytes] of files) assert.deepEqual(await curl(said, `${said.endpoint}/box/${key}`), bytes);
});
