import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { bytesToHex, concatHex, hexToBytes, numberToHex } from 'viem';
import { silentLogger } from '../../log.ts';
import { allowTokens } from '../../token/index.ts';
import { packRows } from '../consensus/packed-rows.ts';
import { decideEpoch, gatherEvidence, loggedDecisions, paymentsOf, readDecidedState, rootOf } from './epoch-evidence.ts';
import { createSettler, type Settler } from './settler.ts';
import { closeEpochs } from './subnet-actions.ts';
import { startTestSubnet, type TestOperator, type TestSubnet, TOKEN } from './subnet-fixture.ts';

const TEMPO = 600;
const OWNER_CUT = 11_796n;
const ALL = 65_535n;

let subnet: TestSubnet;
let validators: TestOperator[];
let miner: TestOperator;

const settlerOf = ({ sender, operatorId }: TestOperator): Settler =>
  createSettler({ client: subnet.client, sender, subnetId: subnet.subnetId, operatorId, log: silentLogger });
const account = () => subnet.client.read('subnetEpochs', 'accountOf', [subnet.subnetId]);

/** Both validators judge in this epoch, and their weights are opened; ends when the epoch can be decided. */
async function judgedEpoch(): Promise<bigint> {
  const epoch = (await subnet.epoch()) + 1n;
  await subnet.warpToEpoch(epoch);
  const agents = validators.map((validator) => subnet.agentOf(validator));
  for (const agent of agents) await agent.commit(new Map([[miner.uid, 1]]));
  const [opensAt, closesAt] = await subnet.client.read('weightsBoard', 'windowOf', [subnet.subnetId, epoch]);
  await subnet.chain.warp(Number(opensAt - (await subnet.client.now())) + 1);
  for (const agent of agents) await agent.tend();
  // The epochs before it, in which nobody judged, are decided first.
  const earlier = settlerOf(validators[0] as TestOperator);
  while ((await account()).next < epoch) await earlier.tend();
  const now = await subnet.client.now();
  if (closesAt > now) await subnet.chain.warp(Number(closesAt - now) + 1);
  return epoch;
}

before(async () => {
  subnet = await startTestSubnet({ tempoSeconds: TEMPO });
  validators = [await subnet.join({ stake: 100n * TOKEN }), await subnet.join({ stake: 50n * TOKEN })];
  miner = await subnet.join();
});
after(() => subnet.stop());

test('an epoch is settled, made final, credited and paid, and what is paid, owed and carried is the emission to the unit', async () => {
  const { client, subnetId } = subnet;
  const epoch = await judgedEpoch();
  const settler = settlerOf(validators[0] as TestOperator);
  while ((await account()).next <= epoch) await settler.tend();
  const [final] = await client.events({ name: 'subnetEpochs', event: 'Finalized', args: { subnetId, epoch } });
  assert.ok(final !== undefined);
  const { emission, ownerPart, dust } = final.args;
  assert.equal(ownerPart, (emission * OWNER_CUT) / ALL);
  const credited = await client.events({ name: 'subnetEpochs', event: 'Credited', args: { subnetId, epoch } });
  const paid = credited.reduce((sum, { args }) => sum + args.miner + args.validator, 0n);
  assert.equal(paid + ownerPart + dust, emission);
  const ofMiner = credited.find(({ args }) => args.uid === miner.uid)?.args;
  assert.ok(ofMiner !== undefined && ofMiner.miner > 0n && ofMiner.operatorId === miner.operatorId);
  const token = client.address('inferenceToken');
  await settlerOf(miner).tend();
  const beneficiary = await client.read('operators', 'beneficiaryOf', [miner.operatorId]);
  assert.equal(await client.read('inferenceToken', 'balanceOf', [beneficiary]), ofMiner.miner);
  assert.ok((await client.read('backerIncome', 'operatorClaimable', [validators[0]?.operatorId as bigint, token])) > 0n);
  assert.ok(
    (await client.read('inferenceToken', 'balanceOf', [client.address('subnetEpochs')])) >=
      (await client.read('subnetEpochs', 'obligations')),
  );
});

test('two settlers at once do no harm, and one after the other finds nothing to do', async () => {
  const epoch = await judgedEpoch();
  const settlers = validators.map(settlerOf);
  while ((await account()).next <= epoch) await Promise.all(settlers.map((settler) => settler.tend()));
  const { next } = await account();
  for (const settler of settlers) await settler.tend();
  assert.equal((await account()).next, next);
  const final = await subnet.client.events({ name: 'subnetEpochs', event: 'Finalized', args: { subnetId: subnet.subnetId, epoch } });
  assert.equal(final.length, 1);
});

test('the decision that a settler finds by itself is the one that the chain comes to', async () => {
  const { client, subnetId } = subnet;
  const epoch = await judgedEpoch();
  await closeEpochs(client, { sender: (validators[0] as TestOperator).sender, subnetId, most: 8 });
  const settler = settlerOf(validators[1] as TestOperator);
  const evidence = await gatherEvidence(client, { subnetId, epoch });
  const own = await decideEpoch(client, { subnetId, epoch }, evidence);
  const sender = (validators[1] as TestOperator).sender;
  await sender.send({ contract: 'subnetEpochs', functionName: 'settle', args: [subnetId, epoch, evidence] });
  const [settled] = await client.events({ name: 'subnetEpochs', event: 'Settled', args: { subnetId, epoch } });
  assert.deepEqual(own, settled?.args.result);
  assert.equal((await client.read('subnetEpochs', 'decisionOf', [subnetId])).root, rootOf(own));
  assert.ok(paymentsOf(own.payments).some(({ miner: amount }) => amount > 0n));
  await settler.tend();
  assert.ok((await account()).next > epoch);
  // What people are shown: consensus and bonds in the bytes that the next epoch starts from, and the validators' bonds to their miner.
  const shown = await readDecidedState(client, subnetId);
  const [last] = await loggedDecisions(client, { subnetId, epoch: shown?.epoch as bigint });
  assert.ok(shown !== undefined && last !== undefined && shown.epoch >= epoch);
  const consensus = shown.consensus.map((part) => numberToHex(part, { size: 2 }));
  assert.equal(last.state, concatHex([numberToHex(consensus.length, { size: 2 }), ...consensus, bytesToHex(packRows(shown.bonds))]));
  for (const { uid } of validators)
    assert.ok(
      shown.bonds[uid]?.some(([of, part]) => of === miner.uid && part > 0),
      `bonds of ${uid}`,
    );
});

test('a proposal that pays somebody else is refuted, its bond is taken, and the right decision becomes final', async () => {
  const { client, subnetId, faucet } = subnet;
  const rules = await client.read('subnets', 'hyperparametersAt', [subnetId, await subnet.epoch()]);
  await faucet.send({ contract: 'subnets', functionName: 'setHyperparameters', args: [subnetId, { ...rules, optimistic: true }] });
  await settlerOf(miner).tend();
  const epoch = await judgedEpoch();
  const honest = settlerOf(validators[1] as TestOperator);
  await closeEpochs(client, { sender: faucet, subnetId, most: 8 });
  // The liar is the miner, who has earned the token in which bonds are paid: it swaps what it and a validator get.
  const { owner } = miner;
  const right = await decideEpoch(client, { subnetId, epoch }, await gatherEvidence(client, { subnetId, epoch }));
  const bytes = hexToBytes(right.payments);
  const word = (uid: number) => bytes.slice((uid + 1) * 32 + 8, (uid + 2) * 32);
  const [ofMiner, ofValidator] = [word(miner.uid), word((validators[0] as TestOperator).uid)];
  bytes.set(ofValidator, (miner.uid + 1) * 32 + 8);
  bytes.set(ofMiner, ((validators[0] as TestOperator).uid + 1) * 32 + 8);
  const [, bond] = await client.read('subnetEpochs', 'stakesOf', [subnetId, epoch]);
  const held = await client.read('inferenceToken', 'balanceOf', [owner.address]);
  assert.ok(held >= bond, `the liar holds ${held}, the bond is ${bond}`);
  await allowTokens(client, { sender: owner, token: 'inference', spender: client.address('subnetEpochs'), amount: bond });
  const lie = { ...right, payments: bytesToHex(bytes) };
  await owner.send({ contract: 'subnetEpochs', functionName: 'propose', args: [subnetId, epoch, lie, bond] });
  await honest.tend();
  const [refuted] = await client.events({ name: 'subnetEpochs', event: 'ProposalRefuted', args: { subnetId, epoch } });
  assert.equal(refuted?.args.reward, bond / 2n);
  const [final] = await client.events({ name: 'subnetEpochs', event: 'Finalized', args: { subnetId, epoch } });
  assert.equal(final?.args.root, rootOf(right));
  const credited = await client.events({ name: 'subnetEpochs', event: 'Credited', args: { subnetId, epoch } });
  assert.equal(credited.find(({ args }) => args.uid === miner.uid)?.args.miner, paymentsOf(right.payments)[miner.uid]?.miner);
});
