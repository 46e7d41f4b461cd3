import { writeFile } from 'node:fs/promises';
import { MillraceError } from '../errors.ts';
import { challengeDeal, demandBytes, showDeal } from '../storage/index.ts';
import { formatSize } from '../units.ts';
import type { CommandContext } from './context.ts';
import { dealNumber } from './put.ts';
import { openSender } from './sending.ts';

const POLL_MS = 1000;

/** Options of `millrace challenge`. */
export interface ChallengeOptions {
  bytes?: string;
  output?: string;
}

/**
 * Makes a provider prove one of your deals, and waits for the outcome: proven, or, after the deadline, ended with your compensation.
 */
export async function challenge(context: CommandContext, deal: string, options: ChallengeOptions): Promise<void> {
  if (options.bytes !== undefined) return force(context, deal, { ...options, bytes: options.bytes });
  const opened = await openSender(context);
  const { client, sender } = opened;
  const dealId = dealNumber(deal);
  try {
    const { deadline, bond } = await challengeDeal({ client, sender, dealId });
    context.output.note(
      `Deal ${deal} is challenged; the provider has until ${new Date(Number(deadline) * 1000).toISOString()} of chain time.`,
    );
    for (;;) {
      context.signal.throwIfAborted();
      const now = await showDeal(client, dealId);
      if (now.challengedAt === 0n && now.state !== 'terminated') {
        return context.output.result(
          { dealId, outcome: 'proven', bond, evidence: 'proven' },
          () => `Deal ${deal}: the provider proved that it holds the piece, and keeps the bond.`,
        );
      }
      if (now.state !== 'terminated' && (await client.now()) > deadline)
        await sender.send({ contract: 'storageMarket', functionName: 'terminate', args: [dealId] });
      else if (now.state !== 'terminated') await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      else
        return context.output.result(
          { dealId, outcome: 'terminated', bond },
          () => `Deal ${deal}: no proof before the deadline. It is ended; the slash compensates you (millrace wallet show).`,
        );
    }
  } finally {
    sender.close();
  }
}

/** Makes the provider publish bytes of the piece on chain, and writes them to a file. */
async function force(
  context: CommandContext,
  deal: string,
  { bytes, output: target }: ChallengeOptions & { bytes: string },
): Promise<void> {
  const range = /^(\d{1,15})-(\d{1,15})$/.exec(bytes);
  if (range === null || target === undefined) {
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: range === null ? `Got --bytes ${bytes}, expected FROM-TO` : '--bytes needs -o FILE for what comes',
      values: { got: bytes },
    });
  }
  const opened = await openSender(context);
  const progress = context.output.progress('Demanded');
  try {
    const payload = await demandBytes({
      client: opened.client,
      sender: opened.sender,
      dealId: dealNumber(deal),
      from: Number(range[1]),
      to: Number(range[2]),
      onProgress: ({ doneBytes, totalBytes }) => progress.update(doneBytes, totalBytes, formatSize(doneBytes)),
      signal: context.signal,
    });
    progress.end();
    await writeFile(target, payload, { flag: 'wx' });
    context.output.result(
      { dealId: dealNumber(deal), output: target, bytes: payload.length, evidence: 'proven' },
      () => `${formatSize(payload.length)} published by the provider on chain, verified against the piece: ${target}`,
    );
  } finally {
    progress.end();
    opened.sender.close();
  }
}
