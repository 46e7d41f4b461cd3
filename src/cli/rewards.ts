import { MillraceError } from '../errors.ts';
import { claimRewards, hasRewards, rewardEvents, rewardRecordOf, rewardsOf } from '../storage/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { wholeNumber } from './put.ts';
import { openSender } from './sending.ts';
import { openSession, type Session, stakeUnitOf } from './session.ts';

/** What operators and one beneficiary earned in rewards, and the events that it is the sum of. */
export async function rewards(context: CommandContext, options: { account?: string; lines: string }): Promise<void> {
  const session = await openSession(context);
  requireRewards(session);
  const { client, manifest } = session;
  const limit = wholeNumber('--lines', options.lines);
  const count = await client.read('operators', 'operatorCount');
  const ids = Array.from({ length: Number(count) }, (_, index) => BigInt(index + 1));
  const operators = await Promise.all(ids.map((operatorId) => rewardRecordOf(client, operatorId)));
  const given = options.account === undefined ? undefined : parseAddress('--account', options.account);
  const wanted = given === undefined ? [...new Set(operators.map(({ beneficiary }) => beneficiary))] : [given];
  const accounts = await Promise.all(
    wanted.map(async (account) => ({ ...(await rewardsOf(client, account)), events: await rewardEvents(client, account, limit) })),
  );
  const unit = stakeUnitOf(manifest);
  context.output.result({ accounts, operators, unit, next: null }, () =>
    [
      `In ${unit}; a share of the fees burnt on stored and served bytes. Claim what is claimable with the account's wallet: millrace rewards claim`,
      table(
        ['account', 'earned', 'vested', 'claimed', 'claimable'],
        accounts.map((row) => [row.account, ...[row.earned, row.vested, row.claimed, row.claimable].map(amount)]),
      ),
      '',
      table(
        ['provider', 'reliability', 'in a row', 'fees a period', 'earned', 'beneficiary'],
        operators.map((row) => [
          String(row.operatorId),
          `${row.reliabilityBps / 100} %`,
          String(row.streak),
          amount(row.feesPerPeriod),
          amount(row.earned),
          row.beneficiary,
        ]),
      ),
      '',
      table(
        ['block', 'what', 'provider', 'period', 'fees burnt', 'amount', 'transaction'],
        accounts.flatMap(({ events }) =>
          events.map((event) => [
            String(event.blockNumber),
            event.kind,
            String(event.operatorId ?? ''),
            String(event.period ?? ''),
            event.fees === 0n ? '' : amount(event.fees),
            amount(event.amount),
            event.transactionHash,
          ]),
        ),
      ),
    ].join('\n'),
  );
}

/** Pays out what has vested of this wallet's rewards. */
export async function rewardsClaim(context: CommandContext, options: { to?: string }): Promise<void> {
  const to = options.to === undefined ? undefined : parseAddress('--to', options.to);
  const { sender, ...session } = await openSender(context);
  try {
    requireRewards(session);
    const { amount: paid, transaction } = await claimRewards(sender, to ?? sender.address);
    const left = await rewardsOf(session.client, sender.address);
    context.output.result(
      { amount: paid, to: to ?? sender.address, transaction, vesting: left.vesting },
      () => `${amount(paid)} paid to ${to ?? sender.address}; ${amount(left.vesting)} still to vest.\n  transaction ${transaction}`,
    );
  } finally {
    sender.close();
  }
}

function requireRewards({ client, manifest }: Pick<Session, 'client' | 'manifest'>): void {
  if (hasRewards(client)) return;
  throw new MillraceError('no-rewards', {
    actor: 'caller',
    message: `The network ${manifest.name} has no rewards`,
    values: { network: manifest.name },
    hint: 'It was deployed by an earlier version of Millrace.',
  });
}

function amount(units: bigint): string {
  return formatAmount(units, TOKEN_DECIMALS);
}
