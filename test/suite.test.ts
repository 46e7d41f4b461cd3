import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rounds } from './campaign.ts';
import { readForge } from './forge.ts';
import { FOREIGN, nodeMismatch, type Outcome, report } from './suite.ts';

const fine: Outcome = { passed: 3, failed: 0, skipped: 0, skips: [], faults: [] };
const skipped: Outcome = { ...fine, skipped: 1, skips: ['a: needs docker'] };

test('another Node than the pinned one is refused, and told what to use', () => {
  assert.equal(nodeMismatch(), undefined);
  assert.match(nodeMismatch('20.19.0', 'linux') ?? '', /this is Node 20\.19\.0.*npm test/);
  assert.equal(nodeMismatch('24.99.0', 'darwin'), undefined);
  assert.match(nodeMismatch('22.1.0', 'darwin') ?? '', /22\.1\.0/);
});

test('failures, faults, no test at all, and skips where all is required make the suite fail', (context) => {
  const lines: string[] = [];
  context.mock.method(process.stdout, 'write', (line: string) => lines.push(line) > 0);
  const verdicts = [
    report(fine, {}),
    report(skipped, {}),
    report(skipped, { MILLRACE_REQUIRE_ALL: '1' }),
    report({ ...skipped, skips: [`a: ${FOREIGN}Go is not installed`] }, { MILLRACE_REQUIRE_ALL: '1' }),
    report({ ...fine, failed: 1 }, {}),
    report({ ...fine, faults: ['x'] }, {}),
    report({ ...fine, passed: 0 }, {}),
  ];
  context.mock.restoreAll();
  assert.deepEqual(verdicts, [true, true, false, true, false, false, false]);
  assert.ok(lines.includes('skipped: a: needs docker\n'));
  assert.ok(lines.includes('3 passed, 0 failed, 1 skipped\n'));
});

test('the outcome of the contracts is read from what forge prints; silence and an odd end are faults', () => {
  const text =
    '[SKIP: no fork] testA() (gas: 1)\nRan 9 test suites in 1s (2s CPU time): 80 tests passed, 2 failed, 1 skipped (83 total tests)\n';
  assert.deepEqual(readForge(text, 1), { passed: 80, failed: 2, skipped: 1, skips: ['contracts: testA() (gas: 1): no fork'], faults: [] });
  assert.equal(readForge(text.replace('2 failed', '0 failed'), 1).faults.length, 1);
  assert.equal(readForge('compiler error', 1).faults.length, 1);
  assert.equal(readForge('', 0).faults.length, 1);
  assert.equal(readForge(text + text, 0).passed, 160);
});

test('campaigns run a tenth unless the full length is asked for', (context) => {
  const before = process.env.MILLRACE_FULL;
  context.after(() => {
    if (before === undefined) delete process.env.MILLRACE_FULL;
    else process.env.MILLRACE_FULL = before;
  });
  delete process.env.MILLRACE_FULL;
  assert.deepEqual([rounds(100), rounds(3)], [10, 1]);
  process.env.MILLRACE_FULL = '1';
  assert.equal(rounds(100), 100);
});
