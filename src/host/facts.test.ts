import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { freeDiskBytes, inspectHost } from './index.ts';

test('every fact that is not good says how to mend it, and every need is named', async () => {
  const facts = await inspectHost(tmpdir());
  assert.deepEqual(
    facts.map(({ name }) => name),
    ['node', 'platform', 'cores', 'memory', 'disk', 'user namespaces', 'bubblewrap', 'docker'],
  );
  for (const fact of facts) assert.equal(fact.fix === undefined, fact.state === 'good', fact.name);
  assert.equal(facts[0]?.state, 'good');
});

test('free space is told for a folder that does not exist yet', async () => {
  assert.ok((await freeDiskBytes(join(tmpdir(), 'not', 'there', 'yet'))) > 0n);
});
