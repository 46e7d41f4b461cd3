import { join } from 'node:path';
import type { Signer } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { choosePaidSources, openPeerRecords, type PaidSources, type RetrievalCost, reportSellers } from '../storage/index.ts';
import { createPayer } from '../token/index.ts';
import type { CommandContext } from './context.ts';
import { takeSender } from './sending.ts';
import type { Session } from './session.ts';

/** Sources that may cost money; `close` frees the wallet and says what they did cost. */
export interface OpenPaidSources extends Pick<PaidSources, 'sources' | 'limits'> {
  close(reports: Parameters<PaidSources['finish']>[0]): Promise<RetrievalCost>;
}

/** A channel is filled for at most so many requests ahead: what is not used can be had back after the channel's delay. */
const DEPOSIT_REQUESTS = 1000n;
const REPORT_MS = 3000;

/**
 * Whom a content is read from within a budget, paid from the wallet's channels; undefined when nobody has it as a whole.
 * @throws price-too-low, key-in-use
 */
export async function openPaidSources(
  context: CommandContext,
  session: Session,
  wanted: { cid: string; signer: Signer; budget: bigint; chunkBytesMax?: number },
): Promise<OpenPaidSources | undefined> {
  const { client, folder } = session;
  const { signer, budget, cid, chunkBytesMax } = wanted;
  const sender = await takeSender(context, session, signer);
  const payer = await createPayer({
    client,
    signer,
    sender,
    folder: join(folder.client, 'channels'),
    depositRequests: DEPOSIT_REQUESTS,
    depositMax: budget,
  }).catch((error) => {
    sender.close();
    throw error;
  });
  const release = async () => {
    await payer.close();
    sender.close();
  };
  try {
    const records = openPeerRecords(recordsPath(session));
    const chosen = await choosePaidSources({ client, cid, payer, records, budget, chunkBytesMax, signal: context.signal });
    return {
      ...chosen,
      async close(reports) {
        const cost = chosen.finish(reports);
        await reportSellers({ client, signer, payer, records, cost, signal: AbortSignal.timeout(REPORT_MS) });
        await release();
        return cost;
      },
    };
  } catch (error) {
    await release();
    if (error instanceof MillraceError && error.code === 'no-holders') return undefined;
    throw error;
  }
}

/** The file of what this client saw of those it read from within a budget. */
export function recordsPath({ folder }: Session): string {
  return join(folder.client, 'retrievers.json');
}
