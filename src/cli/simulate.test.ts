import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(import.meta.dirname, 'main.ts'), 'simulate', 'subnet', ...args], { encoding: 'utf8', timeout: 60_000 });

test('millrace simulate subnet runs a file’s population without a network and says who earned what', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-simulate-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'population.json');
  writeFileSync(
    file,
    JSON.stringify({
      validators: [
        { group: 'honest', count: 4, stake: 60, does: 'judge' },
        { group: 'ring', stake: 40, does: 'favour' },
      ],
      miners: [
        { group: 'good', count: 4, quality: 1 },
        { group: 'ring', quality: 0 },
      ],
    }),
  );
  const { status, stdout, stderr } = run('--population', file, '--epochs', '8', '--json');
  assert.equal(stderr, '');
  assert.equal(status, 0);
  const { items, run: settings } = JSON.parse(stdout) as { items: { group: string; share: number }[]; run: { seed: number } };
  assert.equal(settings.seed, 1);
  assert.deepEqual(
    items.map(({ group }) => group),
    ['honest', 'ring', 'good'],
  );
  assert.equal(items[1]?.share, 0);
});

test('a population or an option that cannot be is the caller’s fault, said with what was got', () => {
  const { status, stderr } = run('--cabal', '0.9', '--copiers', '0.4', '--json');
  assert.equal(status, 2);
  const error = JSON.parse(stderr) as { code: string; actor: string };
  assert.deepEqual([error.code, error.actor], ['bad-population', 'caller']);
  assert.match(run('--mode', 'yuma9').stderr, /Got --mode yuma9, expected one of yuma2, yuma3, yuma3-liquid/);
});
