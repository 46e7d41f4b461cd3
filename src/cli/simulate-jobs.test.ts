import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'node:test';

const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(import.meta.dirname, 'main.ts'), 'simulate', 'jobs', ...args], { encoding: 'utf8', timeout: 120_000 });

test('millrace simulate jobs says who was found, without a network, the same for the same seed', () => {
  const args = ['--honest', '1', '--jobs', '4', '--segments', '16', '--seed', '3', '--json'];
  const { status, stdout, stderr } = run(...args);
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
  assert.equal(run(...args).stdout, stdout);
});

test('an option that cannot be is the caller’s fault, said with what was got', () => {
  const { status, stderr } = run('--colluding', '1.5', '--json');
  assert.equal(status, 2);
  assert.match(stderr, /Got 1.5 for --colluding, expected a share from 0 to 1/);
  assert.match(run('--samples', '9', '--segments', '4').stderr, /expected a whole number from 1 to 4/);
});
