import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { root } from '../../test/suite.ts';
import { ECHO } from './loopback.cases.ts';
import { ownerIsGone } from './owner-tag.ts';
import { SandboxExecutor } from './sandbox-executor.ts';

/** A user without any right, of a number that nobody has. */
const UID = 1_890_000_000 + (process.pid % 1_000_000);
const LIMITS = { memoryBytes: 32 << 20, cpus: 1, processes: 16, diskBytes: 1 << 20, wallSeconds: 20, outputBytes: 10_000 };
const isRoot = process.getuid?.() === 0;
const folder = mkdtempSync(join(tmpdir(), 'millrace-user-test-'));
chmodSync(folder, 0o711);
after(() => rmSync(folder, { recursive: true, force: true }));

interface Told {
  report?: { takesForeign: boolean; missing: { what: string; fix: string }[] };
  result?: { reason: string; exitCode: number; usage: { memoryBytesPeak?: number } };
  error?: { code: string; actor: string; hint: string };
  said?: string;
}

/** Runs `test/executor-child.ts`, as root under another user: the installation is mounted where that user can reach it. */
async function tell(...args: string[]): Promise<Told> {
  const home = mkdtempSync(join(folder, 'home-'));
  if (isRoot) chownSync(home, UID, UID);
  const place = mkdtempSync(join(tmpdir(), 'millrace-user-mount-'));
  const script = `mount --bind "$1" "$2"; exec setpriv --reuid ${UID} --regid ${UID} --clear-groups -- "$3" "$2/test/executor-child.ts" "$4" "$5" "$6"`;
  const node = process.execPath.startsWith(root) ? process.execPath.replace(root, place) : process.execPath;
  const command = isRoot
    ? ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', script, 'sh', root, place, node]
    : [process.execPath, join(root, 'test/executor-child.ts')];
  const child = spawn(command[0] as string, [...command.slice(1), ...args], {
    env: { PATH: process.env.PATH, HOME: home, TMPDIR: home },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const told = JSON.parse(await firstLine(child)) as Told;
  await new Promise((resolve) => (child.exitCode === null ? child.once('exit', resolve) : resolve(undefined)));
  rmdirSync(place);
  return told;
}

const firstLine = (child: ChildProcess) =>
  new Promise<string>((resolve, reject) => {
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    lines.once('line', resolve).once('close', () => reject(new assert.AssertionError({ message: 'it said nothing' })));
  });

test('an ordinary user without control groups takes jobs of its own and refuses those of strangers, and is told how to mend it', async () => {
  const refused = await tell('once', 'id -u', 'foreign');
  if (!isRoot && refused.error === undefined) return;
  assert.equal(refused.error?.code, 'foreign-job-refused');
  assert.equal(refused.error.actor, 'host');
  assert.match(refused.error.hint, /Delegate=yes/);
  const own = await tell('once', 'id -u; cat /proc/self/status | head -c 1 >/output/x', 'own');
  assert.deepEqual([own.result?.reason, own.said], ['completed', '1000\n']);
});

test('an ordinary user to whom root gave control groups runs jobs of strangers within every limit', async (context) => {
  const controllers = ['memory', 'pids', 'cpu', 'cpuacct'].map((name) => `/sys/fs/cgroup/${name}`);
  if (!isRoot || !controllers.every((path) => existsSync(path))) {
    return context.diagnostic('only root gives groups away, and only those of version 1 can be entered from outside');
  }
  const groups = controllers.map((path) => join(path, `millrace-${UID}`));
  for (const group of groups) {
    mkdirSync(group);
    chownSync(group, UID, UID);
  }
  try {
    const { report, result, said } = await tell('once', 'id -u; ls /root /home 2>&1; cat /proc/self/uid_map');
    assert.equal(report?.takesForeign, true);
    assert.equal(result?.reason, 'completed');
    assert.match(said ?? '', /^1000\n(ls: .*\n)+ +1000 +0 +1\n$/, 'no folder of the user is seen');
    const hog = await tell('once', 'head -c 900000 /dev/zero >/tmp/a; exec perl -e \'my @a; push @a, "x" x 1000000 while 1\'');
    assert.equal(hog.result?.reason, 'memory-exceeded');
    const fill = await tell('once', 'head -c 3000000 /dev/zero | split -b 500000 - /output/part');
    assert.equal(fill.result?.reason, 'disk-exceeded');
  } finally {
    for (const group of groups) rmdirSync(group);
  }
});

test('an ordinary user reaches what listens in its own sandbox', async () => {
  const told = await tell('connect', `exec perl -e '${ECHO}' 7001`, 'own');
  assert.deepEqual([told.result?.reason, told.said], ['cancelled', 'user'], told.error?.code);
});

test('when its node is killed a job ends, and the next node sweeps what was left', async () => {
  const child = spawn(
    process.execPath,
    [join(root, 'test/executor-child.ts'), 'forever', 'echo up; sleep 600', isRoot ? 'foreign' : 'own'],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  assert.equal(JSON.parse(await firstLine(child)).said, 'up\n');
  child.kill('SIGKILL');
  await new Promise((resolve) => child.once('exit', resolve));
  const left = () =>
    [tmpdir(), '/sys/fs/cgroup/memory/millrace', '/sys/fs/cgroup/millrace']
      .filter((path) => existsSync(path))
      .flatMap((path) => readdirSync(path).filter((name) => name.includes(`job-${child.pid}-`)));
  const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
  const run = async () => await executor.run({ argv: ['/bin/true'], limits: LIMITS, trust: 'own' });
  assert.equal((await run()).reason, 'completed');
  await executor.close();
  assert.ok(left().every((name) => ownerIsGone(name.replace('millrace-', ''))));
  const second = new SandboxExecutor({ imageFolder: join(folder, 'images') });
  assert.equal((await second.run({ argv: ['/bin/true'], limits: LIMITS, trust: 'own' })).reason, 'completed');
  await second.close();
  assert.deepEqual(left(), []);
});

test('a job has three descriptors, whatever its node was started with', async () => {
  const open = openSync('/etc/hostname', 'r');
  const child = spawn(process.execPath, [join(root, 'test/executor-child.ts'), 'once', 'ls /proc/self/fd', 'own'], {
    stdio: ['ignore', 'pipe', 'inherit', open, open, open, open, open, open, open, open, open, open],
  });
  assert.deepEqual((JSON.parse(await firstLine(child)) as Told).said?.split('\n').slice(0, -2), ['0', '1', '2']);
});
