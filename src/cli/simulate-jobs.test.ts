import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';

const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(import.meta.dirname, 'main.ts'), 'simulate', 'jobs', ...args], { encoding: 'utf8', timeout: 120_000 });

test('millrace simulate jobs says who was found, without a network', () => {
  const { status, stdout, stderr } = run('--honest', '1', '--jobs', '4', '--segments', '16', '--seed', '3', '--json');
  assert.deepEqual([status, stderr], [0, '']);
  const { groups, jobs, falseSlashes } = JSON.parse(stdout) as {
    groups: { kind: string; cheats: number; slashed: number }[];
    jobs: number;
    falseSlashes: number;
  };
  assert.deepEqual([jobs, falseSlashes], [12, 0]);
  assert.deepEqual(
    groups.filter(({ kind }) => kind === 'forger').map(({ cheats, slashed }) => [cheats, slashed]),
    [[4, 4]],
  );
});

test('an option that cannot be is the caller’s fault, said with what was got', () => {
  const { status, stderr } = run('--colluding', '1.5', '--json');
  assert.equal(status, 2);
  assert.match(stderr, /Got 1.5 for --colluding, expected a share from 0 to 1/);
});
