/**
 * `npm test`: the tests of the repository on the pinned Node but for the long journeys, and beside them the contracts' tests. With words
 * as arguments only the files whose path contains one of them, and no floor.
 */
import { readFileSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { announceSeed } from './campaign.ts';
import { runForge } from './forge.ts';
import { findTestFiles, nodeMismatch, type Outcome, report, root, runFiles, withServer } from './suite.ts';

/** Long stories that `npm run journeys` tells, so that all of this ends within twenty minutes on two processors. */
const LONG_JOURNEYS = [
  'behind-routers',
  'cheating-miners',
  'cluster',
  'cluster-engines',
  'cluster-swarm',
  'compute-cheats',
  'compute-health',
  'compute-join',
  'compute-leases',
  'external-chain',
  'joining-inference',
  'own-infrastructure',
  'validator-cases',
];

const words = process.argv.slice(2);
const mismatch = nodeMismatch();
if (mismatch !== undefined) {
  process.stderr.write(`${mismatch}\n`);
  process.exit(5);
}
announceSeed();
const isLong = (file: string) => LONG_JOURNEYS.includes(basename(file, '.test.ts'));
const files = findTestFiles('src', 'test', 'tools').filter((file) =>
  words.length === 0 ? !isLong(file) : words.some((word) => relative(root, file).includes(word)),
);
const contracts = words.length === 0 ? runForge() : undefined;
const outcomes = [await withServer(() => runFiles(files))];
if (contracts !== undefined) outcomes.push(await contracts);
const total: Outcome = {
  passed: sum('passed'),
  failed: sum('failed'),
  skipped: sum('skipped'),
  skips: outcomes.flatMap(({ skips }) => skips),
  faults: outcomes.flatMap(({ faults }) => faults),
};
if (words.length === 0) holdFloor(outcomes as [Outcome, Outcome], total);
process.exit(report(total) ? 0 : 1);

function sum(key: 'passed' | 'failed' | 'skipped'): number {
  return outcomes.reduce((before, outcome) => before + outcome[key], 0);
}

/** A suite that silently lost tests must not pass: the floor in git is raised as tests are added. */
function holdFloor([node, contracts]: [Outcome, Outcome], into: Outcome): void {
  const floor = JSON.parse(readFileSync(join(root, 'test/floor.json'), 'utf8')) as { node: number; contracts: number };
  for (const [name, outcome, least] of [
    ['node', node, floor.node],
    ['contracts', contracts, floor.contracts],
  ] as const) {
    const count = outcome.passed + outcome.failed + outcome.skipped;
    if (count < least) into.faults.push(`${count} ${name} tests ran, the floor in test/floor.json is ${least}`);
  }
}
