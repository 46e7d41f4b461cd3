import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import type { MillraceError } from '../errors.ts';
import { silentLogger } from '../log.ts';
import { keepRunning, type RunningPart } from './part.ts';

const start = async (): Promise<RunningPart> => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  return {
    pid: child.pid as number,
    exited,
    async stop() {
      child.kill('SIGTERM');
      await exited;
    },
  };
};
const until = async (condition: () => boolean) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
};

test('a part that is killed is started again, and a stopped one is not', async () => {
  const part = await keepRunning({ name: 'sleeper', start, log: silentLogger });
  const first = part.pid() as number;
  process.kill(first, 'SIGKILL');
  await until(() => part.state() === 'running' && part.pid() !== first);
  assert.equal(part.restarts(), 1);
  const second = part.pid() as number;
  await part.stop();
  assert.equal(part.state(), 'stopped');
  assert.throws(() => process.kill(second, 0));
});

test('a restart on demand gives a new process', async () => {
  const part = await keepRunning({ name: 'sleeper', start, log: silentLogger });
  const first = part.pid();
  await part.restart();
  assert.notEqual(part.pid(), first);
  assert.equal(part.state(), 'running');
  await part.stop();
});

test('a part whose start fails later is tried again until it starts', async () => {
  let fails = 0;
  let starts = 0;
  const part = await keepRunning({
    name: 'flaky',
    log: silentLogger,
    async start() {
      starts += 1;
      if (starts === 2) {
        fails += 1;
        throw new TypeError('not today');
      }
      return start();
    },
  });
  process.kill(part.pid() as number, 'SIGKILL');
  await until(() => starts >= 3 && part.state() === 'running');
  assert.equal(fails, 1);
  await part.stop();
});

test('the first start’s error reaches the caller', async () => {
  const start = async (): Promise<RunningPart> => {
    throw new TypeError('no binary');
  };
  await assert.rejects(keepRunning({ name: 'none', start, log: silentLogger }), /no binary/);
});

test('a restart of a part that does not start again ends with an error that names it and its log', async () => {
  let isBroken = false;
  const part = await keepRunning({
    name: 'broken',
    log: silentLogger,
    logFile: '/var/log/broken.log',
    restartWithinMs: 300,
    async start() {
      if (isBroken) throw new TypeError('a file is damaged');
      return start();
    },
  });
  isBroken = true;
  await assert.rejects(part.restart(), (error: MillraceError) => {
    assert.equal(error.code, 'part-not-started');
    assert.deepEqual(error.values, { part: 'broken', logFile: '/var/log/broken.log', reason: 'TypeError: a file is damaged' });
    return true;
  });
  // It is tried on, and starts when it can.
  isBroken = false;
  await until(() => part.state() === 'running');
  await part.stop();
});
