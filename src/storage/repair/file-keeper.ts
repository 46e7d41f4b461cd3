import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { readDeal } from '../market/chain-view.ts';
import type { ShardView, StoredFile } from '../orders/stored-files.ts';
import { callFile } from '../orders/stored-files.ts';
import type { Duty } from '../provider/duty.ts';
import { keepDeals } from '../provider/keeper.ts';
import type { FileWatch } from './file-watch.ts';

/** What keeping files stands on. */
export interface FileKeeperOptions {
  client: ChainClient;
  sender: Sender;
  log: Logger;
  watch: FileWatch;
  everyMs: number;
}

/** A step that anyone may take for a shard. */
export type ShardStep = 'noteLoss' | 'finishRepair' | 'failClaim';

/** What is due for a shard by the rules of `StorageFile`, or undefined. Pure. */
export function shardStep(shard: Pick<ShardView, 'state' | 'deal'>, claimState: string | undefined): ShardStep | undefined {
  if (shard.state === 'live') return shard.deal !== undefined && isLost(shard.deal.state) ? 'noteLoss' : undefined;
  if (shard.state !== 'claimed' || claimState === undefined || claimState === 'open') return undefined;
  return claimState === 'active' || claimState === 'faulty' ? 'finishRepair' : 'failClaim';
}

const isLost = (state: string): boolean => state === 'terminated' || state === 'expired';
/** Of several keepers the slower find the work done. */
const DONE_BY_OTHERS = new Set(['wrong-shard-state', 'not-lost', 'claim-not-over', 'claim-not-fulfilled', 'zero-amount', 'too-late']);

/**
 * The duty to do for files what anyone may do: to end deals that are beyond mending, so that the loss is final, to note the
 * loss, which opens the job, to pay the repairer whose proof has come and to end a claim that was not kept, and to collect
 * compensation. Every holder of a shard and the owner's own node do it; it stops for none of them, and a failure with one file does not
 * keep the others waiting.
 */
export function fileKeeperDuty(options: FileKeeperOptions): Duty {
  return {
    name: 'file-keeper',
    everyMs: options.everyMs,
    async run(signal) {
      for (const file of await options.watch.running()) {
        signal.throwIfAborted();
        await keepFile(options, file).catch((error: unknown) => {
          const { code, message } = error as MillraceError;
          options.log.warn('file-not-kept', { bidId: file.bidId, code, reason: message });
        });
      }
    },
  };
}

async function keepFile(options: FileKeeperOptions, file: StoredFile): Promise<void> {
  const { client, sender, log } = options;
  await keepDeals(
    options,
    file.shards.flatMap(({ deal }) => (deal === undefined ? [] : [deal])),
  );
  for (const shard of file.shards) {
    const dealId = shard.state === 'claimed' ? shard.claimDealId : shard.dealId;
    if (dealId === 0n) continue;
    const deal = await readDeal(client, dealId);
    if (shard.state === 'claimed') await keepDeals(options, [deal]);
    const now = shard.state === 'claimed' ? shard : { ...shard, deal };
    const step = shardStep(now, shard.state === 'claimed' ? (await readDeal(client, dealId)).state : undefined);
    if (step === undefined) continue;
    if (await attempt(() => callFile(sender, { file: file.file, functionName: step, args: [shard.index] }))) {
      log.info('shard-kept', { bidId: file.bidId, shard: shard.index, step, dealId });
    }
  }
  if ((await client.read('stakeVault', 'claimableOf', [file.file])) > 0n) {
    await attempt(() => callFile(sender, { file: file.file, functionName: 'collect', args: [] }));
  }
}

/** Whether a step was taken; false when somebody else was faster. */
async function attempt(step: () => Promise<unknown>): Promise<boolean> {
  try {
    await step();
    return true;
  } catch (error) {
    if (error instanceof MillraceError && DONE_BY_OTHERS.has(error.code)) return false;
    throw error;
  }
}
