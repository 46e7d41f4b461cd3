import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { SandboxExecutor } from '../../host/index.ts';
import { readAtMost } from '../../read-at-most.ts';
import { runStream } from './run-stream.ts';
import { openWorkspace, type Workspace, type WorkspaceCommand } from './workspace.ts';

const LIMITS = { memoryBytes: 64 << 20, cpus: 1, processes: 32, diskBytes: 8 << 20, wallSeconds: 120 };
const folder = mkdtempSync(join(tmpdir(), 'millrace-workspace-'));
const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
let reason: string | undefined;
let workspace: Workspace;

before(async () => {
  const report = await executor.inspect();
  if (!report.takesForeign) reason = `no sandbox for strangers here: ${report.missing.map(({ what }) => what).join('; ')}`;
  else workspace = await openWorkspace({ executor, limits: LIMITS, folder: join(folder, 'one') });
});

after(async () => {
  await workspace?.close();
  await executor.close();
  rmSync(folder, { recursive: true, force: true });
});

async function go(command: WorkspaceCommand, input?: string): Promise<{ code: number | undefined; out: string; err: string }> {
  const run = await workspace.run(command);
  if (input !== undefined) await run.stdin.write(Buffer.from(input));
  run.stdin.end();
  const [out, err, code] = await Promise.all([readAtMost(run.stdout, 1 << 24), readAtMost(run.stderr, 1 << 20), run.ended]);
  return { code, out: out.toString(), err: err.toString() };
}

const sh = (text: string, input?: string) => go({ argv: ['/bin/sh', '-c', text] }, input);

test('a command has both streams, an input, an exit code, an environment and a place', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  assert.deepEqual(await sh('echo out; echo err >&2; exit 3'), { code: 3, out: 'out\n', err: 'err\n' });
  assert.deepEqual(await sh('cat', "it's\nall"), { code: 0, out: "it's\nall", err: '' });
  const placed = await go({ argv: ['/bin/sh', '-c', 'echo "$A"; pwd'], env: { A: `it's "$HOME"` }, cwd: '/output' });
  assert.equal(placed.out, `it's "$HOME"\n/output\n`);
  assert.equal((await go({ argv: ['no-such-program'] })).code, 127);
  assert.equal((await sh('head -c 3000000 /dev/zero')).out.length, 3_000_000);
});

test('what one command writes the next one reads', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  await sh('echo kept > /tmp/file; (sleep 60 >/dev/null 2>&1 &)');
  assert.equal((await sh('cat /tmp/file; ps ax | grep -c "[s]leep 60"')).out, 'kept\n1\n');
});

test('a signal reaches a command and what it started', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const run = await workspace.run({ argv: ['/bin/sh', '-c', 'sleep 61 & echo ready; wait'] });
  run.stderr.resume();
  await new Promise((resolve) => run.stdout.once('data', resolve));
  await run.signal('TERM');
  assert.equal(await run.ended, 143);
  assert.equal((await sh('ps ax | grep -c "[s]leep 61"')).out, '0\n');
  await assert.rejects(run.signal('x; reboot'), { code: 'bad-command' });
});

test('a command whose caller goes away before its answer begins is hung up; one whose caller stays runs on', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const [gone, stays] = [new AbortController(), new AbortController()];
  const silence = async function* (signal: AbortSignal) {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    yield* [];
  };
  const left = await workspace.run({ argv: ['sleep', '300'] });
  const kept = await workspace.run({ argv: ['/bin/sh', '-c', 'sleep 1; exit 7'] });
  const [, frames] = [left, kept].map((run, at) => {
    const { signal } = at === 0 ? gone : stays;
    return runStream(run, silence(signal), signal);
  });
  gone.abort();
  assert.equal(await left.ended, 129);
  for await (const frame of frames as AsyncGenerator<Uint8Array>) assert.ok(frame.length > 0);
  assert.equal(await kept.ended, 7);
});

test('an interrupt reaches a command, which may do with it what it likes', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const run = await workspace.run({ argv: ['/bin/sh', '-c', 'trap "echo heard; exit 5" INT; echo ready; sleep 64 & wait'] });
  run.stderr.resume();
  let said = '';
  await new Promise<void>((resolve) => {
    run.stdout.on('data', (bytes: Buffer) => {
      said += bytes.toString();
      resolve();
    });
  });
  await run.signal('INT');
  assert.equal(await run.ended, 5);
  assert.match(said, /^ready\n/);
});

test('a command may have a terminal', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const { out } = await go({ argv: ['tty'], tty: true });
  assert.match(out, /^\/dev\/pts\/\d+\r\n$/);
});

test('commands that cannot be are refused', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  for (const command of [
    { argv: [] },
    { argv: [''] },
    { argv: ['a\0b'] },
    { argv: ['x'.repeat(70_000)] },
    { argv: ['a'], env: { 'A=B': '' } },
  ]) {
    await assert.rejects(workspace.run(command), { code: 'bad-command' });
  }
});

test('all limits hold for all commands together, and a fork bomb in one leaves the workspace answering', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const { code } = await sh('dd if=/dev/zero of=/tmp/big bs=1M count=64; code=$?; rm -f /tmp/big; exit $code');
  assert.notEqual(code, 0); // eight mebibytes of disk
  const bomb = await workspace.run({ argv: ['/bin/sh', '-c', 'b() { b | b & }; b'] });
  bomb.stdout.resume();
  bomb.stderr.resume();
  await bomb.signal('KILL');
  assert.equal(await workspace.answers(20_000), true);
});

test('a renter that kills its own agent ends its workspace, and nothing is left of it', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  const own = await openWorkspace({ executor, limits: LIMITS, folder: join(folder, 'two') });
  const run = await own.run({ argv: ['/bin/sh', '-c', 'sleep 62 & kill -9 -1'] });
  run.stdout.resume();
  run.stderr.resume();
  assert.equal(await run.ended, undefined);
  await own.ended;
  await own.close();
  await assert.rejects(own.run({ argv: ['true'] }), { code: 'workspace-ended' });
  assert.equal(existsSync(join(folder, 'two')), false);
  assert.equal(execFileSync('/bin/sh', ['-c', 'ps ax | grep -c "[s]leep 62" || true']).toString(), '0\n');
});

test('a command that ends leaves no pipes behind', async (context) => {
  if (reason !== undefined) return context.skip(reason);
  await sh('true');
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(readdirSync(join(folder, 'one', 'runs')).length <= 2);
});
