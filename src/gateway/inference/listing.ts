import type { CallerKey } from './caller-keys.ts';
import type { MinerDirectory } from './miner-directory.ts';

/** The models of all miners, once each, with the first miner's price and how many serve it: OpenAI's fields, and ours besides. */
export function listModels(directory: MinerDirectory): Record<string, unknown>[] {
  const models = new Map<string, Record<string, unknown> & { millrace: { miners: number } }>();
  for (const { signed } of directory.all()) {
    for (const { id, task, root, unit, contextTokens, evidence, inputPerMillion, outputPerMillion, perRequest } of signed.offer.models) {
      const known = models.get(id);
      if (known !== undefined) {
        known.millrace.miners += 1;
        continue;
      }
      const price = {
        unit,
        inputPerMillion: inputPerMillion.toString(),
        outputPerMillion: outputPerMillion.toString(),
        perRequest: perRequest.toString(),
      };
      const millrace = { task, root, contextTokens: Number(contextTokens), evidence, price, miners: 1 };
      models.set(id, { id, object: 'model', created: 0, owned_by: 'millrace', millrace });
    }
  }
  return [...models.values()];
}

/** A key as its holder may see it. */
export function showKey(key: CallerKey | undefined): Record<string, unknown> {
  if (key === undefined) return { id: null };
  const { id, name, spent, budget, periodSeconds, periodStart, requestsPerMinute, models, expiresAt } = key;
  return {
    id,
    name,
    spent: spent.toString(),
    budget: budget?.toString(),
    periodSeconds,
    periodStart,
    requestsPerMinute,
    models,
    expiresAt,
  };
}
