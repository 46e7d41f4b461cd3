/** Contents that are gone from the network once a job has run, on real contracts: who is convicted by them. `npm run journeys -- --full`. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { openAuditor } from '../../src/compute/audit/auditor.ts';
import { segmentJudge } from '../../src/compute/audit/judge-segment.ts';
import { PHASE } from '../../src/compute/jobs/job-chain.ts';
import { MillraceError } from '../../src/errors.ts';
import { openJuror } from '../../src/governance/index.ts';
import { depositToRails } from '../../src/token/index.ts';
import { campaign } from '../campaign.ts';
import { CheatNetwork, type CheatProvider, TOKEN } from './compute-cheats-network.ts';
import { accuse } from './compute-cheats-players.ts';

const OUTCOME = { right: 1, guilty: 2 };

let network: CheatNetwork;
let provider: CheatProvider;

before(async () => {
  if (process.env.MILLRACE_FULL !== '1') return;
  network = await CheatNetwork.start({ juryVotes: 3, verbose: process.env.MILLRACE_VERBOSE === '1' });
  provider = await network.addProvider();
  for (let count = 0; count < 6; count += 1) await network.addWatcher();
  await network.chain.warp(2);
});
after(() => network?.stop());

/** Lets nobody find anything in the storage network. */
function loseContents(): void {
  const fetchContent = () => Promise.reject(new MillraceError('no-holders', { actor: 'peer', message: 'No provider has a running deal' }));
  const { client, log, strict } = network;
  for (const watcher of network.watchers) {
    const { signer, sender, operatorId, folder, executors } = watcher;
    const engines = { strict, executors };
    watcher.auditor = openAuditor({ client, signer, sender, operatorId, folder, engines, fetchContent, log });
    const judge = segmentJudge({ client, signer, engines, fetchContent, folder: join(folder, 'judged'), log });
    watcher.juror = openJuror({ client, sender, operatorId, folder: join(folder, 'juror'), judges: [judge], log });
  }
}

campaign('an input that its renter takes out of the network convicts no provider that hands it out, and one that does not', async () => {
  const { sender } = network.renter;
  await depositToRails(network.client, { sender, token: network.client.address('networkToken'), amount: 20n * TOKEN });
  for (const [isHonest, outcome] of [
    [true, OUTCOME.right],
    [false, OUTCOME.guilty],
  ] as const) {
    loseContents();
    const { operator } = provider;
    const { intercept } = operator;
    const job = await provider.commitJob({}, { segments: 2, auditors: 2, text: `taken back ${isHonest}\n` });
    const [program] = [job.spec.program.source];
    const record = provider.records.find(job.jobId);
    assert.ok(record !== undefined);
    // The text came from the network, as its provider tells everybody.
    provider.records.save({ ...record, handed: [program] });
    if (!isHonest)
      operator.intercept = (request) => (/\/contents\//.test(request.url) ? new Response(null, { status: 503 }) : intercept(request));
    const also = async () => {
      const { phase } = await network.client.read('computeJobs', 'job', [job.jobId]);
      if (phase === PHASE.window) await accuse(network, { sender }, job);
    };
    await network.work(() => network.isSettled(job), { also });
    assert.equal(await network.outcomeOf(job), outcome);
    operator.intercept = intercept;
    await network.rest();
  }
});
