import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readPlan } from './cluster-plan.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-cluster-plan-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const EXAMPLE = fileURLToPath(new URL('../../examples/training.yaml', import.meta.url));
const DECIMALS = { stable: 6, native: 18 };
const fileOf = (text: string) => {
  const path = join(folder, 'spec');
  writeFileSync(path, text);
  return path;
};

test('a document says class, price and time of a cluster, and flags may not say them again', () => {
  const plan = readPlan(EXAMPLE, {}, DECIMALS);
  assert.deepEqual([plan.deviceClass, plan.token, plan.priceMax, plan.seconds], ['cpu-2', 'native', 5n * 10n ** 17n, 8 * 3600]);
  assert.deepEqual([plan.spec.machines, plan.spec.processes], [3, 3]);
  for (const twice of [{ class: 'cpu-4' }, { maxPrice: '1' }, { hours: '2' }, { token: 'stable' }]) {
    assert.throws(() => readPlan(EXAMPLE, twice, DECIMALS), { code: 'bad-option', actor: 'caller' });
  }
});

test('what a document leaves out is said by flags, and asked for', () => {
  const path = fileOf(
    readFileSync(EXAMPLE, 'utf8')
      .replace(/^(time|price).*\n/gm, '')
      .replace('class: cpu-2, ', ''),
  );
  assert.throws(() => readPlan(path, { maxPrice: '1' }, DECIMALS), /--class/);
  assert.throws(() => readPlan(path, { class: 'cpu-4' }, DECIMALS), /--max-price/);
  const plan = readPlan(path, { class: 'cpu-4', maxPrice: '1.5', token: 'stable', hours: '0.5' }, DECIMALS);
  assert.deepEqual([plan.deviceClass, plan.token, plan.priceMax, plan.seconds], ['cpu-4', 'stable', 1_500_000n, 1800]);
});

test('a specification in JSON is taken as before; a fault of either is named with its field', () => {
  const limits = { memoryBytes: 1 << 28, cpus: 1, processes: 64, diskBytes: 1 << 20, wallSeconds: 60, outputBytes: 1 << 20 };
  const spec = {
    version: 1,
    image: `sha256:${'ab'.repeat(32)}`,
    argv: ['/bin/x'],
    processes: 4,
    machines: 3,
    limits,
    checkpointBytesMax: 0,
  };
  const terms = { class: 'cpu-2', maxPrice: '1' };
  assert.deepEqual(readPlan(fileOf(JSON.stringify(spec)), terms, DECIMALS).spec.processes, 4);
  assert.throws(() => readPlan(fileOf(JSON.stringify({ ...spec, machines: 0 })), terms, DECIMALS), { code: 'bad-cluster-spec' });
  assert.throws(
    () => readPlan(fileOf('{"version": 1,'), terms, DECIMALS),
    (error: { code?: string; values?: { line?: number } }) => error.code === 'bad-spec' && error.values?.line === 1,
  );
  assert.throws(() => readPlan(fileOf('job: 1\ncommand: [true]\n'), terms, DECIMALS), /millrace run FILE/);
});
