/**
 * Cheaters on real contracts: providers that make states up, withhold them, or commit to another output, and canaries; with the product's own
 * auditors, committees, challengers and jurors, each beside an honest twin. CI runs three of them; `npm run journeys -- --full` all.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type CheatJob, CheatNetwork, type CheatProvider } from './compute-cheats-network.ts';

const OUTCOME = { right: 1, guilty: 2, late: 3, canary: 4, notAudited: 5 };
const FULL = process.env.MILLRACE_FULL === '1';

let network: CheatNetwork;
let provider: CheatProvider;

before(async () => {
  network = await CheatNetwork.start({ verbose: process.env.MILLRACE_VERBOSE === '1' });
  provider = await network.addProvider();
  for (let count = 0; count < 6; count += 1) await network.addWatcher();
  await network.chain.warp(2);
});
after(() => network?.stop());

const outcomes = (...jobs: CheatJob[]) => Promise.all(jobs.map((job) => network.outcomeOf(job)));
const collateralOf = (): Promise<bigint> =>
  network.client.read('stakeVault', 'lockedOfModule', [provider.operator.operatorId, network.client.address('computeJobs')]);

test('a made-up segment is found, brought before the jury and slashed, and its honest twin is paid', async () => {
  const before = await collateralOf();
  const honest = await provider.commitJob({}, { segments: 2 });
  const forged = await provider.commitJob({ wrong: [1] }, { segments: 2 });
  await network.work(() => network.isSettled(honest, forged));
  assert.deepEqual(await outcomes(honest, forged), [OUTCOME.right, OUTCOME.guilty]);
  const [settled] = await network.client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId: forged.jobId } });
  assert.equal(settled?.args.slashed, forged.terms.collateral);
  assert.equal(settled?.args.paid, 0n);
  const [paid] = await network.client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId: honest.jobId } });
  assert.ok((paid?.args.paid ?? 0n) > 0n && paid?.args.slashed === 0n);
  assert.equal(paid?.args.evidence, 2, 'the receipt says that it was replayed');
  assert.equal(await collateralOf(), before);
});
