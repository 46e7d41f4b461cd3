import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError, toMillraceError } from '../errors.ts';
import type { BackendCapabilities, BackendModel, EngineSet, MinerModel } from '../inference/index.ts';
import type { Logger } from '../log.ts';
import {
  type BackendModelSetting,
  backendKey,
  backendModels,
  backendUrl,
  countOf,
  type InferenceSettings,
  inferenceSettings,
  listed,
  optionalCountOf,
  priceOfTask,
  timeLimitMs,
} from './inference-settings.ts';

const EMBEDDED_OUTPUT_MAX = 512;
const BACKEND_OUTPUT_MAX = 4096;
const COUNT_MAX = 1024;
const OUTPUT_MAX = 1 << 20;
/** Parameters that the embedded language model honours besides the plain ones. */
const EMBEDDED_PARAMETERS = ['seed', 'logprobs', 'top_k', 'stop'];
const FOREIGN_LIMITS = [
  'It runs on a server of the miner’s choice: nobody can prove which model answers, or that the miner runs it itself. Evidence: reputation only.',
];

/** The embedded models that the settings name. @throws bad-inference-setting, unknown-model */
export function embeddedModels(engines: EngineSet, given: InferenceSettings | undefined): MinerModel[] {
  return listed(inferenceSettings(given).inferenceModels).map((id) => {
    const engine = engines.engine(id);
    const { task } = engine.card;
    const parameters = task === 'chat' ? EMBEDDED_PARAMETERS : [];
    return { engine, parameters, price: priceOfTask(task, given), ...limitsOf(given, EMBEDDED_OUTPUT_MAX) };
  });
}

/**
 * The models of the backend that the settings name, with what it was seen to do. A backend that does not answer at a start is taken as it was when it
 * last did: its requests fail until it is back.
 * @throws bad-inference-setting, backend-key-missing, and as askBackend
 */
export async function backendMinerModels(
  given: InferenceSettings | undefined,
  { folder, log }: { folder: string; log: Logger },
): Promise<MinerModel[]> {
  const url = backendUrl(given);
  if (url === '') return [];
  const models = backendModels(given);
  if (models.length === 0) throw noBackendModel(url);
  const apiKey = backendKey(given);
  const idleTimeoutMs = timeLimitMs(given);
  const { createCheckedBackend } = await import('../inference/index.ts');
  const book = openCapabilityBook(join(folder, 'backend.json'));
  const found: MinerModel[] = [];
  for (const setting of models) {
    const { task, id, theirs } = setting;
    const capabilities = await knownCapabilities({ url, task, model: theirs, apiKey }, { book, log });
    const card = { id, task, licence: 'as its maker says', limits: [...FOREIGN_LIMITS, ...lacksOf(setting, capabilities)] };
    const limits = idleTimeoutMs === undefined ? {} : { headersTimeoutMs: idleTimeoutMs, idleTimeoutMs };
    found.push({
      engine: createCheckedBackend({ url, card, model: theirs, apiKey, limits }, capabilities),
      parameters: capabilities.parameters,
      price: priceOfTask(task, given),
      ...limitsOf(given, BACKEND_OUTPUT_MAX),
    });
  }
  return found;
}

function limitsOf(
  given: InferenceSettings | undefined,
  outputMax: number,
): Pick<MinerModel, 'outputUnitsMax' | 'concurrency' | 'waitingMax' | 'perPayerMax'> {
  return {
    outputUnitsMax: optionalCountOf('inferenceOutputMax', given, OUTPUT_MAX) ?? outputMax,
    concurrency: countOf('inferenceConcurrency', given, COUNT_MAX),
    waitingMax: optionalCountOf('inferenceQueue', given, COUNT_MAX * 4),
    perPayerMax: optionalCountOf('inferencePerPayer', given, COUNT_MAX * 4),
  };
}

/** What was not seen to work, in a sentence for people who choose a model. */
function lacksOf({ task }: BackendModelSetting, { parameters }: BackendCapabilities): string[] {
  if (task !== 'chat') return [];
  const lacking = ['tools', 'response_format', 'seed', 'logprobs'].filter((name) => !parameters.includes(name));
  return lacking.length === 0 ? [] : [`Not seen to work, and refused: ${lacking.join(', ')}.`];
}

async function knownCapabilities(asked: BackendModel, { book, log }: { book: CapabilityBook; log: Logger }): Promise<BackendCapabilities> {
  const { askBackend } = await import('../inference/index.ts');
  const name = `${asked.url} ${asked.task} ${asked.model}`;
  try {
    const capabilities = await askBackend(asked);
    book.keep(name, capabilities);
    log.info('backend-asked', { model: asked.model, task: asked.task, parameters: capabilities.parameters.join(',') });
    return capabilities;
  } catch (error) {
    const known = book.find(name);
    if (toMillraceError(error).code !== 'backend-unreachable' || known === undefined) throw error;
    log.warn('backend-unreachable', { model: asked.model, reason: 'it is taken as it was when it last answered' });
    return known;
  }
}

interface CapabilityBook {
  find(name: string): BackendCapabilities | undefined;
  keep(name: string, capabilities: BackendCapabilities): void;
}

/** What backends were seen to do, in a file; one that cannot be read counts as empty. */
function openCapabilityBook(path: string): CapabilityBook {
  let known: Record<string, BackendCapabilities> = {};
  try {
    known = JSON.parse(readFileSync(path, 'utf8')) as Record<string, BackendCapabilities>;
  } catch {
    // There is none yet.
  }
  return {
    find: (name) => (Object.hasOwn(known, name) ? known[name] : undefined),
    keep(name, capabilities) {
      known[name] = capabilities;
      writeFileDurably(path, `${JSON.stringify(known, null, 2)}\n`);
    },
  };
}

function noBackendModel(url: string): MillraceError {
  return new MillraceError('bad-inference-setting', {
    actor: 'caller',
    message: `The backend at ${new URL(url).origin} is to be served, and no model of it is named`,
    values: { setting: 'inferenceBackendModels', got: '', expected: 'task:name' },
    hint: 'For example --backend-model chat:llama3.2.',
  });
}
