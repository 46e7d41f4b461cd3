import type { Address } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { approveMeter, depositToRails, meterAllowance, railsBalance, tokenBalance } from '../token/index.ts';

/**
 * Makes sure that deals of `amount` base units in all can be opened in the name of the sender's account: deposits what is
 * missing at the rails and lets the market take that amount, no more.
 * @throws no-funds
 */
export async function ensureFunds(options: { client: ChainClient; sender: Sender; amount: bigint }): Promise<void> {
  const { client, sender, amount } = options;
  const account = sender.address;
  const [wallet, deposited, allowance] = await Promise.all([
    tokenBalance(client, { token: 'network', account }),
    railsBalance(client, { token: 'network', account }),
    meterAllowance(client, { payer: account, meter: 'storageMarket', token: 'network' }),
  ]);
  if (wallet + deposited < amount) throw noFunds(account, { needed: amount, wallet, deposited });
  if (deposited < amount) await depositToRails(client, { sender, token: 'network', amount: amount - deposited });
  if (allowance < amount) await approveMeter(client, { sender, meter: 'storageMarket', token: 'network', allowance: amount });
}

function noFunds(account: Address, values: { needed: bigint; wallet: bigint; deposited: bigint }): MillraceError {
  return new MillraceError('no-funds', {
    actor: 'caller',
    message: `${account} has ${values.wallet + values.deposited} base units of the network's token, needs ${values.needed}`,
    values: { account, ...values },
    hint: 'Get more of the token, take fewer copies or periods, or end deals that are not needed.',
  });
}
