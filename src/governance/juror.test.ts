import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Address } from 'viem';
import { createLogger } from '../log.ts';
import type { Judge } from './judge.ts';
import type { Juror } from './juror.ts';
import { voteCommitment } from './juror-votes.ts';
import { startTestJury, type TestJuror, type TestJury } from './jury-fixture.ts';
import { type JuryPhase, readJuryCase } from './jury-round.ts';
import { readJurorStanding } from './seats.ts';

let jury: TestJury;
let jurors: TestJuror[];

before(async () => {
  jury = await startTestJury();
  jurors = [await jury.addJuror(), await jury.addJuror(), await jury.addJuror()];
});
after(() => jury?.stop());

/** Reads what the evidence says, as a judge that looks at the matter itself would. */
function reader(arbitrable: Address): Judge {
  return {
    arbitrable,
    async judge(_dispute, { pieces }) {
      const said = pieces.map(({ text }) => /^the answer is (\d)$/.exec(text)?.[1]).find((answer) => answer !== undefined);
      return said === undefined ? undefined : BigInt(said);
    },
  };
}

function liar(arbitrable: Address): Judge {
  return { arbitrable, judge: async () => 2n };
}

async function phaseOf(disputeId: bigint): Promise<JuryPhase> {
  return (await readJuryCase(jury.client, disputeId)).phase;
}

/** Lets agents work and time pass until something is so; at most a hundred rounds. */
async function work(agents: readonly Juror[], isSo: () => Promise<boolean> | boolean): Promise<void> {
  for (let round = 0; round < 100; round += 1) {
    if (await isSo()) return;
    for (const agent of agents) {
      await agent.tend();
      await agent.settled();
    }
    await jury.chain.warp(20);
  }
  assert.fail('it did not come to that');
}

/** Starts an operator's agent as a process, and kills it once its vote is on chain. */
async function commitAndDie(juror: TestJuror, options: { arbitrable: Address; disputeId: bigint; ruling: bigint }): Promise<void> {
  const { rpcUrl, manifestPath, journalFolder, client } = jury;
  const { folder, keyIndex, operatorId } = juror;
  const { arbitrable, disputeId, ruling } = options;
  const given = { rpcUrl, manifestPath, journalFolder, folder, keyIndex, arbitrable };
  const argument = JSON.stringify({ ...given, operatorId: operatorId.toString(), ruling: ruling.toString() });
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../test/juror-child.ts'), argument], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exit = once(child, 'exit');
  try {
    for (let look = 0; look < 3_600; look += 1) {
      if ((await client.read('jury', 'voteOf', [disputeId, 0, operatorId])).state === 1) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail('the process committed to nothing');
  } finally {
    child.kill('SIGKILL');
    await exit;
  }
}

test('three jurors rule: one is killed between commit and reveal and reveals when it is back; honest ones are paid, the liar is penalised', async () => {
  const { client } = jury;
  const arbitrable = await jury.deployArbitrable();
  const [killed, honest, lying] = jurors as [TestJuror, TestJuror, TestJuror];
  await jury.chain.warp(1);
  const disputeId = await jury.openDispute(arbitrable, 'the answer is 1');
  const [second, third] = [honest.open([reader(arbitrable)]), lying.open([liar(arbitrable)])];
  const before = await readJurorStanding(client, lying.operatorId);
  await work([second.juror], async () => (await phaseOf(disputeId)) === 'voting');
  await commitAndDie(killed, { arbitrable, disputeId, ruling: 1n });
  const first = killed.open([]); // without a judge: what was decided before is all that it can use
  await work([first.juror, second.juror, third.juror], async () => (await phaseOf(disputeId)) === 'executed');
  const agents = [first, second, third];
  await work(
    agents.map(({ juror }) => juror),
    () => agents.every(({ juror }) => juror.record().open === 0),
  );

  assert.equal(await jury.rulingAt(arbitrable, disputeId), 1n);
  assert.equal(first.juror.record().revealed, 1);
  const paid = await client.events({ name: 'jury', event: 'JurorPaid', args: { disputeId } });
  assert.deepEqual(new Set(paid.map(({ args }) => args.operatorId)), new Set([killed.operatorId, honest.operatorId]));
  const { penalty, voteFee } = before;
  for (const { beneficiary } of [killed, honest]) {
    assert.equal(
      await client.public.getBalance({ address: beneficiary }),
      (3n * voteFee) / 2n,
      'the fee of the round is shared and fetched',
    );
    assert.ok((await client.read('networkToken', 'balanceOf', [beneficiary])) > 0n, 'and a part of what the liar lost');
  }
  const later = await readJurorStanding(client, lying.operatorId);
  assert.equal(before.locked - later.locked, penalty);
  assert.equal(await client.public.getBalance({ address: lying.beneficiary }), 0n);
  for (const { close } of agents) close();
});

test('what has no judge, or one without an answer, gets no vote: it is said, and nobody guesses', async () => {
  const { client } = jury;
  const arbitrable = await jury.deployArbitrable();
  const [one, two, three] = [await jury.addJuror(), await jury.addJuror(), await jury.addJuror()];
  for (const juror of jurors.splice(0)) await juror.leave();
  await jury.chain.warp(1);
  const disputeId = await jury.openDispute(arbitrable, 'nobody knows');
  const lines: string[] = [];
  const log = createLogger({ role: 'juror', sink: (line) => lines.push(line) });
  const agents = [one.open([], log), two.open([reader(arbitrable)], log), three.open([reader(arbitrable)], log)];
  const running = agents.map(({ juror }) => juror);
  await work(running, async () => (await phaseOf(disputeId)) === 'voting');
  await work(running, () => ['no-judge', 'no-answer'].every((event) => lines.some((line) => line.includes(`"${event}"`))));
  assert.equal((await client.events({ name: 'jury', event: 'VoteCommitted', args: { disputeId } })).length, 0);
  // New evidence comes in time: who has a judge is asked again, and votes.
  await jury.say(arbitrable, disputeId, 'the answer is 2');
  await work(running, async () => (await phaseOf(disputeId)) === 'executed');
  assert.equal(await jury.rulingAt(arbitrable, disputeId), 2n);
  const committed = await client.events({ name: 'jury', event: 'VoteCommitted', args: { disputeId } });
  assert.deepEqual(new Set(committed.map(({ args }) => args.operatorId)), new Set([two.operatorId, three.operatorId]));
  for (const { close } of agents) close();
  for (const juror of [one, two, three]) await juror.leave();
});

test('an arbitrable that refuses its ruling keeps nobody’s pay, and is not told for ever', async () => {
  const { client } = jury;
  const arbitrable = await jury.deployArbitrable({ refuses: true });
  const agents = [await jury.addJuror(2), await jury.addJuror(2), await jury.addJuror(2)].map((juror) => juror.open([reader(arbitrable)]));
  await jury.chain.warp(1);
  const disputeId = await jury.openDispute(arbitrable, 'the answer is 1');
  await work(
    agents.map(({ juror }) => juror),
    async () => (await phaseOf(disputeId)) === 'ruled' && agents.every(({ juror }) => juror.record().open === 0),
  );
  assert.equal(await phaseOf(disputeId), 'ruled');
  assert.equal((await readJuryCase(client, disputeId)).unsettled.length, 0);
  assert.ok((await client.events({ name: 'jury', event: 'JurorPaid', args: { disputeId } })).length > 0);
  for (const { close } of agents) close();
});

test('a vote’s commitment is the one that the contract works out', async () => {
  const { client } = jury;
  const salt = `0x${'5a'.repeat(32)}` as const;
  const place = { chainId: BigInt(client.chainId), jury: client.address('jury'), disputeId: 7n, round: 1, operatorId: 9n };
  assert.equal(voteCommitment(place, { ruling: 2n, salt }), await client.read('jury', 'commitmentOf', [7n, 1, 9n, 2n, salt]));
});
