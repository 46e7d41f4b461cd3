import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { lockFolder } from './lock.ts';

const HOLD = `import { lockFolder } from '${new URL('./lock.ts', import.meta.url)}'; lockFolder(process.argv[1]); console.log('held'); setInterval(() => {}, 1000);`;

test('a folder that is held is refused with the process that holds it, and free after release', () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-lock-'));
  const lock = lockFolder(folder);
  assert.throws(() => lockFolder(folder), { code: 'folder-busy', values: { folder, holderPid: process.pid } });
  lock.release();
  lockFolder(folder).release();
});

test('a lock survives kill -9 of its holder by going away with it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-lock-'));
  const holder = spawn(process.execPath, ['--input-type=module', '-e', HOLD, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  assert.throws(() => lockFolder(folder), { code: 'folder-busy', values: { folder, holderPid: holder.pid } });
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  lockFolder(folder).release();
});

test('of many processes that want a folder at once exactly one gets it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-lock-'));
  const rivals = Array.from({ length: 6 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', HOLD, folder], { stdio: ['ignore', 'pipe', 'ignore'] }),
  );
  const outcomes = await Promise.all(
    rivals.map((rival) => Promise.race([once(rival.stdout, 'data').then(() => 'held'), once(rival, 'exit').then(() => 'refused')])),
  );
  for (const rival of rivals) rival.kill('SIGKILL');
  assert.equal(outcomes.filter((outcome) => outcome === 'held').length, 1);
});
