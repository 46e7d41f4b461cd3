import { SHARE_WARNING, share as shareContent, shareKeyOfWallet, sourcesOf } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';

/** Makes a grant with which the recipient, and nobody else, can open a content. */
export async function share(context: CommandContext, cid: string, options: { to: string }): Promise<void> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const { grant } = await shareContent({
    cid,
    to: options.to,
    sources: await sourcesOf(session.client, cid),
    keys: { shareKeys: [await shareKeyOfWallet(signer)] },
    signal: context.signal,
  });
  context.output.note(SHARE_WARNING);
  context.output.result(
    { cid, to: options.to, grant, warning: SHARE_WARNING },
    () => `${grant}\nThe recipient runs: millrace open GRANT -o NAME`,
  );
}
