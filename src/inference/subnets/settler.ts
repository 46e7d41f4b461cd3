import { type Hex, keccak256, zeroAddress, zeroHash } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { allowTokens, tokenBalance } from '../../token/index.ts';
import { decideEpoch, type EpochDecision, gatherEvidence, loggedDecisions, paymentsOf, rootOf } from './epoch-evidence.ts';
import { closeEpochs } from './subnet-actions.ts';

/** Sees to it that a subnet's epochs are decided, contested where they are wrong, and paid. */
export interface Settler {
  /** Does what is due now; safe to repeat, and beside others who do the same. */
  tend(): Promise<void>;
}

/** How a settler works. */
export interface SettlerOptions {
  client: ChainClient;
  /** Pays the gas; in optimistic subnets it proposes when it holds the bond. */
  sender: Sender;
  subnetId: bigint;
  /** Whose earnings are brought home: the operator of this node. */
  operatorId: bigint;
  log: Logger;
}

/** Steps of one look: an epoch takes three (settle, finalize, credit), and a look after a pause may have several to make up. */
const STEPS_MAX = 12;
const CREDITED_AT_ONCE = 128;
/** What the chain answers when somebody else was faster. */
const OUTRUN = new Set(['already-decided', 'wrong-epoch', 'not-decided', 'epoch-not-next', 'not-skippable']);

/** A settler for one subnet. It trusts no proposal: it decides each epoch itself, and refutes what differs. */
export function createSettler(options: SettlerOptions): Settler {
  return {
    async tend() {
      try {
        await closeEpochs(options.client, options);
        for (let step = 0; step < STEPS_MAX && (await advance(options)); step += 1);
        await creditLate(options);
        await bringHome(options);
      } catch (error) {
        if (!OUTRUN.has(toMillraceError(error).code)) throw error;
      }
    },
  };
}

interface Present {
  subnetId: bigint;
  epoch: bigint;
  now: bigint;
}

/** One step; false when there is nothing to do. */
async function advance(options: SettlerOptions): Promise<boolean> {
  const { client, subnetId } = options;
  const [account, decision, now] = await Promise.all([
    client.read('subnetEpochs', 'accountOf', [subnetId]),
    client.read('subnetEpochs', 'decisionOf', [subnetId]),
    client.now(),
  ]);
  const at: Present = { subnetId, epoch: account.next, now };
  if (decision.root === zeroHash) return decide(options, at);
  const isProven = decision.proposer === zeroAddress;
  if (now >= decision.finalFrom) return finalize(options, at, decision.root);
  return isProven ? false : contest(options, at, decision.root);
}

/** Settles, proposes or passes over the next epoch. */
async function decide(options: SettlerOptions, at: Present): Promise<boolean> {
  const { client, sender, log } = options;
  const { subnetId, epoch, now } = at;
  if ((await client.read('subnets', 'metagraphHash', [subnetId, epoch])) === zeroHash) {
    if ((await client.read('subnets', 'nextToClose', [subnetId])) <= epoch) return false;
    await sender.send({ contract: 'subnetEpochs', functionName: 'skip', args: [subnetId] });
    return true;
  }
  const [, closesAt] = await client.read('weightsBoard', 'windowOf', [subnetId, epoch]);
  if (now < closesAt) return false;
  const [{ tempoSeconds }, { resetEpochs }] = await Promise.all([
    client.read('subnets', 'subnet', [subnetId]),
    client.read('subnetEpochs', 'config'),
  ]);
  if (now >= closesAt + BigInt(tempoSeconds * resetEpochs)) {
    log.warn('epoch-passed-over', { subnetId, epoch });
    await sender.send({ contract: 'subnetEpochs', functionName: 'skip', args: [subnetId] });
    return true;
  }
  const evidence = await gatherEvidence(client, at);
  const { optimistic } = await client.read('subnets', 'hyperparametersAt', [subnetId, epoch]);
  if (optimistic && (await propose(options, at, await decideEpoch(client, at, evidence)))) return true;
  await sender.send({ contract: 'subnetEpochs', functionName: 'settle', args: [subnetId, epoch, evidence] });
  log.info('epoch-settled', { subnetId, epoch });
  return true;
}

/** Posts a result under a bond; false when the sender has not got the bond. */
async function propose({ client, sender, log }: SettlerOptions, { subnetId, epoch }: Present, result: EpochDecision): Promise<boolean> {
  const [, bond] = await client.read('subnetEpochs', 'stakesOf', [subnetId, epoch]);
  if ((await tokenBalance(client, { token: 'inference', account: sender.address })) < bond) return false;
  await allowTokens(client, { sender, token: 'inference', spender: client.address('subnetEpochs'), amount: bond });
  await sender.send({ contract: 'subnetEpochs', functionName: 'propose', args: [subnetId, epoch, result, bond] });
  log.info('epoch-proposed', { subnetId, epoch, bond });
  return true;
}

/** Refutes a proposal that is not what the rules give. */
async function contest({ client, sender, log }: SettlerOptions, at: Present, root: Hex): Promise<boolean> {
  const evidence = await gatherEvidence(client, at);
  if (rootOf(await decideEpoch(client, at, evidence)) === root) return false;
  await sender.send({ contract: 'subnetEpochs', functionName: 'settle', args: [at.subnetId, at.epoch, evidence] });
  log.warn('proposal-refuted', { subnetId: at.subnetId, epoch: at.epoch, root });
  return true;
}

/** Makes a decision final and credits everybody whom it pays. */
async function finalize({ client, sender, log }: SettlerOptions, at: Present, root: Hex): Promise<boolean> {
  const { subnetId, epoch } = at;
  const logged = (await loggedDecisions(client, at)).find((decision) => rootOf(decision) === root);
  const decision = logged ?? (await decideEpoch(client, at, await gatherEvidence(client, at)));
  if (rootOf(decision) !== root) {
    throw new MillraceError('decision-unknown', {
      actor: 'chain',
      message: `The decision of epoch ${epoch} of subnet ${subnetId} is neither logged nor what its evidence gives`,
      values: { subnetId, epoch, root },
      hint: 'Use a node that keeps old logs.',
    });
  }
  const { payments, ranks, state } = decision;
  await sender.send({ contract: 'subnetEpochs', functionName: 'finalize', args: [subnetId, epoch, payments, ranks, keccak256(state)] });
  log.info('epoch-final', { subnetId, epoch });
  await credit({ client, sender }, at, payments);
  return true;
}

/** Credits everybody whom a final epoch pays and who was not credited yet. */
async function credit(
  { client, sender }: Pick<SettlerOptions, 'client' | 'sender'>,
  { subnetId, epoch }: Omit<Present, 'now'>,
  payments: Hex,
) {
  const done = await client.read('subnetEpochs', 'creditedOf', [subnetId, epoch]);
  const open = paymentsOf(payments).filter(({ uid, miner, validator }) => miner + validator > 0n && ((done >> BigInt(uid)) & 1n) === 0n);
  for (let from = 0; from < open.length; from += CREDITED_AT_ONCE) {
    const uids = open.slice(from, from + CREDITED_AT_ONCE).map(({ uid }) => uid);
    await sender.send({ contract: 'subnetEpochs', functionName: 'credit', args: [subnetId, epoch, payments, uids] });
  }
}

/** Whoever made the last epoch final may have died before it credited anybody. */
async function creditLate(options: SettlerOptions): Promise<void> {
  const { client, subnetId } = options;
  const { next } = await client.read('subnetEpochs', 'accountOf', [subnetId]);
  if (next === 0n) return;
  const at = { subnetId, epoch: next - 1n };
  const hash = await client.read('subnetEpochs', 'paymentsHash', [subnetId, at.epoch]);
  if (hash === zeroHash || (await client.read('subnetEpochs', 'creditedOf', [subnetId, at.epoch])) !== 0n) return;
  const logged = (await loggedDecisions(client, at)).find(({ payments }) => keccak256(payments) === hash);
  if (logged !== undefined) await credit(options, at, logged.payments);
}

/** Pays what this operator earned: as a miner to its beneficiary, as a validator to itself and its backers. */
async function bringHome({ client, sender, operatorId, log }: SettlerOptions): Promise<void> {
  const { miner, validator } = await client.read('subnetEpochs', 'earningsOf', [operatorId]);
  if (miner > 0n) await sender.send({ contract: 'subnetEpochs', functionName: 'payMiner', args: [operatorId] });
  if (validator > 0n) await sender.send({ contract: 'subnetEpochs', functionName: 'release', args: [operatorId] });
  if (miner + validator > 0n) log.info('earnings-paid', { operatorId, miner, validator });
}
