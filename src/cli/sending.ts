import { type ChainClient, createSender, type Sender, type Signer } from '../chain/index.ts';
import type { CommandContext } from './context.ts';
import { openWallet } from './secrets.ts';
import { openSession, type Session } from './session.ts';

/** A session with the wallet opened and its transactions in hand. Close the sender when done. */
export async function openSender(context: CommandContext): Promise<Session & { client: ChainClient; signer: Signer; sender: Sender }> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const sender = createSender({ client: session.client, signer, journalFolder: session.folder.client, log: session.log });
  return { ...session, signer, sender };
}
