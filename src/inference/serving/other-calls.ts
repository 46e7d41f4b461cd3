import type {
  ActivityResult,
  CommandResult,
  DetectionResult,
  EmbeddingResult,
  EngineRequest,
  EngineResult,
  ImageGenerationResult,
  ModerationResult,
  OcrResult,
  SpeechResult,
  TaskType,
  TranscriptionResult,
} from '../engines/engine.ts';
import { REQUEST_LIMITS } from '../engines/request-limits.ts';
import {
  bytesField,
  type Call,
  type CallInput,
  numberField,
  readForm,
  readJsonObject,
  textField,
  textsField,
  type WholeAnswer,
} from './call.ts';
import { badRequest, unsupported } from './failure.ts';
import { packPcm, packWav } from './wav.ts';

const SLACK_TOKENS = 256;
/** Compressed speech has at least a byte for each millisecond. */
const MILLISECONDS_PER_BYTE_MAX = 1;
const SPEECH_CHARACTERS_MAX = 4096;
/** No voice takes longer for a character, the slowest speed included. */
const MILLISECONDS_PER_CHARACTER_MAX = 400;

function json(value: unknown): WholeAnswer {
  return { contentType: 'application/json', body: JSON.stringify(value) };
}

/** Reads `POST /v1/embeddings`. @throws bad-json, bad-request, unsupported-parameter, unknown-model */
export function readEmbeddingCall(input: CallInput): Call {
  const body = readJsonObject(input.bytes);
  const { card } = input.modelFor(body.model, 'embedding');
  const texts = textsField(body.input, 'input');
  const format = body.encoding_format ?? 'float';
  if (format !== 'float' && format !== 'base64') throw badRequest('encoding_format', format, 'float or base64');
  if (body.dimensions !== undefined && body.dimensions !== card.dimensions) {
    throw unsupported('dimensions', `Vectors of this model have ${card.dimensions ?? 'a fixed number of'} dimensions`);
  }
  return {
    request: { task: 'embedding', texts },
    bounds: { input: input.bytes.length + SLACK_TOKENS * texts.length, output: 0 },
    whole(result, name) {
      const { vectors, usage } = result as EmbeddingResult;
      const data = vectors.map((vector, index) => ({
        object: 'embedding',
        index,
        embedding: format === 'float' ? [...vector] : base64Of(vector),
      }));
      return json({ object: 'list', data, model: name.model, usage: { prompt_tokens: usage.input, total_tokens: usage.input } });
    },
  };
}

function base64Of(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64');
}

/** Reads `POST /v1/audio/speech`; WAV unless `pcm` is asked for. @throws bad-json, bad-request, unsupported-parameter, unknown-model */
export function readSpeechCall(input: CallInput): Call {
  const body = readJsonObject(input.bytes);
  const { card } = input.modelFor(body.model, 'speech');
  const text = textField(body.input, 'input', SPEECH_CHARACTERS_MAX);
  const format = body.response_format ?? 'wav';
  if (format !== 'wav' && format !== 'pcm')
    throw unsupported('response_format', `Speech comes as wav or pcm, not as ${String(format).slice(0, 20)}`);
  const voice = body.voice === undefined || body.voice === null ? undefined : textField(body.voice, 'voice', 64);
  // OpenAI's clients must name a voice, and know only OpenAI's: those stand for the model's own first one.
  const isForeign = voice !== undefined && card.voices !== undefined && !card.voices.includes(voice);
  if (isForeign && !OPENAI_VOICES.has(voice)) throw badRequest('voice', voice, (card.voices ?? []).join(', '));
  const speed = numberField(body.speed, 'speed', { min: 0.25, max: 4 });
  return {
    request: { task: 'speech', text, voice: isForeign ? undefined : voice, speed },
    bounds: { input: text.length, output: text.length * MILLISECONDS_PER_CHARACTER_MAX },
    whole(result) {
      const { samples, sampleRateHz } = result as SpeechResult;
      if (format === 'pcm') return { contentType: 'audio/pcm', body: packPcm(samples) };
      return { contentType: 'audio/wav', body: packWav(samples, sampleRateHz) };
    },
  };
}

const OPENAI_VOICES: ReadonlySet<string> = new Set([
  'alloy',
  'ash',
  'ballad',
  'coral',
  'echo',
  'fable',
  'nova',
  'onyx',
  'sage',
  'shimmer',
  'verse',
  'marin',
  'cedar',
]);

/** Reads `POST /v1/audio/transcriptions`. @throws bad-request, unsupported-parameter, unknown-model */
export async function readTranscriptionCall(input: CallInput): Promise<Call> {
  const { fields, file } = await readForm(input);
  input.modelFor(fields.get('model'), 'transcription');
  if (file === undefined) throw badRequest('file', 'nothing', 'an audio file');
  const format = fields.get('response_format') ?? 'json';
  if (!['json', 'text', 'verbose_json', 'srt', 'vtt'].includes(format))
    throw badRequest('response_format', format, 'json, text, verbose_json, srt or vtt');
  if (fields.get('stream') === 'true') throw unsupported('stream', 'Transcriptions are given whole');
  return {
    request: { task: 'transcription', audio: file, language: fields.get('language'), prompt: fields.get('prompt')?.slice(0, 4096) },
    bounds: { input: file.length * MILLISECONDS_PER_BYTE_MAX, output: file.length },
    whole: (result) => transcriptAs(format, result as TranscriptionResult),
  };
}

function transcriptAs(format: string, result: TranscriptionResult): WholeAnswer {
  const { text, language, usage } = result;
  const segments = result.segments ?? [];
  const seconds = usage.unit === 'milliseconds' ? usage.input / 1000 : undefined;
  if (format === 'json') return json({ text, usage: { type: 'duration', seconds } });
  if (format === 'verbose_json') {
    const shown = segments.map(({ startMs, endMs, text: words }, id) => ({ id, start: startMs / 1000, end: endMs / 1000, text: words }));
    return json({ task: 'transcribe', language: language ?? 'unknown', duration: seconds, text, segments: shown });
  }
  if (format === 'text') return { contentType: 'text/plain; charset=utf-8', body: `${text}\n` };
  const comma = format === 'srt' ? ',' : '.';
  const stamp = (ms: number) => new Date(ms).toISOString().slice(11, 23).replace('.', comma);
  const lines = segments.map(
    ({ startMs, endMs, text: words }, index) =>
      `${format === 'srt' ? `${index + 1}\n` : ''}${stamp(startMs)} --> ${stamp(endMs)}\n${words}\n`,
  );
  return {
    contentType: format === 'srt' ? 'application/x-subrip' : 'text/vtt',
    body: `${format === 'vtt' ? 'WEBVTT\n\n' : ''}${lines.join('\n')}`,
  };
}

/** Reads `POST /v1/moderations`. @throws bad-json, bad-request, unsupported-parameter, unknown-model */
export function readModerationCall(input: CallInput): Call {
  const body = readJsonObject(input.bytes);
  input.modelFor(body.model, 'moderation');
  const texts = textsField(body.input, 'input');
  return {
    request: { task: 'moderation', texts },
    bounds: { input: input.bytes.length + SLACK_TOKENS, output: 0 },
    whole(result, name) {
      const results = (result as ModerationResult).results.map(({ flagged, categories }) => ({
        flagged,
        categories: Object.fromEntries(categories.map((one) => [one.label, one.flagged])),
        category_scores: Object.fromEntries(categories.map((one) => [one.label, one.score])),
      }));
      return json({ id: `modr-${name.id}`, model: name.model, results });
    },
  };
}

/** Fields of OpenAI's that change a picture, and that no backend was seen to honour; what leaves it to the model is taken. */
const IMAGE_WISHES = ['quality', 'style', 'background', 'moderation', 'output_format', 'output_compression', 'partial_images'];

/** Reads `POST /v1/images/generations`; pictures come as base64, whole. @throws bad-json, bad-request, unsupported-parameter, unknown-model */
export function readImageGenerationCall(input: CallInput): Call {
  const body = readJsonObject(input.bytes);
  const { outputUnitsMax } = input.modelFor(body.model, 'image-generation');
  const prompt = textField(body.prompt, 'prompt', REQUEST_LIMITS.promptLengthMax);
  const count = numberField(body.n, 'n', { min: 1, max: Math.min(outputUnitsMax, REQUEST_LIMITS.imagesMax), whole: true }) ?? 1;
  if (body.response_format === 'url') throw unsupported('response_format', 'Pictures come as b64_json: nothing is kept here to be fetched');
  if (body.stream === true) throw unsupported('stream', 'Pictures are given whole');
  for (const wish of IMAGE_WISHES) {
    const value = body[wish];
    if (value !== undefined && value !== null && value !== 'auto') throw unsupported(wish, `Backends were not seen to honour ${wish}`);
  }
  const size = body.size === undefined || body.size === null || body.size === 'auto' ? undefined : textField(body.size, 'size', 9);
  if (size !== undefined && !/^[1-9]\d{1,3}x[1-9]\d{1,3}$/.test(size)) throw badRequest('size', size, 'WIDTHxHEIGHT in pixels, or auto');
  return {
    request: { task: 'image-generation', prompt, count, size },
    bounds: { input: 0, output: count },
    whole(result, name) {
      const { images } = result as ImageGenerationResult;
      return json({ created: name.created, data: images.map((image) => ({ b64_json: Buffer.from(image).toString('base64') })) });
    },
  };
}

const MEDIA_TASKS: Record<string, 'image' | 'audio'> = {
  detection: 'image',
  classification: 'image',
  ocr: 'image',
  activity: 'audio',
  command: 'audio',
};
const OWN_PATHS: Partial<Record<string, string>> = {
  chat: '/v1/chat/completions',
  embedding: '/v1/embeddings',
  speech: '/v1/audio/speech',
  transcription: '/v1/audio/transcriptions',
  moderation: '/v1/moderations',
  'image-generation': '/v1/images/generations',
};

/**
 * Reads `POST /v1/tasks/{type}`; classification is what a detector says of the image as a whole. The file as it is (parameters in the query), as `multipart/form-data`, or base64 in JSON (`image`, `audio`).
 * @throws bad-json, bad-request, unknown-model
 */
export async function readTaskCall(input: CallInput): Promise<Call> {
  const type = input.path.slice('/v1/tasks/'.length);
  const kind = MEDIA_TASKS[type];
  if (kind === undefined) {
    const other = OWN_PATHS[type];
    throw badRequest('type', type.slice(0, 40), other === undefined ? Object.keys(MEDIA_TASKS).join(', ') : `this task at ${other}`);
  }
  const { file, field } = await readMedia(input, kind);
  input.modelFor(field('model'), type === 'classification' ? 'detection' : (type as TaskType));
  const number = (name: string, range: { min: number; max: number; whole?: boolean }) => {
    const value = field(name);
    return numberField(typeof value === 'string' && value !== '' ? Number(value) : value, name, range);
  };
  return {
    request: taskRequest(type, file, number),
    bounds: { input: kind === 'image' ? 1 : file.length * MILLISECONDS_PER_BYTE_MAX, output: 0 },
    whole: (result, name) =>
      json({ id: name.id, object: `task.${type}`, created: name.created, model: name.model, ...taskResult(type, result) }),
  };
}

function taskRequest(
  type: string,
  file: Buffer,
  number: (name: string, range: { min: number; max: number; whole?: boolean }) => number | undefined,
): EngineRequest {
  if (type === 'detection') {
    const objectsMax = number('objects_max', { min: 1, max: 1000, whole: true });
    return { task: 'detection', image: file, scoreMin: number('score_min', { min: 0, max: 1 }), objectsMax };
  }
  if (type === 'classification') return { task: 'detection', image: file };
  if (type === 'ocr') return { task: 'ocr', image: file };
  if (type === 'activity') return { task: 'activity', audio: file, thresholdMin: number('threshold_min', { min: 0, max: 1 }) };
  return { task: 'command', audio: file };
}

function taskResult(type: string, result: EngineResult): Record<string, unknown> {
  const { usage } = result;
  if (result.task === 'detection') {
    const { width, height, objects, classes } = result as DetectionResult;
    return type === 'classification' ? { width, height, classes, usage } : { width, height, objects, classes, usage };
  }
  if (result.task === 'ocr') {
    const { width, height, text, lines } = result as OcrResult;
    return { width, height, text, lines, usage };
  }
  if (result.task === 'activity') {
    const { durationMs, segments, probabilityMax } = result as ActivityResult;
    return { durationMs, segments, probabilityMax, usage };
  }
  const { command, scores } = result as CommandResult;
  return { command: command ?? null, scores, usage };
}

async function readMedia(input: CallInput, kind: 'image' | 'audio'): Promise<{ file: Buffer; field: (name: string) => unknown }> {
  const type = input.contentType.split(';')[0]?.trim().toLowerCase() ?? '';
  if (type === 'application/json') {
    const body = readJsonObject(input.bytes);
    return { file: bytesField(body[kind], kind), field: (name) => body[name] };
  }
  if (type === 'multipart/form-data') {
    const { fields, file } = await readForm(input);
    if (file === undefined) throw badRequest(kind, 'nothing', `a file of ${kind} in the form`);
    return { file, field: (name) => fields.get(name) ?? input.query.get(name) ?? undefined };
  }
  if (input.bytes.length === 0) throw badRequest(kind, 'nothing', `the bytes of an ${kind} file`);
  return { file: input.bytes, field: (name) => input.query.get(name) ?? undefined };
}
