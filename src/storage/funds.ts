import { type Address, encodeFunctionData, erc20Abi } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';

/** What an account can pay deals with, in base units of the network's token. */
export interface Funds {
  /** Held by the account itself. */
  wallet: bigint;
  /** Deposited at the rails, free for new deals. */
  deposited: bigint;
  /** How much more the storage market may take from the deposit. */
  allowance: bigint;
}

/** The account's funds for deals. */
export async function readFunds(client: ChainClient, account: Address): Promise<Funds> {
  const token = client.address('networkToken');
  const [wallet, deposited, allowance] = await Promise.all([
    client.public.readContract({ address: token, abi: erc20Abi, functionName: 'balanceOf', args: [account] }),
    client.read('rails', 'balanceOf', [token, account]),
    client.read('rails', 'allowanceOf', [account, client.address('storageMarket'), token]),
  ]);
  return { wallet, deposited, allowance };
}

/**
 * Makes sure that deals of `amount` base units in all can be opened in the name of the sender's account: deposits what is
 * missing at the rails and raises the market's allowance by what is missing, no more.
 * @throws no-funds
 */
export async function ensureFunds(options: { client: ChainClient; sender: Sender; amount: bigint }): Promise<void> {
  const { client, sender, amount } = options;
  const token = client.address('networkToken');
  const rails = client.address('rails');
  const funds = await readFunds(client, sender.address);
  const short = amount - funds.deposited;
  if (short > 0n) {
    if (funds.wallet < short) throw noFunds(sender.address, amount, funds);
    const approve = encodeFunctionData({ abi: erc20Abi, functionName: 'approve', args: [rails, short] });
    await sender.send({ to: token, data: approve });
    await sender.send({ contract: 'rails', functionName: 'deposit', args: [token, sender.address, short] });
  }
  if (funds.allowance < amount) {
    await sender.send({ contract: 'rails', functionName: 'approve', args: [client.address('storageMarket'), token, amount] });
  }
}

function noFunds(account: Address, needed: bigint, funds: Funds): MillraceError {
  return new MillraceError('no-funds', {
    actor: 'caller',
    message: `${account} has ${funds.wallet + funds.deposited} base units of the network's token, needs ${needed}`,
    values: { account, needed, wallet: funds.wallet, deposited: funds.deposited },
    hint: 'Get more of the token, take fewer copies or periods, or end deals that are not needed.',
  });
}
