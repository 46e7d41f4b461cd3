import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { adoptProcess, identifyProcess, isRunning, startProcess, stopProcess } from './index.ts';

const READY = `console.log(JSON.stringify({ ready: true, port: 7 })); setInterval(() => {}, 1000);`;
const STUBBORN = `process.on('SIGTERM', () => {}); ${READY}`;

function optionsFor(script: string, extra: object = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-child-'));
  return {
    name: 'sample',
    command: process.execPath,
    args: ['-e', script],
    env: { PATH: process.env.PATH },
    logFile: join(folder, 'log', 'sample.log'),
    recordFolder: folder,
    readyTimeoutMs: 20_000,
    ...extra,
  };
}

test('a process is started, says that it is ready, and is stopped with its record', async () => {
  const options = optionsFor(READY);
  const started = await startProcess(options);
  assert.deepEqual(started.ready, { ready: true, port: 7 });
  assert.ok(isRunning(started.identity));
  await started.stop();
  assert.ok(!isRunning(started.identity));
  assert.ok(!existsSync(join(options.recordFolder, 'sample.json')));
});

test('a process that ignores SIGTERM is killed after its grace', async () => {
  const { identity } = await startProcess(optionsFor(STUBBORN));
  await stopProcess(identity, { graceMs: 200 });
  assert.ok(!isRunning(identity));
});

test('a process whose starter was killed is adopted with what it said, and stopped', async () => {
  const options = optionsFor(READY);
  const starter = `import { startProcess } from '${new URL('./index.ts', import.meta.url)}'; await startProcess(${JSON.stringify(options)}); console.log('up'); setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', starter], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(parent.stdout, 'data');
  parent.kill('SIGKILL');
  await once(parent, 'exit');
  const adopted = adoptProcess(options);
  assert.ok(adopted !== undefined);
  assert.deepEqual(adopted.ready, { ready: true, port: 7 });
  await adopted.stop();
  await adopted.exited;
  assert.equal(adoptProcess(options), undefined);
});

test('a stranger that got the id of a recorded process is neither adopted nor signalled', async () => {
  const options = optionsFor('');
  const stranger = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  const pid = stranger.pid as number;
  const earlier = { pid, startTime: 'another boot:1' };
  writeFileSync(join(options.recordFolder, 'sample.json'), JSON.stringify({ identity: earlier }));
  assert.equal(adoptProcess(options), undefined);
  await stopProcess(earlier, { graceMs: 0 });
  assert.ok(identifyProcess(pid) !== undefined);
  stranger.kill('SIGKILL');
  await once(stranger, 'exit');
  assert.equal(identifyProcess(pid), undefined);
});

test('a process that ends before it is ready is an error with the end of its log', async () => {
  const options = optionsFor(`console.error('no room'); process.exit(3)`);
  await assert.rejects(startProcess(options), {
    code: 'process-start-failed',
    values: { name: 'sample', command: process.execPath, exitCode: 3, logFile: options.logFile, logTail: 'no room' },
  });
  await assert.rejects(startProcess({ ...options, command: '/nowhere/at-all' }), { code: 'process-start-failed' });
});

test('what is written to standard input arrives, and the environment is only what was given', async () => {
  const options = optionsFor(
    `let text=''; process.stdin.on('data', (d) => text += d).on('end', () => { console.log(JSON.stringify({ text, names: Object.keys(process.env).sort() })); setInterval(() => {}, 1000) })`,
    { input: 'hello' },
  );
  const started = await startProcess(options);
  assert.deepEqual(started.ready, { text: 'hello', names: ['PATH'] });
  await started.stop();
  assert.equal(readFileSync(options.logFile, 'utf8'), '');
});
