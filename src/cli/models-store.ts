import { copyFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { EMBEDDED_MODELS, fetchModel, unknownModel } from '../inference/index.ts';
import type { CommandContext } from './context.ts';
import { type PutCommandOptions, put } from './put.ts';
import { openSession } from './session.ts';

/**
 * Stores the folder of an embedded model's files publicly, as the content that the list of models names: its CID is known to every miner.
 * Run again after an interruption, it goes on.
 */
export async function storeModel(
  context: CommandContext,
  model: string,
  options: Pick<PutCommandOptions, 'copies' | 'periods' | 'maxPrice'>,
): Promise<void> {
  const entry = EMBEDDED_MODELS.find(({ id }) => id === model);
  if (entry === undefined)
    throw unknownModel(
      model,
      EMBEDDED_MODELS.map(({ id }) => id),
    );
  const { folder } = await openSession(context);
  const models = join(folder.root, 'models');
  const files = await fetchModel(entry, { folder: models }, context.signal);
  const home = join(folder.client, 'models', entry.id);
  try {
    await mkdir(home, { recursive: true, mode: 0o700 });
    for (const { name, path } of files) await copyFile(path, join(home, name));
    await put(context, home, { ...options, public: true, distinct: false, market: false, distinctNetworks: false });
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}
