/** A process that holds the shared engine of a folder (its argument), says its name and waits to be killed. */
import { join } from 'node:path';
import type { ModelCard } from './engine.ts';
import { createEngine, type EngineLimits } from './engine-host.ts';
import { shareEngine } from './engine-socket.ts';

/** The card of the engine that the host's tests command. */
export const OBEDIENT_CARD: ModelCard = {
  id: 'obedient',
  task: 'embedding',
  root: `0x${'ab'.repeat(32)}`,
  licence: 'none',
  limits: [],
  determinism: 'exact',
};

/** An engine that does what the texts of its requests say. */
export function createObedientEngine(limits: Partial<EngineLimits> = {}) {
  const kernel = join(import.meta.dirname, 'engine-host.cases.ts');
  return createEngine({ card: OBEDIENT_CARD, kernel, files: async () => [] }, { limits });
}

if (import.meta.main) {
  const engine = shareEngine(createObedientEngine(), process.argv[2] as string);
  const { vectors } = await engine.run({ task: 'embedding', texts: ['name'] }, { signal: new AbortController().signal });
  process.stdout.write(`${Buffer.from(vectors[0] as Float32Array).toString()}\n`);
  setInterval(() => {}, 60_000);
}
