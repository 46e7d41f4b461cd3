import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ECHO } from '../../src/host/loopback.cases.ts';
import { makeRootArchive } from '../../src/host/root-file-system.cases.ts';
import { localNetwork } from './local-network.ts';

const PATIENCE_MS = 240_000;
const NOBODY = 1_000_000;

const network = localNetwork();
const data = join(network.home, 'data', 'dev');

before(async () => {
  await network.json('up', '--with', 'storage,compute', '--nodes', '4', '--detach');
  const client = await network.client();
  await until('three machines on offer, and seats of four probers', async () => {
    const { items } = await network.json('offers');
    const isReady = items.filter(({ document }: { document?: unknown }) => document !== undefined).length >= 3;
    return isReady && (await client.read('leaseProbers', 'seatCount')) >= 4n ? true : undefined;
  });
});
after(async () => {
  killAgent();
  await network.remove();
});

async function until<Found>(what: string, look: () => Promise<Found | undefined> | Found | undefined): Promise<Found> {
  for (const deadline = performance.now() + PATIENCE_MS; performance.now() < deadline; ) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  return assert.fail(`waited for ${PATIENCE_MS / 1000} s: ${what}`);
}

/** Ends the process that speaks for the renter: from now on the renter is silent. */
function killAgent(): void {
  const note = join(data, 'client', 'rent-agent', 'lock.pid');
  const pid = existsSync(note) ? Number(readFileSync(note, 'utf8')) : NOBODY;
  try {
    if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('rent-agent')) process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

/** The process of an operator's node. */
async function nodeOf(operatorId: string): Promise<{ pid: number; name: string }> {
  const { processes, nodes } = await network.json('status');
  const { index } = nodes.find((node: { operatorId: string }) => node.operatorId === operatorId);
  const name = `node-${index}`;
  return { name, pid: processes.find((each: { name: string }) => each.name === name).pid };
}

async function rent(...options: string[]): Promise<{ rentalId: string; operatorId: string; until: string }> {
  const { items } = await network.json('rent', ...options);
  return items[0];
}

/** Brings port 7001 of a rental here until it echoed, then ends that with Ctrl-C. */
async function forwardEcho(rentalId: string): Promise<void> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  let isDone = false;
  const forwarding = network.runWith({ interruptWhen: () => isDone }, '--json', 'forward', rentalId, `${port}:7001`);
  const echo = async () => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => {});
    socket.end('over and back');
    let heard = '';
    for await (const bytes of socket) heard += String(bytes);
    return heard;
  };
  await until('the port answers here', async () => ((await echo().catch(() => '')) === 'over and back' ? true : undefined));
  isDone = true;
  const { code, stdout, stderr } = await forwarding;
  assert.equal(code, 0, stderr);
  assert.deepEqual(JSON.parse(stdout).items, [{ port: 7001, address: '127.0.0.1', localPort: port }]);
}

test('a machine is offered, rented, worked on, copied to and from; probers speak when the renter falls silent', async () => {
  const client = await network.client();
  const { rentalId } = await rent('--hours', '0.2', '--', 'sh', '-c', 'echo it began; exec perl -e "$0" 7001', ECHO);
  const failing = await network.run('exec', rentalId, '--', 'sh', '-c', 'echo out; echo err >&2; exit 7');
  assert.deepEqual([failing.code, failing.stdout], [7, 'out\n']);
  assert.match(failing.stderr, /err\n$/);
  const folder = join(network.home, 'work');
  mkdirSync(join(folder, 'deep'), { recursive: true });
  writeFileSync(join(folder, 'deep', 'numbers'), '3\n1\n2\n');
  await network.text('cp', folder, `${rentalId}:/tmp/work`);
  await network.text('exec', rentalId, '--', 'sh', '-c', 'sort /tmp/work/deep/numbers > /tmp/work/sorted');
  await network.text('cp', `${rentalId}:/tmp/work/sorted`, network.home);
  assert.equal(readFileSync(join(network.home, 'sorted'), 'utf8'), '1\n2\n3\n');
  assert.match(await network.text('logs', rentalId), /it began/);
  await forwardEcho(rentalId);
  const wrong = await network.run('--json', 'exec', '999', '--', 'true');
  assert.equal(JSON.parse(wrong.stderr).code, 'rental-unknown');

  killAgent();
  const found = await until('a panel has found the silent renter’s machine up', async () => {
    const events = await client.events({ name: 'leaseProbers', event: 'PanelFound', args: { leaseId: BigInt(rentalId) } });
    return events.find(({ args }) => args.up !== 0n);
  });
  const probers = await client.read('computeMarket', 'statementOf', [BigInt(rentalId), 2, 0]);
  assert.equal(probers.up & found.args.up, found.args.up);
});

test('a supplier that is killed comes back; one that is gone for long is not paid for it, and its stake compensates the renter', async () => {
  const client = await network.client();
  const { rentalId, operatorId } = await rent('--hours', '0.2');
  const first = await nodeOf(operatorId);
  process.kill(first.pid, 'SIGKILL');
  await until('the rental works again', async () => {
    const { code, stdout } = await network.run('exec', rentalId, '--', 'echo', 'back');
    return code === 0 && stdout === 'back\n' ? true : undefined;
  });
  const { pid } = await nodeOf(operatorId);
  assert.notEqual(pid, first.pid);
  process.kill(pid, 'SIGSTOP');
  try {
    await client.waitForTime((await client.now()) + 75n);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  await until('more than may be down without loss (5 % of 720 s) is down on chain', async () => {
    const [, down] = await client.read('computeMarket', 'recordOf', [BigInt(rentalId)]);
    return down > 36n ? down : undefined;
  });
  const { until: ends } = await network.json('end-lease', rentalId);
  await client.waitForTime(BigInt(ends) + 20n);
  await network.text('dev', 'warp', '2m');
  const rental = await until('the rental is closed', async () => {
    const { items } = await network.json('rentals', '--all');
    return items.find((item: { rentalId: string; state: string }) => item.rentalId === rentalId && item.state === 'closed');
  });
  assert.ok(BigInt(rental.returned) > 0n);
  assert.ok(BigInt(rental.compensation) > 0n);
  const [freed] = await client.events({ name: 'computeMarket', event: 'CollateralFreed', args: { leaseId: BigInt(rentalId) } });
  assert.equal(freed?.args.compensation, (freed?.args.slashed as bigint) / 2n);
  const { name } = await nodeOf(operatorId);
  const left = join(data, 'nodes', name.replace('node-', ''), 'compute', 'leases', 'rentals', rentalId);
  assert.deepEqual(existsSync(left) ? readdirSync(left) : [], []);
});

const SDL = (image: string, count = 1) => `version: "2.0"
services:
  web:
    image: ${image}
    command: [/bin/sh, -c, 'echo the web; sleep 1000']
    dependencies: [{service: database}]
    expose: [{port: 80, to: [{global: true}]}]
  database:
    image: ${image}
    command: [/bin/sh, -c, 'echo the database; sleep 1000']
profiles:
  compute: {small: {resources: {cpu: {units: 0.1}, memory: {size: 64Mi}, storage: {size: 64Mi}}}}
  placement: {anywhere: {pricing: {small: {denom: uact, amount: 100}}}}
deployment:
  web: {anywhere: {profile: small, count: ${count}}}
  database: {anywhere: {profile: small, count: 1}}
`;

test('a document of two services is rented as a whole, each in its image out of the storage network; what cannot be is refused with its place', async () => {
  const file = join(network.home, 'shop.sdl');
  const rentFile = async (text: string) => {
    writeFileSync(file, text);
    return await network.run('--json', 'rent', file, '--hours', '0.2');
  };
  const archive = makeRootArchive(network.home);
  const cid = await until('the image is in the storage network', async () => {
    const put = await network.run('--json', 'put', '--public', archive);
    return put.code === 0 ? (JSON.parse(put.stdout).cid as string) : undefined;
  });
  const before = (await network.json('rentals', '--all')).items.length;
  const unknown = JSON.parse((await rentFile(SDL('nginx:1.25'))).stderr);
  assert.deepEqual([unknown.code, unknown.values.line, unknown.values.field], ['spec-unsupported', 9, 'services.database.image']);
  const many = JSON.parse((await rentFile(SDL(cid, 9))).stderr);
  assert.deepEqual([many.code, many.values.workload], ['no-devices', 'web']);
  assert.equal((await network.json('rentals', '--all')).items.length, before, 'nothing was rented');
  const rented = await rentFile(SDL(cid));
  assert.equal(rented.code, 0, rented.stderr);
  const { items } = JSON.parse(rented.stdout);
  assert.deepEqual(
    items.map(({ workload }: { workload: string }) => workload),
    ['database', 'web'],
  );
  const { rentalId, forward } = items[1];
  assert.equal(forward, `millrace forward ${rentalId} 8080:80`);
  await until('its command runs', async () => ((await network.text('logs', rentalId)).includes('the web') ? true : undefined));
  const inside = await network.text('exec', rentalId, '--', '/bin/ls', '/usr/bin');
  assert.deepEqual([inside.includes('perl'), inside.includes('env')], [true, false]);
});

test('a queue over two machines, of which one is killed and the command broken off, gives each piece of work one result', async () => {
  const { items: before } = await network.json('rentals');
  for (const { rentalId } of before) await network.run('end-lease', rentalId);
  const { items: rented } = await network.json('rent', '--count', '2', '--hours', '0.3');
  const [folder, file] = [join(network.home, 'sweep'), join(network.home, 'sweep.yaml')];
  const command = `[/bin/sh, -c, 'sleep 3; cat "$QUEUE_INPUT/base"; echo $QUEUE_INDEX; echo $QUEUE_WORK > "$QUEUE_OUTPUT/name"']`;
  const work = `{name: step, command: ${command}, repeat: 24, cpus: 0.1, memory: 16MiB, outputs: true}`;
  writeFileSync(file, `queue: 1\nname: sweep\ninput: base\nwork:\n  - ${work}\n`);
  mkdirSync(join(network.home, 'base'));
  writeFileSync(join(network.home, 'base', 'base'), 'from base ');
  const resultOf = (index: number) => join(folder, `step-${index}`, 'result.json');
  const done = () => Array.from({ length: 24 }, (_, index) => index + 1).filter((index) => existsSync(resultOf(index))).length;
  const on = rented.map(({ rentalId }: { rentalId: string }) => rentalId).join(',');
  // Looked up before: the command goes on meanwhile.
  const { pid } = await nodeOf(rented[0].operatorId);
  let doneAtKill = Number.POSITIVE_INFINITY;
  const words = ['--json', 'queue', file, '--on', on, '--output', folder];
  const broken = network.runWith({ interruptWhen: () => done() >= doneAtKill + 4 }, ...words);
  await until('the first are done', () => (done() >= 2 ? true : undefined));
  process.kill(pid, 'SIGKILL');
  doneAtKill = done();
  const [first, second] = [await broken, await network.run(...words)];
  assert.deepEqual([first.code, second.code], [130, 0], second.stderr);
  const eventsOf = ({ stdout }: { stdout: string }) =>
    stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string; machine?: string; work?: string; items?: { isDone: boolean }[] });
  const all = [...eventsOf(first), ...eventsOf(second)];
  assert.ok(
    all.some(({ event, machine }) => event === 'machine-lost' && machine === rented[0].rentalId),
    'the killed machine was lost',
  );
  const ended = all.filter(({ event }) => event === 'work-ended').map(({ work: id }) => id);
  assert.deepEqual([ended.length, new Set(ended).size], [24, 24], 'each ended once, in one of the two commands');
  assert.ok(all.at(-1)?.items?.every(({ isDone }) => isDone));
  for (let index = 1; index <= 24; index += 1) {
    assert.equal(readFileSync(join(folder, `step-${index}`, 'stdout'), 'utf8'), `from base ${index}\n`);
    assert.equal(readFileSync(join(folder, `step-${index}`, 'files', 'name'), 'utf8'), `step-${index}\n`);
  }
});
