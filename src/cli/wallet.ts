import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createKeystore, exportKeystore, importKeystore } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import type { NetworkFolder } from '../node/index.ts';
import { formatShareKey, shareKeyOfWallet } from '../storage/index.ts';
import { depositToRails } from '../token/index.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { railsMoneyOf } from './rails-money.ts';
import { askNewPassword, askPassword, openWallet } from './secrets.ts';
import { openSender } from './sending.ts';
import { folderOf, openSession } from './session.ts';

/** Makes a key, encrypted on disk (Web3 Secret Storage v3). It is never printed. */
export async function walletCreate(context: CommandContext): Promise<void> {
  const folder = folderOf(context);
  requireNoWallet(folder);
  const { address } = await createKeystore({ path: folder.wallet, password: await askNewPassword() });
  context.output.result(
    { address, keystore: folder.wallet },
    () => `Wallet ${address}\nEncrypted in ${folder.wallet}: back up this file and remember the password; nobody can restore either.`,
  );
}

/** Address, sharing key and balances. */
export async function walletShow(context: CommandContext): Promise<void> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const { client } = session;
  const token = client.address('networkToken');
  const [wei, tokens, deposited, claimable, sharingKey, atRails] = await Promise.all([
    client.public.getBalance({ address: signer.address }),
    client.read('networkToken', 'balanceOf', [signer.address]),
    client.read('rails', 'balanceOf', [token, signer.address]),
    client.read('stakeVault', 'claimableOf', [signer.address]),
    shareKeyOfWallet(signer).then((pair) => formatShareKey(pair.publicKey)),
    railsMoneyOf(session, signer.address),
  ]);
  const { symbol } = session.manifest.tokens.network ?? { symbol: 'tokens' };
  context.output.result(
    { address: signer.address, sharingKey, wei, tokens, deposited, claimable, atRails, unit: symbol, decimals: TOKEN_DECIMALS },
    () =>
      [
        `address      ${signer.address}`,
        `sharing key  ${sharingKey}`,
        `gas          ${formatAmount(wei, TOKEN_DECIMALS)} ETH`,
        `tokens       ${formatAmount(tokens, TOKEN_DECIMALS)} ${symbol}`,
        ...atRails
          .filter(({ token, amount }) => token === 'network' || amount > 0n)
          .map(
            ({ amount, decimals, unit }) =>
              `at the rails ${formatAmount(amount, decimals)} ${unit} (pays for deals and jobs; unused: millrace wallet withdraw)`,
          ),
        `claimable    ${formatAmount(claimable, TOKEN_DECIMALS)} ${symbol} (from slashes)`,
      ].join('\n'),
  );
}

/** Takes over a keystore file under a new password. */
export async function walletImport(context: CommandContext, path: string): Promise<void> {
  const folder = folderOf(context);
  requireNoWallet(folder);
  const text = readKeystoreText(path);
  const password = await askPassword('Password of the keystore: ');
  const { address } = await importKeystore({
    text,
    password,
    path: folder.wallet,
    newPassword: process.env.MILLRACE_PASSWORD_FILE ? password : await askNewPassword(),
  });
  context.output.result({ address, keystore: folder.wallet }, () => `Wallet ${address} imported.`);
}

/** Writes the encrypted keystore to a file. */
export async function walletExport(context: CommandContext, path: string): Promise<void> {
  const folder = folderOf(context);
  if (!existsSync(folder.wallet))
    throw new MillraceError('no-wallet', {
      actor: 'caller',
      message: `There is no wallet in ${folder.root}`,
      values: { folder: folder.root },
      hint: 'Make one with `millrace wallet create`.',
    });
  const text = await exportKeystore({ path: folder.wallet, password: await askPassword('Password of the wallet: ') });
  writeNewFile(path, text);
  context.output.result({ keystore: path }, () => `Encrypted keystore written to ${path}.`);
}

/** Moves tokens into the account from which deals are paid. */
export async function walletDeposit(context: CommandContext, amountText: string): Promise<void> {
  await move(context, amountText, async (amount, { client, sender, token }) => {
    const held = await client.read('networkToken', 'balanceOf', [sender.address]);
    if (held < amount) {
      throw new MillraceError('no-funds', {
        actor: 'caller',
        message: `The wallet holds ${formatAmount(held, TOKEN_DECIMALS)} tokens, expected at least ${formatAmount(amount, TOKEN_DECIMALS)}`,
        values: { account: sender.address, got: held, expected: amount },
        hint: 'Nothing was sent. See `millrace wallet show`.',
      });
    }
    return depositToRails(client, { sender, token, amount });
  });
}

/** Sends tokens of the network, or with `--gas` the chain's own coin, to an account. */
export async function walletSend(context: CommandContext, to: string, amountText: string, options: { gas: boolean }): Promise<void> {
  const address = parseAddress('address', to);
  await move(context, amountText, async (amount, { sender }) =>
    options.gas
      ? sender.send({ to: address, value: amount })
      : sender.send({ contract: 'networkToken', functionName: 'transfer', args: [address, amount] }),
  );
}

type Moved = Awaited<ReturnType<typeof openSender>> & { token: `0x${string}` };

async function move(
  context: CommandContext,
  amountText: string,
  act: (amount: bigint, given: Moved) => Promise<{ hash: string }>,
): Promise<void> {
  const amount = parseAmount(amountText, TOKEN_DECIMALS);
  const opened = await openSender(context);
  try {
    const { hash } = await act(amount, { ...opened, token: opened.client.address('networkToken') });
    context.output.result({ amount, transaction: hash }, () => `Done: ${formatAmount(amount, TOKEN_DECIMALS)} (${hash})`);
  } finally {
    opened.sender.close();
  }
}

function writeNewFile(path: string, text: string): void {
  try {
    writeFileSync(path, text, { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === 'EEXIST';
    throw new MillraceError(exists ? 'output-exists' : 'output-unwritable', {
      actor: exists ? 'caller' : 'host',
      message: exists ? `${path} exists already` : `Cannot write ${path}: ${(cause as Error).message}`,
      values: { path },
      hint: 'Choose another name; a keystore is never overwritten.',
      cause,
    });
  }
}

function requireNoWallet(folder: NetworkFolder): void {
  if (existsSync(folder.wallet))
    throw new MillraceError('wallet-exists', {
      actor: 'caller',
      message: `There is a wallet already: ${folder.wallet}`,
      values: { path: folder.wallet },
      hint: 'Move it away first; it is never overwritten.',
    });
}

function readKeystoreText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new MillraceError('keystore-missing', {
      actor: 'caller',
      message: `Cannot read the keystore ${path}`,
      values: { path },
      hint: 'Give the path of a Web3 Secret Storage v3 file.',
      cause,
    });
  }
}
