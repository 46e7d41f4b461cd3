import { createHash } from 'node:crypto';
import type { ModelCard } from './engine.ts';
import type { ModelEntry } from './models.ts';

/** The root of a model: SHA-256 over the hashes of all files that it is loaded from and the revision of the code around them. */
export function modelRoot(id: string, files: readonly { name: string; sha256: string }[], revision: number): `0x${string}` {
  const lines = ['millrace/model/1', id, `revision ${revision}`, ...files.map(({ name, sha256 }) => `${sha256} ${name}`).sort()];
  return `0x${createHash('sha256')
    .update(`${lines.join('\n')}\n`)
    .digest('hex')}`;
}

/** The card of an embedded model. */
export function cardOf(entry: ModelEntry): ModelCard {
  return {
    id: entry.id,
    task: entry.task,
    root: modelRoot(entry.id, entry.files, entry.revision),
    licence: entry.licence,
    limits: entry.limits,
    determinism: 'exact',
    ...(entry.voices === undefined ? {} : { voices: entry.voices }),
    ...(entry.dimensions === undefined ? {} : { dimensions: entry.dimensions }),
    ...(entry.labels === undefined ? {} : { labels: entry.labels }),
  };
}
