import { type ChainClient, createSender, type Sender, type Signer } from '../chain/index.ts';
import { systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import { openWallet } from './secrets.ts';
import { openSession, type Session } from './session.ts';

/** How long a command waits while another one sends with the same wallet; only one may, or their nonces would clash. */
const KEY_PATIENCE_MS = 30_000;
const POLL_MS = 200;

/**
 * A session with the wallet opened and its transactions in hand. Close the sender when done.
 * @throws key-in-use when another command holds the wallet for half a minute
 */
export async function openSender(context: CommandContext): Promise<Session & { client: ChainClient; signer: Signer; sender: Sender }> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  return { ...session, signer, sender: await takeSender(context, session, signer) };
}

/** Does something with the wallet's transactions in hand, and lets go of them for other commands. @throws key-in-use after half a minute */
export async function withSender<Result>(
  context: CommandContext,
  session: Session,
  signer: Signer,
  use: (sender: Sender) => Promise<Result>,
): Promise<Result> {
  const sender = await takeSender(context, session, signer);
  return await use(sender).finally(() => sender.close());
}

/** The sender of a wallet, as soon as no other command holds it. Close it when done. @throws key-in-use after half a minute */
export async function takeSender(context: CommandContext, session: Session, signer: Signer): Promise<Sender> {
  const deadlineMs = systemClock.nowMs() + KEY_PATIENCE_MS;
  for (let isSaid = false; ; isSaid = true) {
    try {
      return createSender({ client: session.client, signer, journalFolder: session.folder.client, log: session.log });
    } catch (error) {
      if (!(error instanceof MillraceError) || error.code !== 'key-in-use' || systemClock.nowMs() > deadlineMs) throw error;
      if (!isSaid) context.output.note('Another command is using this wallet; waiting for it …');
      await systemClock.sleep(POLL_MS, context.signal);
    }
  }
}
