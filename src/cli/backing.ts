import type { Manifest } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import {
  backerPositions,
  backingOf,
  backOperator,
  fetchBackerIncome,
  finishExit,
  pendingExits,
  requestBackerExit,
  type TokenAmount,
} from '../token/index.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { chainTime, operatorNumber } from './operator.ts';
import { table } from './output.ts';
import { openWallet } from './secrets.ts';
import { openSender } from './sending.ts';
import { openSession, stakeUnitOf, unitOf } from './session.ts';

const BPS_OF_PERCENT = 100;

/** Puts the wallet's tokens behind an operator: a part of its income, and of its slashes after its own stake. */
export async function back(context: CommandContext, operator: string, amountText: string): Promise<void> {
  const operatorId = operatorNumber(operator);
  const amount = parseAmount(amountText, TOKEN_DECIMALS);
  const { client, sender, manifest } = await openSender(context);
  try {
    const takeBps = await client.read('backerIncome', 'takeBpsOf', [operatorId]);
    const bought = await backOperator(client, { sender, operatorId, amount });
    const position = await backingOf(client, { operatorId, backer: sender.address });
    context.output.result({ operatorId, amount, bought, shares: position.shares, worth: position.amount, takeBps }, () =>
      [
        `${formatAmount(amount, TOKEN_DECIMALS)} ${stakeUnitOf(manifest)} back operator ${operatorId}, which keeps ${takeBps / BPS_OF_PERCENT} % of its income and shares the rest.`,
        'When it is slashed its own stake goes first, then a part of its backers’. What waits: millrace backing',
      ].join('\n'),
    );
  } finally {
    sender.close();
  }
}

/** Whom the wallet backs, what that is worth, and what waits for it. */
export async function backing(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const { client, manifest } = session;
  const { address } = await openWallet(context, session);
  const [items, leaving] = await Promise.all([backerPositions(client, { backer: address }), pendingExits(client, { requester: address })]);
  context.output.result({ items, leaving, next: null }, () => {
    if (items.length === 0) return 'This wallet backs nobody. Whom to back: millrace provider show; then millrace back OPERATOR AMOUNT';
    const rows = items.map((item) => [
      String(item.operatorId),
      formatAmount(item.amount, TOKEN_DECIMALS),
      formatAmount(item.ownStake, TOKEN_DECIMALS),
      `${item.takeBps / BPS_OF_PERCENT} %`,
      incomeText(manifest, item.income),
    ]);
    return [
      `In ${stakeUnitOf(manifest)}. Fetch all that waits: millrace backing withdraw`,
      table(['operator', 'backed', 'its own stake', 'its take', 'income that waits'], rows),
      ...leaving.map(
        (exit) =>
          `${formatAmount(exit.amount, TOKEN_DECIMALS)} leaves operator ${exit.operatorId}, from ${chainTime(exit.withdrawableFrom)}`,
      ),
    ].join('\n');
  });
}

/** Takes tokens from behind an operator, all of them unless told otherwise; they are paid after the delay and can be slashed until then. */
export async function backingLeave(context: CommandContext, operator: string, options: { amount?: string }): Promise<void> {
  const operatorId = operatorNumber(operator);
  const { client, sender } = await openSender(context);
  try {
    const held = await backingOf(client, { operatorId, backer: sender.address });
    if (held.shares === 0n) throw notBacked(operatorId);
    const wanted = options.amount === undefined ? held.amount : parseAmount(options.amount, TOKEN_DECIMALS);
    const shares = wanted >= held.amount ? held.shares : (wanted * held.shares) / held.amount;
    const ticket = await requestBackerExit({ sender, operatorId, shares });
    context.output.result(
      { operatorId, shares, ...ticket },
      () =>
        `${formatAmount(ticket.amount, TOKEN_DECIMALS)} no longer backs operator ${operatorId}. From ${chainTime(ticket.withdrawableFrom)}: millrace backing withdraw`,
    );
  } finally {
    sender.close();
  }
}

/** Fetches what is due to the wallet as a backer: its part of incomes, and what has left and waited long enough. */
export async function backingWithdraw(context: CommandContext): Promise<void> {
  const { client, sender, manifest } = await openSender(context);
  try {
    const income: (TokenAmount & { operatorId: bigint })[] = [];
    for (const { operatorId } of await backerPositions(client, { backer: sender.address })) {
      for (const paid of await fetchBackerIncome(client, { sender, operatorId })) income.push({ operatorId, ...paid });
    }
    const [now, exits] = [await client.now(), await pendingExits(client, { requester: sender.address })];
    let stake = 0n;
    for (const { exitId } of exits.filter((exit) => exit.withdrawableFrom <= now)) stake += await finishExit({ sender, exitId });
    const waiting = exits.filter((exit) => exit.withdrawableFrom > now);
    context.output.result({ stake, income, waiting }, () =>
      [
        `Stake ${formatAmount(stake, TOKEN_DECIMALS)} ${stakeUnitOf(manifest)}; income ${incomeText(manifest, income)}.`,
        ...waiting.map((exit) => `${formatAmount(exit.amount, TOKEN_DECIMALS)} from ${chainTime(exit.withdrawableFrom)}`),
      ].join('\n'),
    );
  } finally {
    sender.close();
  }
}

function incomeText(manifest: Manifest, income: readonly TokenAmount[]): string {
  if (income.length === 0) return 'none';
  return income.map(({ token, amount }) => `${formatAmount(amount, TOKEN_DECIMALS)} ${unitOf(manifest, token)}`).join(', ');
}

function notBacked(operatorId: bigint): MillraceError {
  return new MillraceError('not-backed', {
    actor: 'caller',
    message: `This wallet does not back operator ${operatorId}`,
    values: { operatorId },
    hint: 'See `millrace backing`.',
  });
}
