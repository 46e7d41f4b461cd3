import type { ChainClient } from '../../chain/index.ts';
import type { Logger } from '../../log.ts';
import { listOperators, type OperatorView, storageDomainOf } from './chain-view.ts';
import { fetchAsk } from './provider-api.ts';
import type { Offer } from './select.ts';

/** What the market offers at this moment. */
export interface MarketSurvey {
  /** Verified asks of the providers that answered, with what the chain says of them. */
  offers: Offer[];
  /** All operators that say where they are reached, by number. */
  operators: Map<bigint, OperatorView>;
  /** Those that did not answer, or not with a usable ask. */
  silent: { operatorId: bigint; code: string }[];
}

const ASK_TIMEOUT_MS = 5000;
const ASKS_AT_ONCE = 32;

/** Asks all providers at once for their asks; whoever is silent for five seconds does not count. */
export async function surveyOffers(options: { client: ChainClient; log: Logger; signal?: AbortSignal }): Promise<MarketSurvey> {
  const { client, log } = options;
  const operators = await listOperators(client);
  const survey: MarketSurvey = { offers: [], operators: new Map(operators.map((view) => [view.operatorId, view])), silent: [] };
  const domain = storageDomainOf(client);
  const waiting = [...operators];
  const worker = async () => {
    for (let operator = waiting.shift(); operator !== undefined; operator = waiting.shift()) {
      options.signal?.throwIfAborted();
      try {
        const { signed, freeBytes, acceptsDeals } = await fetchAsk(operator, domain, {
          signal: options.signal,
          headersTimeoutMs: ASK_TIMEOUT_MS,
        });
        const { operatorId } = operator;
        const [availableStake, standing] = await Promise.all([
          client.read('stakeVault', 'availableOf', [operatorId]),
          client.read('possession', 'standing', [operatorId]),
        ]);
        const { owner, endpoint, region } = operator;
        survey.offers.push({
          operatorId,
          owner,
          endpoint,
          region,
          ask: signed.ask,
          availableStake,
          freeBytes,
          acceptsDeals,
          missesInRow: standing.missesInRow,
        });
      } catch (error) {
        options.signal?.throwIfAborted();
        const code = (error as { code?: string }).code ?? 'unexpected';
        log.debug('ask-failed', { operatorId: operator.operatorId, code });
        survey.silent.push({ operatorId: operator.operatorId, code });
      }
    }
  };
  await Promise.all(Array.from({ length: ASKS_AT_ONCE }, worker));
  survey.offers.sort((left, right) => (left.operatorId < right.operatorId ? -1 : 1));
  return survey;
}
