import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type {
  ChatRequest,
  ChatResult,
  EmbeddingRequest,
  EmbeddingResult,
  Engine,
  EngineRequest,
  EngineState,
  ImageGenerationRequest,
  ImageGenerationResult,
  ModelCard,
  ModerationRequest,
  ModerationResult,
  ResultOf,
  RunOptions,
  SpeechRequest,
  SpeechResult,
  TranscriptionRequest,
  TranscriptionResult,
} from '../engines/engine.ts';
import { chatBody, createChatReader, readCompletion } from './backend-chat.ts';
import { eachEvent, readAll, sendHttp } from './http-client.ts';
import { unpackPcm } from './wav.ts';

/** A model behind an OpenAI-compatible URL: llama.cpp, Ollama, vLLM and others. */
export interface BackendOptions {
  /** Base URL, with `/v1` where the server has it. */
  url: string;
  /** What callers ask for; `determinism` is `none`: what stands behind a foreign URL nobody can prove. */
  card: Omit<ModelCard, 'determinism' | 'root'> & { root?: ModelCard['root'] };
  /** The name of the model there; default the card's id. */
  model?: string;
  apiKey?: string;
  limits?: Partial<BackendLimits>;
}

/** What is waited for and taken from a backend. */
export interface BackendLimits {
  headersTimeoutMs: number;
  idleTimeoutMs: number;
  answerBytesMax: number;
}

const LIMITS: BackendLimits = { headersTimeoutMs: 120_000, idleTimeoutMs: 60_000, answerBytesMax: 32 << 20 };
const EVENT_BYTES_MAX = 4 << 20;
/** OpenAI's `pcm` is 24 kHz, mono, 16 bits. */
const PCM_RATE_HZ = 24_000;
const RETRY_AFTER_FAILURE_MS = 5_000;

/** An engine whose work another server does. Its evidence is reputation only. */
export function createOpenAiBackend(options: BackendOptions): Engine {
  return new OpenAiBackend(options);
}

class OpenAiBackend implements Engine {
  readonly card: ModelCard;
  readonly #options: BackendOptions;
  readonly #limits: BackendLimits;
  readonly #closed = new AbortController();
  readonly #headers: Record<string, string>;
  #failedMs: number | undefined;
  #isWarm = false;

  constructor(options: BackendOptions) {
    const { card } = options;
    const root = card.root ?? (`0x${createHash('sha256').update(`unverified model ${card.id}`).digest('hex')}` as const);
    this.card = { ...card, root, determinism: 'none' };
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#headers = options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` };
  }

  async run<Request extends EngineRequest>(request: Request, run: RunOptions): Promise<ResultOf<Request>> {
    if (request.task !== this.card.task) throw wrongTask(this.card, request.task);
    const ended = new AbortController();
    const end = () => ended.abort(run.signal.aborted ? aborted() : closed());
    if (run.signal.aborted || this.#closed.signal.aborted) end();
    run.signal.addEventListener('abort', end, { once: true });
    this.#closed.signal.addEventListener('abort', end, { once: true });
    try {
      const result = await this.#ask(request, ended.signal, run.onPart);
      this.#failedMs = undefined;
      this.#isWarm = true;
      return result as ResultOf<Request>;
    } catch (thrown) {
      const error = ended.signal.aborted ? (ended.signal.reason as MillraceError) : backendError(thrown);
      if (error.code === 'model-unavailable' || error.code === 'engine-failed') this.#failedMs = performance.now();
      throw error;
    } finally {
      run.signal.removeEventListener('abort', end);
      this.#closed.signal.removeEventListener('abort', end);
    }
  }

  state(): EngineState {
    if (this.#failedMs !== undefined && performance.now() - this.#failedMs < RETRY_AFTER_FAILURE_MS) return 'failed';
    return this.#isWarm ? 'warm' : 'cold';
  }

  async warm(): Promise<void> {
    try {
      const answer = await this.#send('models', undefined, AbortSignal.any([this.#closed.signal]));
      await readAll(answer, this.#limits.answerBytesMax);
      this.#isWarm = true;
    } catch (error) {
      throw backendError(error);
    }
  }

  async close(): Promise<void> {
    this.#closed.abort();
  }

  #ask(request: EngineRequest, signal: AbortSignal, onPart: RunOptions['onPart']): Promise<unknown> {
    if (request.task === 'chat') return this.#chat(request, signal, onPart);
    if (request.task === 'embedding') return this.#embed(request, signal);
    if (request.task === 'speech') return this.#speak(request, signal);
    if (request.task === 'transcription') return this.#transcribe(request, signal);
    if (request.task === 'image-generation') return this.#draw(request, signal);
    if (request.task === 'moderation') return this.#moderate(request, signal);
    throw wrongTask(this.card, request.task);
  }

  async #chat(request: ChatRequest, signal: AbortSignal, onPart: RunOptions['onPart']): Promise<ChatResult> {
    const body = JSON.stringify(chatBody(this.#model, request, onPart !== undefined));
    const answer = await this.#send('chat/completions', { type: 'application/json', bytes: body }, signal);
    if (onPart === undefined) return readCompletion(await this.#json(answer));
    const reader = createChatReader(onPart);
    await eachEvent(answer, EVENT_BYTES_MAX, (data) => reader.take(data));
    return reader.end();
  }

  async #embed({ texts }: EmbeddingRequest, signal: AbortSignal): Promise<EmbeddingResult> {
    const body = JSON.stringify({ model: this.#model, input: texts, encoding_format: 'float' });
    const value = await this.#json(await this.#send('embeddings', { type: 'application/json', bytes: body }, signal));
    const rows = (value.data as { embedding?: unknown }[] | undefined) ?? [];
    const vectors = rows.map(({ embedding }) => Float32Array.from(embedding as number[]));
    if (vectors.length !== texts.length || vectors.some((vector) => vector.length === 0 || vector.some((one) => !Number.isFinite(one)))) {
      throw garbage('vectors');
    }
    const usage = value.usage as { prompt_tokens?: number } | undefined;
    const hash = createHash('sha256');
    for (const vector of vectors) hash.update(Buffer.from(vector.buffer));
    return {
      task: 'embedding',
      vectors,
      usage: { unit: 'tokens', input: count(usage?.prompt_tokens), output: 0 },
      outputDigest: `0x${hash.digest('hex')}`,
    };
  }

  async #speak({ text, voice, speed }: SpeechRequest, signal: AbortSignal): Promise<SpeechResult> {
    const fields = { model: this.#model, input: text, voice: voice ?? this.card.voices?.[0] ?? 'alloy', speed, response_format: 'pcm' };
    const answer = await this.#send('audio/speech', { type: 'application/json', bytes: JSON.stringify(fields) }, signal);
    const bytes = await readAll(answer, this.#limits.answerBytesMax);
    const samples = unpackPcm(bytes);
    const outputMs = Math.round((samples.length / PCM_RATE_HZ) * 1000);
    return {
      task: 'speech',
      samples,
      sampleRateHz: PCM_RATE_HZ,
      usage: { unit: 'characters', input: text.length, output: outputMs },
      outputDigest: `0x${createHash('sha256').update(bytes).digest('hex')}`,
    };
  }

  async #transcribe({ audio, language, prompt }: TranscriptionRequest, signal: AbortSignal): Promise<TranscriptionResult> {
    const form = new FormData();
    form.set('model', this.#model);
    form.set('response_format', 'verbose_json');
    if (language !== undefined) form.set('language', language);
    if (prompt !== undefined) form.set('prompt', prompt);
    form.set('file', new Blob([audio as Uint8Array<ArrayBuffer>]), 'audio');
    const packed = new Response(form);
    const bytes = new Uint8Array(await packed.arrayBuffer());
    const value = await this.#json(
      await this.#send('audio/transcriptions', { type: packed.headers.get('content-type') ?? '', bytes }, signal),
    );
    if (typeof value.text !== 'string') throw garbage('text');
    const seconds = typeof value.duration === 'number' ? value.duration : 0;
    const segments = Array.isArray(value.segments) ? (value.segments as { start: number; end: number; text: string }[]) : [];
    return {
      task: 'transcription',
      text: value.text,
      language: typeof value.language === 'string' ? value.language : undefined,
      segments: segments.map((one) => ({ startMs: count(one.start * 1000), endMs: count(one.end * 1000), text: String(one.text) })),
      usage: { unit: 'milliseconds', input: count(seconds * 1000), output: 0 },
      outputDigest: digestOf(value.text),
    };
  }

  async #draw({ prompt, count: wanted = 1, size }: ImageGenerationRequest, signal: AbortSignal): Promise<ImageGenerationResult> {
    const body = JSON.stringify({ model: this.#model, prompt, n: wanted, size, response_format: 'b64_json' });
    const value = await this.#json(await this.#send('images/generations', { type: 'application/json', bytes: body }, signal));
    const rows = Array.isArray(value.data) ? (value.data as ({ b64_json?: unknown } | null)[]) : [];
    const images = rows.map((row) => (typeof row?.b64_json === 'string' ? Buffer.from(row.b64_json, 'base64') : Buffer.alloc(0)));
    if (images.length !== wanted || !images.every(isPicture)) throw garbage('pictures');
    const hash = createHash('sha256');
    for (const image of images) hash.update(image);
    return {
      task: 'image-generation',
      images,
      usage: { unit: 'images', input: 0, output: images.length },
      outputDigest: `0x${hash.digest('hex')}`,
    };
  }

  async #moderate({ texts }: ModerationRequest, signal: AbortSignal): Promise<ModerationResult> {
    const body = JSON.stringify({ model: this.#model, input: texts });
    const value = await this.#json(await this.#send('moderations', { type: 'application/json', bytes: body }, signal));
    const rows = value.results as
      | { flagged?: boolean; categories?: Record<string, boolean>; category_scores?: Record<string, number> }[]
      | undefined;
    if (!Array.isArray(rows) || rows.length !== texts.length) throw garbage('results');
    const results = rows.map(({ flagged, categories = {}, category_scores: scores = {} }) => ({
      flagged: flagged === true,
      categories: Object.entries(categories).map(([label, isFlagged]) => ({
        label,
        flagged: isFlagged === true,
        score: Number(scores[label] ?? 0),
      })),
    }));
    const characters = texts.reduce((sum, text) => sum + text.length, 0);
    return {
      task: 'moderation',
      results,
      usage: { unit: 'characters', input: characters, output: 0 },
      outputDigest: digestOf(JSON.stringify(results)),
    };
  }

  get #model(): string {
    return this.#options.model ?? this.card.id;
  }

  async #send(path: string, body: { type: string; bytes: string | Uint8Array } | undefined, signal: AbortSignal): Promise<IncomingMessage> {
    const base = this.#options.url.endsWith('/') ? this.#options.url : `${this.#options.url}/`;
    const length: Record<string, string | number> =
      body === undefined ? {} : { 'content-type': body.type, 'content-length': Buffer.byteLength(body.bytes) };
    const answer = await sendHttp({
      url: new URL(path, base),
      method: body === undefined ? 'GET' : 'POST',
      headers: { ...this.#headers, ...length },
      body: body?.bytes,
      signal,
      headersTimeoutMs: this.#limits.headersTimeoutMs,
      idleTimeoutMs: this.#limits.idleTimeoutMs,
    });
    // Ends the body too when the caller goes away: the backend stops working.
    signal.addEventListener('abort', () => answer.destroy(), { once: true });
    if (answer.statusCode === 200) return answer;
    throw refusedBy(answer.statusCode ?? 0, (await readAll(answer, 65_536).catch(() => Buffer.alloc(0))).toString('utf8'));
  }

  async #json(answer: IncomingMessage): Promise<Record<string, unknown>> {
    const bytes = await readAll(answer, this.#limits.answerBytesMax);
    try {
      return JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
    } catch {
      throw garbage('JSON');
    }
  }
}

function count(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? Math.round(value) : 0;
}

/** Whether bytes begin as a PNG, JPEG or WebP file does. */
function isPicture(bytes: Buffer): boolean {
  const head = bytes.toString('latin1', 0, 12);
  return head.startsWith('\x89PNG\r\n') || head.startsWith('\xff\xd8\xff') || /^RIFF.{4}WEBP$/s.test(head);
}

function digestOf(text: string): `0x${string}` {
  return `0x${createHash('sha256').update(text).digest('hex')}`;
}

function backendError(thrown: unknown): MillraceError {
  // What an answer lacks shows where it is read.
  if (thrown instanceof TypeError) return garbage('form', thrown);
  const error = toMillraceError(thrown);
  if (error.code === 'server-unreachable') {
    return new MillraceError('model-unavailable', {
      actor: 'peer',
      message: 'The backend of this model does not answer',
      hint: 'Try another miner.',
      cause: error,
    });
  }
  if (error.code !== 'server-timeout') return error;
  return new MillraceError('backend-timeout', {
    actor: 'peer',
    message: 'The backend of this model was silent for too long',
    cause: error,
  });
}

function refusedBy(status: number, text: string): MillraceError {
  const said = /"message"\s*:\s*"((?:[^"\\]|\\.){0,300})/.exec(text)?.[1] ?? '';
  if (status === 429 || status === 503) {
    return new MillraceError('engine-busy', {
      actor: 'peer',
      message: 'The backend of this model is busy',
      values: { status, retryAfterSeconds: 1 },
    });
  }
  if (status >= 400 && status < 500 && status !== 401 && status !== 403 && status !== 404) {
    return new MillraceError('backend-refused', {
      actor: 'caller',
      message: `The backend refused the request: ${said}`,
      values: { status },
    });
  }
  return new MillraceError('engine-failed', { actor: 'peer', message: `The backend answered with status ${status}`, values: { status } });
}

function garbage(what: string, cause?: unknown): MillraceError {
  return new MillraceError('engine-failed', {
    actor: 'peer',
    message: `The backend's answer has no sound ${what}`,
    values: { what },
    cause,
  });
}

function wrongTask(card: ModelCard, task: string): MillraceError {
  return new MillraceError('wrong-task', {
    actor: 'caller',
    message: `The model ${card.id} is for ${card.task}, not for ${task}`,
    values: { got: task, expected: card.task },
  });
}

function aborted(): MillraceError {
  return new MillraceError('request-aborted', { actor: 'caller', message: 'The request was given up' });
}

function closed(): MillraceError {
  return new MillraceError('engine-closed', { actor: 'host', message: 'The model is no longer served' });
}
