import { MillraceError, toMillraceError } from '../../errors.ts';
import type { ChatRequest, ChatResult, Engine, ModelCard, SamplingParameters, TaskType } from '../engines/engine.ts';
import { readJsonObject } from './call.ts';
import { unsupported } from './failure.ts';
import { readAll, sendHttp } from './http-client.ts';
import { type BackendOptions, createOpenAiBackend } from './openai-backend.ts';

/** What a backend turned out to do for one model. */
export interface BackendCapabilities {
  /** As the backend states it: input and output together. */
  contextTokens?: number;
  /** Parameters beside the plain ones that were tried and worked, by OpenAI's names. */
  parameters: string[];
  /** Length of an embedding. */
  dimensions?: number;
}

/** A model at a backend, before anything is known of it. */
export interface BackendModel {
  url: string;
  task: TaskType;
  /** The name of the model there. */
  model: string;
  apiKey?: string;
}

const MODELS_BYTES_MAX = 4 << 20;
const ASK_MS = 120_000;
const SHOWN_MAX = 12;
const ANSWER_TOKENS = 24;
const SCHEMA = { type: 'object', properties: { open: { type: 'boolean' } }, required: ['open'], additionalProperties: false };
/** Tasks that a backend with OpenAI's paths can do. */
const BACKEND_TASKS: readonly TaskType[] = ['chat', 'embedding', 'image-generation', 'speech', 'transcription', 'moderation'];

/**
 * Asks a backend what it does: whether it has the model and how long its context is (`GET models`, as llama.cpp, Ollama and vLLM state it), and by
 * a few small requests which parameters it honours. What it does not show is refused to callers, never promised.
 * @throws backend-unreachable, backend-key-refused, backend-model-missing, backend-unusable, backend-cannot-do
 */
export async function askBackend(asked: BackendModel, signal: AbortSignal = AbortSignal.timeout(ASK_MS)): Promise<BackendCapabilities> {
  if (!BACKEND_TASKS.includes(asked.task)) throw cannotDo(asked);
  const contextTokens = await findModel(asked, signal);
  const engine = createOpenAiBackend(optionsOf(asked, { id: asked.model, task: asked.task, licence: '', limits: [] }));
  try {
    if (asked.task === 'embedding') {
      const { vectors } = await required(asked, engine.run({ task: 'embedding', texts: ['mill'] }, { signal }));
      return { contextTokens, parameters: [], dimensions: vectors[0]?.length };
    }
    if (asked.task !== 'chat') return { contextTokens, parameters: [] };
    return { contextTokens, parameters: await chatParameters(asked, engine, signal) };
  } finally {
    await engine.close();
  }
}

/** An engine of a backend that refuses what the backend was not seen to do. */
export function createCheckedBackend(options: BackendOptions, { parameters, ...card }: BackendCapabilities): Engine {
  const engine = createOpenAiBackend({ ...options, card: { ...card, ...options.card } });
  return {
    card: engine.card,
    async run(request, run) {
      if (request.task === 'chat') refuseUnseen(request as ChatRequest, parameters);
      return engine.run(request, run);
    },
    state: () => engine.state(),
    warm: () => engine.warm(),
    close: () => engine.close(),
  };
}

function refuseUnseen({ sampling, tools, toolChoice }: ChatRequest, parameters: readonly string[]): void {
  const asked: [string, unknown][] = [
    ['tools', tools ?? toolChoice],
    ['response_format', sampling.responseFormat],
    ['seed', sampling.seed],
    ['logprobs', sampling.logprobs],
    ['top_k', sampling.topK],
    ['stop', sampling.stop],
    ['frequency_penalty', sampling.frequencyPenalty],
    ['presence_penalty', sampling.presencePenalty],
  ];
  for (const [name, value] of asked) {
    if (value !== undefined && !parameters.includes(name)) throw unsupported(name, `The backend of this model was not seen to do ${name}`);
  }
}

function optionsOf({ url, model, apiKey }: BackendModel, card: BackendOptions['card'] & Pick<ModelCard, 'id'>): BackendOptions {
  return { url, card, model, apiKey, limits: { headersTimeoutMs: ASK_MS, answerBytesMax: 8 << 20 } };
}

/** Tries each parameter by a request whose answer shows whether it was honoured; those that leave no trace count when they are taken. */
async function chatParameters(asked: BackendModel, engine: Engine, signal: AbortSignal): Promise<string[]> {
  const ask = (sampling: SamplingParameters, more: Partial<ChatRequest> = {}): Promise<ChatResult> => {
    const messages: ChatRequest['messages'] = [{ role: 'user', content: [{ type: 'text', text: 'Is the gate open? Say so in JSON.' }] }];
    return engine.run<ChatRequest>(
      { task: 'chat', messages, sampling: { outputTokensMax: ANSWER_TOKENS, ...sampling }, ...more },
      { signal },
    );
  };
  await required(asked, ask({}));
  const tool = { name: 'open_gate', description: 'Opens the gate.', parameters: SCHEMA };
  const seeded = async () => (await ask({ seed: 7, temperature: 1 })).text;
  const tries: [string, () => Promise<boolean>][] = [
    ['seed', async () => new Set([await seeded(), await seeded()]).size === 1],
    ['logprobs', async () => ((await ask({ logprobs: 0 })).logprobs ?? []).length > 0],
    ['tools', async () => (await ask({}, { tools: [tool], toolChoice: 'required' })).toolCalls[0]?.name === tool.name],
    ['response_format', async () => fitsSchema((await ask({ responseFormat: { type: 'schema', name: 'gate', schema: SCHEMA } })).text)],
    ['top_k', async () => isAnswer(await ask({ topK: 5 }))],
    ['stop', async () => !(await ask({ stop: ['e'] })).text.includes('e')],
    ['frequency_penalty', async () => isAnswer(await ask({ frequencyPenalty: 0.5 }))],
    ['presence_penalty', async () => isAnswer(await ask({ presencePenalty: 0.5 }))],
  ];
  const honoured: string[] = [];
  for (const [name, isHonoured] of tries) {
    try {
      if (await isHonoured()) honoured.push(name);
    } catch (error) {
      const { code } = toMillraceError(error);
      // Only a refusal says something about the parameter.
      if (!['backend-refused', 'engine-failed'].includes(code)) throw unusable(asked, error);
    }
  }
  return honoured;
}

function isAnswer({ text }: ChatResult): boolean {
  return text !== '';
}

function fitsSchema(text: string): boolean {
  try {
    return typeof (JSON.parse(text) as { open?: unknown }).open === 'boolean';
  } catch {
    return false;
  }
}

/** The context of a model by the backend's own list; undefined where it states none. A list that is empty or absent says nothing. */
async function findModel(asked: BackendModel, signal: AbortSignal): Promise<number | undefined> {
  const { url, model, apiKey } = asked;
  let status: number | undefined;
  let bytes: Buffer;
  try {
    const answer = await sendHttp({
      url: new URL('models', url.endsWith('/') ? url : `${url}/`),
      method: 'GET',
      headers: apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` },
      signal,
      headersTimeoutMs: ASK_MS,
      idleTimeoutMs: ASK_MS,
    });
    status = answer.statusCode;
    bytes = await readAll(answer, MODELS_BYTES_MAX);
  } catch (error) {
    throw unreachable(asked, error);
  }
  if (status === 401 || status === 403) throw keyRefused(asked, status);
  if (status !== 200) return undefined;
  const { data } = readJsonObject(bytes);
  if (!Array.isArray(data) || data.length === 0) return undefined;
  const listed = data.filter((one): one is Record<string, unknown> => typeof one === 'object' && one !== null);
  const found = listed.find(({ id }) => id === model);
  if (found !== undefined) return contextOf(found);
  throw modelMissing(
    asked,
    listed.map(({ id }) => String(id).slice(0, 80)),
  );
}

/** vLLM says `max_model_len`, llama.cpp `meta.n_ctx_train`, others `context_length`. */
function contextOf(listed: Record<string, unknown>): number | undefined {
  const meta = (typeof listed.meta === 'object' && listed.meta !== null ? listed.meta : {}) as Record<string, unknown>;
  const stated = [listed.max_model_len, listed.context_length, meta.n_ctx, meta.n_ctx_train];
  return stated.find((one): one is number => typeof one === 'number' && Number.isSafeInteger(one) && one > 0);
}

async function required<T>(asked: BackendModel, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw unusable(asked, error);
  }
}

function unusable(asked: BackendModel, thrown: unknown): MillraceError {
  const cause = toMillraceError(thrown);
  if (['model-unavailable', 'backend-timeout', 'server-unreachable', 'server-timeout'].includes(cause.code))
    return unreachable(asked, cause);
  if (cause.values.status === 401 || cause.values.status === 403) return keyRefused(asked, cause.values.status);
  return new MillraceError('backend-unusable', {
    actor: 'peer',
    message: `The backend at ${originOf(asked)} did not answer a small ${asked.task} request to ${asked.model}: ${cause.message}`,
    values: { backend: originOf(asked), task: asked.task, model: asked.model, reason: cause.code },
    hint: 'Try the same with curl; check task and model name.',
    cause,
  });
}

function unreachable(asked: BackendModel, cause: unknown): MillraceError {
  return new MillraceError('backend-unreachable', {
    actor: 'peer',
    message: `The backend at ${originOf(asked)} does not answer`,
    values: { backend: originOf(asked), reason: toMillraceError(cause).message.slice(0, 200) },
    hint: 'Start it, and give its base URL as clients use it, mostly with /v1 at the end.',
    cause,
  });
}

function keyRefused(asked: BackendModel, status: number): MillraceError {
  return new MillraceError('backend-key-refused', {
    actor: 'caller',
    message: `The backend at ${originOf(asked)} ${asked.apiKey === undefined ? 'wants a key' : 'does not take the key'} (status ${status})`,
    values: { backend: originOf(asked), status },
    hint: 'Put the key in a file and name it with --backend-key-file.',
  });
}

function modelMissing(asked: BackendModel, listed: readonly string[]): MillraceError {
  const { model } = asked;
  return new MillraceError('backend-model-missing', {
    actor: 'caller',
    message: `The backend at ${originOf(asked)} has no model ${model.slice(0, 80)}`,
    values: { backend: originOf(asked), model: model.slice(0, 80), known: listed.slice(0, SHOWN_MAX) },
    hint: `It has ${listed.slice(0, SHOWN_MAX).join(', ')}${listed.length > SHOWN_MAX ? ' and others' : ''}.`,
  });
}

function cannotDo({ task, model }: BackendModel): MillraceError {
  return new MillraceError('backend-cannot-do', {
    actor: 'caller',
    message: `No OpenAI-compatible server does ${task}`,
    values: { task, model: model.slice(0, 80), expected: BACKEND_TASKS },
    hint: `A backend can do ${BACKEND_TASKS.join(', ')}.`,
  });
}

function originOf({ url }: BackendModel): string {
  return new URL(url).origin;
}
