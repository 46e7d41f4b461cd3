import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { startDuties, watchHead } from '../provider/duty.ts';
import { openBookView } from './book-view.ts';
import { matcherDuty } from './matcher-duty.ts';
import { watcherDuty } from './watcher.ts';

/** What a duty that runs without a provider stands on. */
export interface LoneDutyOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  log: Logger;
  everyMs?: number;
}

/** A duty that runs until it is stopped. */
export interface LoneDuty {
  stop(): Promise<void>;
}

/** Matches and settles the batches of the order book, for the tip of each bid that it fills. */
export function startMatcher(options: LoneDutyOptions): LoneDuty {
  const { client, log } = options;
  return startDuties([matcherDuty({ ...options, view: openBookView(client) })], { log, head: watchHead(client) });
}

/** Looks after the files whose owner or agent this key is: acknowledges, and challenges out of their budgets. */
export function startWatcher(options: LoneDutyOptions): LoneDuty {
  return startDuties([watcherDuty(options)], { log: options.log, head: watchHead(options.client) });
}
