import type { Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import type { DealRecords } from '../market/deal-records.ts';
import type { Duty } from '../provider/duty.ts';
import type { ProviderPolicy } from '../provider/intake.ts';
import { openBookView } from './book-view.ts';
import { matchedDealsDuty } from './matched-deals.ts';
import { matcherDuty } from './matcher-duty.ts';
import { openStandingAsk } from './standing-ask.ts';
import { verdictsDuty } from './verdicts.ts';

/** What a provider's part in the order book stands on. */
export interface ProviderOrdersOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  policy: ProviderPolicy;
  records: DealRecords;
  log: Logger;
  /** Room for new deals, and whether the provider takes any. */
  room(): Promise<{ freeBytes: bigint; accepting: boolean }>;
  holds(pieceRoot: Hex): boolean;
  everyMs: number;
}

/** The duties of a provider at the order book, by name. */
export type OrderDuties = Record<'standing-ask' | 'matched-deals' | 'verdicts' | 'matcher', Duty>;

/** A provider's part in the order book. */
export interface ProviderOrders {
  duties: OrderDuties;
  promisedBytes(): bigint;
}

/** Opens a provider's part in the order book; in a network without one its duties have nothing to do. */
export function openProviderOrders(options: ProviderOrdersOptions): ProviderOrders {
  const { client, sender, log, everyMs, policy } = options;
  const ask = policy.orders === undefined ? undefined : openStandingAsk({ ...options, orders: policy.orders, everyMs: everyMs * 2 });
  const hasBook = client.manifest.modules.orderBook !== undefined;
  const duties: OrderDuties = {
    'standing-ask': ask?.duty ?? idle('standing-ask'),
    'matched-deals': matchedDealsDuty(options),
    verdicts: verdictsDuty(options),
    matcher: matcherDuty({ client, sender, log, view: openBookView(client), everyMs }),
  };
  if (!hasBook) for (const name of Object.keys(duties) as (keyof OrderDuties)[]) duties[name] = idle(name);
  return { duties, promisedBytes: () => ask?.promisedBytes() ?? 0n };
}

function idle(name: string): Duty {
  return { name, everyMs: 3_600_000, run: async () => {} };
}
