import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { developmentSigner, openKeystore, type Signer } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { CLIENT_INDEX, type NetworkFolder } from '../node/index.ts';
import type { CommandContext } from './context.ts';
import type { Session } from './session.ts';

/**
 * The key of the person at the keyboard: the wallet of this network when there is one, else on profile `dev` the public development key.
 * @throws no-wallet, wrong-password, no-password
 */
export async function openWallet(context: CommandContext, session: Pick<Session, 'folder' | 'manifest'>): Promise<Signer> {
  const { folder, manifest } = session;
  if (!existsSync(folder.wallet) && manifest.profile === 'dev') {
    context.output.note('Using the public development key: anyone can spend from it (profile dev).');
    return developmentSigner(CLIENT_INDEX, manifest.profile);
  }
  return ownWallet(folder);
}

/** The wallet in a network's folder. @throws no-wallet, wrong-password, no-password */
export async function ownWallet(folder: NetworkFolder): Promise<Signer> {
  if (existsSync(folder.wallet)) return openKeystore({ path: folder.wallet, password: await askPassword('Password of the wallet: ') });
  throw new MillraceError('no-wallet', {
    actor: 'caller',
    message: `There is no wallet in ${folder.root}`,
    values: { folder: folder.root },
    hint: 'Make one with `millrace wallet create`, or bring one with `millrace wallet import`.',
  });
}

/**
 * A password from the file named by MILLRACE_PASSWORD_FILE, else typed unseen on the terminal.
 * @throws no-password
 */
export async function askPassword(question: string): Promise<string> {
  const file = process.env.MILLRACE_PASSWORD_FILE;
  if (file) {
    try {
      return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
    } catch (cause) {
      throw new MillraceError('no-password', {
        actor: 'caller',
        message: `Cannot read the password file ${file}`,
        values: { file },
        cause,
      });
    }
  }
  if (!process.stdin.isTTY)
    throw new MillraceError('no-password', {
      actor: 'caller',
      message: 'A password is needed, and there is no terminal to type it on',
      hint: 'Set MILLRACE_PASSWORD_FILE to a file that holds it.',
    });
  process.stderr.write(question);
  const lines = createInterface({
    input: process.stdin,
    output: new Writable({ write: (_chunk, _encoding, done) => done() }),
    terminal: true,
  });
  return new Promise((resolve) => {
    lines.question('', (answer) => {
      lines.close();
      process.stderr.write('\n');
      resolve(answer);
    });
  });
}

/** A new password, typed twice on a terminal. @throws no-password, passwords-differ */
export async function askNewPassword(): Promise<string> {
  const password = await askPassword('New password: ');
  if (!process.env.MILLRACE_PASSWORD_FILE && (await askPassword('Again: ')) !== password) {
    throw new MillraceError('passwords-differ', { actor: 'caller', message: 'The two passwords differ' });
  }
  return password;
}
