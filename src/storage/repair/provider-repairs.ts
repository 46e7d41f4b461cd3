import { join } from 'node:path';
import type { ChainClient, Sender } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import type { DealRecords } from '../market/deal-records.ts';
import type { PieceStore } from '../pieces/piece-store.ts';
import type { Duty } from '../provider/duty.ts';
import { fileKeeperDuty } from './file-keeper.ts';
import { openFileWatch } from './file-watch.ts';
import { openJobsOf, type RepairPolicy, repairerDuty } from './repairer.ts';

/** What a provider's part in keeping files alive stands on. */
export interface ProviderRepairsOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  records: DealRecords;
  store: PieceStore;
  folder: string;
  log: Logger;
  room(): Promise<{ freeBytes: bigint; accepting: boolean }>;
  everyMs: number;
  /** Repairs nothing when absent. */
  policy: RepairPolicy | undefined;
}

/** The duties of a provider for the files that it holds shards of, and for those of others; nothing to do in a network without an order book. */
export function openProviderRepairs(options: ProviderRepairsOptions): Record<'file-keeper' | 'repairer', Duty> {
  const { client, records, everyMs, policy } = options;
  const idle = (name: string): Duty => ({ name, everyMs: 3_600_000, run: async () => {} });
  const hasBook = client.manifest.modules.orderBook !== undefined;
  const holdsPartOf = (file: string) => records.all().some(({ terms }) => terms.client.toLowerCase() === file.toLowerCase());
  const hasJobs = async (file: `0x${string}`) => (await openJobsOf(client, { file })).length > 0;
  return {
    'file-keeper': hasBook
      ? fileKeeperDuty({ ...options, watch: openFileWatch(client, holdsPartOf), everyMs: everyMs * 5 })
      : idle('file-keeper'),
    repairer:
      hasBook && policy !== undefined
        ? repairerDuty({
            ...options,
            policy,
            folder: join(options.folder, 'repairs'),
            watch: openFileWatch(client, hasJobs),
            everyMs: everyMs * 3,
          })
        : idle('repairer'),
  };
}
