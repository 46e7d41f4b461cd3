import { badRequest, type ModelPrice, readJsonObject, type ServingRequest, type TaskType } from '../../inference/index.ts';
import { type ProviderPolicy, readProviderPolicy } from './provider-policy.ts';

/** What a gateway must know of a request to send it somewhere; the rest is the miner's to understand. */
export interface Question {
  /** Empty where the caller leaves the choice to the miner's task. */
  model: string;
  task: TaskType;
  stream: boolean;
  policy: ProviderPolicy;
  /** Parameters that not every model honours. */
  parameters: string[];
  /** Hash of the beginning of the prompt. */
  affinity: number;
  /** The most units of input, in the unit that the model is priced in, and of output where the caller limits it. */
  inputMax(unit: ModelPrice['unit']): number;
  outputMax: number | undefined;
}

const TASKS: Record<string, TaskType> = {
  '/v1/chat/completions': 'chat',
  '/v1/responses': 'chat',
  '/v1/embeddings': 'embedding',
  '/v1/audio/speech': 'speech',
  '/v1/audio/transcriptions': 'transcription',
  '/v1/moderations': 'moderation',
  '/v1/images/generations': 'image-generation',
  '/v1/tasks/detection': 'detection',
  '/v1/tasks/classification': 'detection',
  '/v1/tasks/ocr': 'ocr',
  '/v1/tasks/activity': 'activity',
  '/v1/tasks/command': 'command',
};
const OPTIONAL_PARAMETERS = ['tools', 'response_format', 'logprobs', 'seed', 'frequency_penalty', 'presence_penalty', 'top_k'];
/** The `provider` object as JSON. */
const PROVIDER_HEADER = 'millrace-provider';
/** No prompt is told from another by what follows. */
const PREFIX_BYTES = 1024;
/** Miners count a little above the bytes of a body: system words, a begin and an end for each message. */
const SLACK_UNITS = 512;
const FORM_HEAD_BYTES = 65_536;
/** Speech is priced in characters in and milliseconds out: no voice takes longer for a character. */
const MILLISECONDS_PER_CHARACTER = 400;

/** The task that is asked for at a path, undefined where there is none. */
export function taskOfPath(path: string): TaskType | undefined {
  return TASKS[path];
}

/** Reads what routing needs. @throws bad-json, bad-request */
export function readQuestion(request: ServingRequest, task: TaskType, bytes: Buffer): Question {
  const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? 'application/json';
  if (task === 'transcription' || type === 'multipart/form-data') return readFormQuestion(request, task, bytes);
  if (task !== 'chat' && type !== 'application/json' && request.path.startsWith('/v1/tasks/'))
    return readFileQuestion(request, task, bytes);
  const body = readJsonObject(bytes);
  if (body.model !== undefined && typeof body.model !== 'string') throw badRequest('model', body.model, 'a name');
  const limit = body.max_completion_tokens ?? body.max_tokens ?? body.max_output_tokens;
  const texts = Array.isArray(body.input) ? body.input.length : 1;
  const wanted = typeof body.n === 'number' && body.n >= 1 ? Math.ceil(body.n) : 1;
  const made = task === 'speech' ? bytes.length * MILLISECONDS_PER_CHARACTER : task === 'image-generation' ? wanted : undefined;
  return {
    model: body.model ?? '',
    task,
    stream: body.stream === true,
    policy: policyOf(request, body.provider),
    parameters: OPTIONAL_PARAMETERS.filter((name) => body[name] !== undefined && body[name] !== null),
    affinity: affinityOf(body, bytes),
    inputMax: (unit) => (unit === 'images' ? 1 : bytes.length + SLACK_UNITS * texts),
    outputMax: typeof limit === 'number' && limit >= 1 ? Math.ceil(limit) : made,
  };
}

function readFormQuestion(request: ServingRequest, task: TaskType, bytes: Buffer): Question {
  // The model stands in a part of a form; the parts are small but for the file.
  const head = bytes.toString('latin1', 0, FORM_HEAD_BYTES);
  const tail = bytes.length > FORM_HEAD_BYTES ? bytes.toString('latin1', Math.max(FORM_HEAD_BYTES, bytes.length - FORM_HEAD_BYTES)) : '';
  const field = /name="model"\r\n\r\n([^\r\n]{1,128})\r\n/;
  const model = (field.exec(head) ?? field.exec(tail))?.[1] ?? new URLSearchParams(request.query).get('model') ?? '';
  return fileQuestion(request, { task, bytes, model });
}

function readFileQuestion(request: ServingRequest, task: TaskType, bytes: Buffer): Question {
  return fileQuestion(request, { task, bytes, model: new URLSearchParams(request.query).get('model') ?? '' });
}

/** The caller's wishes: in the body, or in a header that goes no further, for bodies that are files and for who does not want miners to know. */
function policyOf(request: ServingRequest, provider: unknown): ProviderPolicy {
  const text = request.headers[PROVIDER_HEADER];
  if (text === undefined) return readProviderPolicy(provider);
  return readProviderPolicy(readJsonObject(Buffer.from(text)));
}

function fileQuestion(request: ServingRequest, { task, bytes, model }: { task: TaskType; bytes: Buffer; model: string }): Question {
  return {
    model,
    task,
    stream: false,
    policy: policyOf(request, undefined),
    parameters: [],
    affinity: hashOf(bytes.subarray(-PREFIX_BYTES)),
    inputMax: (unit) => (unit === 'images' ? 1 : bytes.length),
    outputMax: bytes.length,
  };
}

/** The caller's own name for what belongs together, or the beginning of the prompt. */
function affinityOf(body: Record<string, unknown>, bytes: Buffer): number {
  const named = body.prompt_cache_key ?? body.user;
  if (typeof named === 'string' && named !== '') return hashOf(Buffer.from(named.slice(0, 256)));
  const from = Math.max(0, bytes.indexOf('"messages"'));
  return hashOf(bytes.subarray(from, from + PREFIX_BYTES));
}

function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < bytes.length; index += 1) hash = Math.imul(hash ^ (bytes[index] as number), 0x01000193);
  return hash >>> 0;
}
