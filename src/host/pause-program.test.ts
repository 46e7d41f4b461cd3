import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pauseImage, pauseProgram } from './pause-program.ts';

test('the program that holds a network waits, uses no time, and ends when it is killed; its image is a tar archive of it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-pause-'));
  try {
    writeFileSync(join(folder, 'image.tar'), pauseImage());
    execFileSync('tar', ['-C', folder, '-xf', join(folder, 'image.tar')]);
    const child = spawn(join(folder, 'pause'), { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)));
    await sleep(100);
    assert.deepEqual([child.exitCode, child.signalCode], [null, null]);
    child.kill('SIGKILL');
    assert.equal(await ended, 'SIGKILL');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('it is there for both kinds of processors that engines run on, and refused by name for others', () => {
  for (const architecture of ['x64', 'arm64'] as const) assert.ok(pauseProgram(architecture).length < 160);
  assert.throws(() => pauseProgram('s390x'), /processors of the kind s390x/);
});
