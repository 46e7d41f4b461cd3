import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { approveMeter, meterAllowance, railsBalance } from '../../token/index.ts';

/**
 * Sees to it that a court may take what a case costs from the sender's account at the rails, in the stake token.
 * @throws bond-missing when there is too little
 */
export async function allowBond(
  client: ChainClient,
  { sender, court, amount }: { sender: Sender; court: 'jobDisputes' | 'stateDemands'; amount: bigint },
): Promise<void> {
  const token = await client.read(court, 'token');
  const account = { payer: sender.address, meter: court, token } as const;
  const [balance, allowance] = await Promise.all([
    railsBalance(client, { token, account: sender.address }),
    meterAllowance(client, account),
  ]);
  if (balance < amount) {
    throw new MillraceError('bond-missing', {
      actor: 'caller',
      message: `${sender.address} has ${balance} of the stake token at the rails; a case needs ${amount}`,
      values: { account: sender.address, balance, needed: amount, court },
      hint: 'Deposit the stake token to the rails account of this key ("millrace wallet deposit"); without it nothing can be proven.',
    });
  }
  if (allowance < amount) await approveMeter(client, { sender, meter: court, token, allowance: amount });
}
