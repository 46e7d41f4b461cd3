import { existsSync } from 'node:fs';
import { MillraceError } from '../errors.ts';
import { claimPermit, fetchRewards, findUid, readSubnet, readWaitingRewards, registerUid } from '../inference/index.ts';
import type { NetworkFolder } from '../node/index.ts';
import { claimBackerIncome, claimOperatorIncome, proposeTake, readIncome } from '../token/index.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { subnetNumber } from './model-node.ts';
import { type OwnNodeKind, operatorOf, ownNode } from './operator.ts';
import { openSender } from './sending.ts';
import { stakeUnitOf } from './session.ts';

/** Which operator: by number, else that of the miner, validator or provider here. */
interface PlaceOptions {
  operator?: string;
}

type Opened = Awaited<ReturnType<typeof openSender>> & { operatorId: bigint; unit: string };

const KINDS: readonly OwnNodeKind[] = ['miner', 'validator', 'provider'];
const BPS_OF_PERCENT = 2;

/** Takes a uid in a subnet for an operator of the wallet's, at its present price. */
export async function subnetRegister(context: CommandContext, id: string, options: PlaceOptions & { priceMax?: string }): Promise<void> {
  const subnetId = subnetNumber(id);
  const priceMax = options.priceMax === undefined ? undefined : parseAmount(options.priceMax, TOKEN_DECIMALS);
  await asOwner(context, options, async ({ client, sender, operatorId, unit }) => {
    const { registrationPrice: price } = await readSubnet(client, subnetId);
    context.output.note(`The next uid of subnet ${subnetId} costs ${formatAmount(price, TOKEN_DECIMALS)} ${unit} now, burnt.`);
    const uid = await registerUid(client, { sender, subnetId, operatorId, priceMax: priceMax ?? price });
    context.output.result(
      { subnetId, operatorId, uid, price, unit },
      () => `Operator ${operatorId} holds uid ${uid} of subnet ${subnetId}.`,
    );
  });
}

/** Takes a free permit for the operator's uid; anybody with enough stake may. */
export async function subnetPermit(context: CommandContext, id: string, options: PlaceOptions): Promise<void> {
  const subnetId = subnetNumber(id);
  await asOwner(context, options, async ({ client, sender, operatorId }) => {
    const uid = await findUid(client, { subnetId, operatorId });
    if (uid === undefined) throw noUid(subnetId, operatorId);
    await claimPermit({ sender, subnetId, uid });
    context.output.result({ subnetId, operatorId, uid }, () => `Uid ${uid} of subnet ${subnetId} may judge from this epoch on.`);
  });
}

/** What the operator keeps of its income as a validator before the rest is shared with its backers; holds after a delay. */
export async function subnetTake(context: CommandContext, percent: string, options: PlaceOptions): Promise<void> {
  const takeBps = Number(parseAmount(percent, BPS_OF_PERCENT));
  await asOwner(context, options, async ({ client, sender, operatorId }) => {
    await proposeTake({ sender, operatorId, takeBps });
    const present = await client.read('backerIncome', 'takeBpsOf', [operatorId]);
    context.output.result(
      { operatorId, takeBps, presentBps: present },
      () =>
        `Operator ${operatorId} will keep ${formatAmount(BigInt(takeBps), BPS_OF_PERCENT)} % after the delay; now it keeps ${present / 100} %.`,
    );
  });
}

/** What waits for the operator and the wallet: rewards of final epochs, and income of operator and backer. */
export async function subnetIncome(context: CommandContext, options: PlaceOptions): Promise<void> {
  await asOwner(context, options, async ({ client, sender, operatorId }) => {
    const [rewards, income] = await Promise.all([
      readWaitingRewards(client, { operatorId, account: sender.address }),
      readIncome(client, { operatorId, token: 'inference', backer: sender.address }),
    ]);
    context.output.result({ operatorId, rewards, income }, () =>
      [
        `Rewards that wait: ${formatAmount(rewards.miner, TOKEN_DECIMALS)} as a miner, ${formatAmount(rewards.validator, TOKEN_DECIMALS)} as a validator, ${formatAmount(rewards.account, TOKEN_DECIMALS)} as an owner of subnets.`,
        `Shared income that waits: ${formatAmount(income.operator, TOKEN_DECIMALS)} for the operator (it keeps ${income.takeBps / 100} %), ${formatAmount(income.backer, TOKEN_DECIMALS)} for this wallet as a backer.`,
        'All of it: millrace subnet claim',
      ].join('\n'),
    );
  });
}

/** Fetches all that waits: rewards, the operator's part to its beneficiary, and the wallet's part as a backer. */
export async function subnetClaim(context: CommandContext, options: PlaceOptions): Promise<void> {
  await asOwner(context, options, async ({ client, sender, operatorId }) => {
    const rewards = await fetchRewards(client, { sender, operatorId });
    const choice = { operatorId, token: 'inference' } as const;
    const waiting = await readIncome(client, { ...choice, backer: sender.address });
    const operator = waiting.operator > 0n ? await claimOperatorIncome(client, { sender, ...choice }) : 0n;
    const backer = waiting.backer > 0n ? await claimBackerIncome(client, { sender, ...choice }) : 0n;
    context.output.result(
      { operatorId, rewards, operator, backer },
      () =>
        `Fetched ${formatAmount(rewards.miner + rewards.account, TOKEN_DECIMALS)} of rewards, ${formatAmount(operator, TOKEN_DECIMALS)} of the operator’s part and ${formatAmount(backer, TOKEN_DECIMALS)} as a backer (inference token).`,
    );
  });
}

async function asOwner(context: CommandContext, options: PlaceOptions, act: (opened: Opened) => Promise<void>): Promise<void> {
  const opened = await openSender(context);
  try {
    const kind = options.operator === undefined ? kindHere(opened.folder) : undefined;
    const operatorId = await operatorOf(opened.client, opened.folder, { operator: options.operator, kind });
    await act({ ...opened, operatorId, unit: stakeUnitOf(opened.manifest) });
  } finally {
    opened.sender.close();
  }
}

function kindHere(folder: NetworkFolder): OwnNodeKind {
  return KINDS.find((kind) => existsSync(ownNode(folder, kind).keystore)) ?? 'miner';
}

function noUid(subnetId: bigint, operatorId: bigint): MillraceError {
  return new MillraceError('no-uid', {
    actor: 'caller',
    message: `Operator ${operatorId} holds no uid of subnet ${subnetId}`,
    values: { subnetId, operatorId },
    hint: `Take one: millrace subnet register ${subnetId}.`,
  });
}
