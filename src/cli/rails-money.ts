import type { Address, Hex } from 'viem';
import { MillraceError } from '../errors.ts';
import { claim, claimable, railsBalance, withdrawFromRails } from '../token/index.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { openSender } from './sending.ts';
import type { Session } from './session.ts';

/** What an account has at the rails in one token, base units: what it put there, and what came back of jobs, rentals and deals. */
export interface RailsMoney {
  /** The name that commands know it by: `network`, `stable`, `compute`, … */
  token: string;
  address: Address;
  unit: string;
  decimals: number;
  amount: bigint;
}

/** Money of an account at the rails that nothing holds: escrow of what runs is not in it. Every token of the network, also those with nothing. */
export async function railsMoneyOf({ client, manifest }: Session, account: Address): Promise<RailsMoney[]> {
  return await Promise.all(
    Object.entries(manifest.tokens).map(async ([token, { address, symbol, decimals }]) => {
      const amount = await railsBalance(client, { token: address, account });
      return { token, address, unit: symbol, decimals, amount };
    }),
  );
}

/** What lies at the rails, in words and with the way out; empty for nothing. */
export function railsMoneyText(money: readonly RailsMoney[]): string {
  const parts = money.filter(({ amount }) => amount > 0n).map(({ amount, decimals, unit }) => `${formatAmount(amount, decimals)} ${unit}`);
  return parts.length === 0 ? '' : `${parts.join(', ')} of yours lie unused at the rails: millrace wallet withdraw`;
}

/**
 * Brings money from the rails into the wallet: one amount of one token, or, without an amount, all of it (of every token, or of the one that is named) and
 * what slashes credited. Nothing to take is no error.
 * @throws bad-option for a token that the network does not have, insufficient-balance
 */
export async function walletWithdraw(context: CommandContext, amountText: string | undefined, options: { token?: string }): Promise<void> {
  const opened = await openSender(context);
  const { client, sender } = opened;
  try {
    const all = await railsMoneyOf(opened, sender.address);
    const wanted = amountText === undefined && options.token === undefined ? all : [tokenNamed(all, options.token ?? 'network')];
    const items: (Omit<RailsMoney, 'address'> & { transaction: Hex })[] = [];
    for (const { address, ...money } of wanted) {
      const amount = amountText === undefined ? money.amount : parseAmount(amountText, money.decimals);
      if (amount === 0n) continue;
      const { hash } = await withdrawFromRails(client, { sender, token: address, amount });
      items.push({ ...money, amount, transaction: hash });
    }
    const isAll = amountText === undefined && options.token === undefined;
    const credited = isAll && (await claimable(client, { account: sender.address })) > 0n ? await claim({ sender }) : 0n;
    context.output.result({ items, credited, next: null }, () => {
      const lines = items.map(({ amount, decimals, unit, transaction }) => `${formatAmount(amount, decimals)} ${unit} (${transaction})`);
      const credit =
        credited === 0n
          ? []
          : [`${formatAmount(credited, all.find(({ token }) => token === 'network')?.decimals ?? TOKEN_DECIMALS)} credited by slashes`];
      return lines.length + credit.length === 0
        ? 'Nothing of yours lies unused at the rails.'
        : ['In your wallet now:', ...lines, ...credit].join('\n');
    });
  } finally {
    opened.sender.close();
  }
}

function tokenNamed(all: readonly RailsMoney[], name: string): RailsMoney {
  const found = all.find(({ token, unit }) => token === name || unit === name);
  if (found !== undefined) return found;
  const known = all.map(({ token }) => token).join(', ');
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got --token ${name}, expected one of ${known}`,
    values: { got: name },
  });
}
