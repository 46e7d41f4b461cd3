import type { Address } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { approveMeter, depositToRails, meterAllowance, railsBalance, tokenBalance } from '../../token/index.ts';

/** What is needed for, and the amount in base units that it still needs. */
type Reservations = Map<object, bigint>;

const ATTEMPTS = 5;

/** Work on one account's funds takes turns, and adds up what is under way: puts run side by side. */
const accounts = new WeakMap<Sender, { turn: Promise<unknown>; reservations: Reservations }>();

/**
 * Makes sure that the sender's account can open deals of `amount` base units for `purpose` (any object), beside what it
 * needs for other purposes at this moment: deposits what is missing at the rails and lets the market take the sum, no
 * more. Call it again with what is left when deals have been opened, at last with 0.
 * @throws no-funds
 */
export function reserveFunds(options: { client: ChainClient; sender: Sender; amount: bigint; purpose: object }): Promise<void> {
  const { sender, amount, purpose } = options;
  const account = accounts.get(sender) ?? { turn: Promise.resolve(), reservations: new Map() };
  accounts.set(sender, account);
  const { reservations } = account;
  const before = reservations.get(purpose) ?? 0n;
  if (amount === 0n) reservations.delete(purpose);
  else reservations.set(purpose, amount);
  if (amount <= before) return Promise.resolve();
  const sum = () => [...reservations.values()].reduce((total, each) => total + each, 0n);
  const turn = account.turn.catch(() => {}).then(() => coverWithRetry(options, sum));
  account.turn = turn;
  return turn;
}

/** Deals that are opened meanwhile take from deposit and allowance, which may make a transaction fail: look again. */
async function coverWithRetry(options: { client: ChainClient; sender: Sender }, needed: () => bigint): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await cover(options, needed());
    } catch (error) {
      const isRace = error instanceof MillraceError && (error.code === 'out-of-gas' || error.code === 'erc20-insufficient-allowance');
      if (!isRace || attempt === ATTEMPTS) throw error;
    }
  }
}

async function cover({ client, sender }: { client: ChainClient; sender: Sender }, needed: bigint): Promise<void> {
  const account = sender.address;
  const [wallet, deposited, allowance] = await Promise.all([
    tokenBalance(client, { token: 'network', account }),
    railsBalance(client, { token: 'network', account }),
    meterAllowance(client, { payer: account, meter: 'storageMarket', token: 'network' }),
  ]);
  if (wallet + deposited < needed) throw noFunds(account, { needed, wallet, deposited });
  if (deposited < needed) await depositToRails(client, { sender, token: 'network', amount: needed - deposited });
  if (allowance < needed) await approveMeter(client, { sender, meter: 'storageMarket', token: 'network', allowance: needed });
}

function noFunds(account: Address, values: { needed: bigint; wallet: bigint; deposited: bigint }): MillraceError {
  return new MillraceError('no-funds', {
    actor: 'caller',
    message: `${account} has ${values.wallet + values.deposited} base units of the network's token, needs ${values.needed}`,
    values: { account, ...values },
    hint: 'Get more of the token, take fewer copies or periods, or end deals that are not needed.',
  });
}
