import { MillraceError } from '../../errors.ts';
import type { EngineResult, TaskType } from '../engines/engine.ts';
import type { LabelledBox } from './box-match.ts';

/** What an answer says, whatever API it came through; also the form in which the truth is known. */
export type AnswerContent =
  | { task: 'chat'; text: string }
  | { task: 'embedding'; vectors: readonly ArrayLike<number>[] }
  | { task: 'detection'; objects: readonly LabelledBox[] }
  | { task: 'ocr'; text: string }
  /** How large each picture is, bytes. */
  | { task: 'image-generation'; sizes: readonly number[] }
  /** `heard` is what a recogniser heard in it; of the truth: what was to be said. */
  | { task: 'speech'; audio: Uint8Array; heard?: string }
  | { task: 'transcription'; text: string }
  | { task: 'activity'; segments: readonly { startMs: number; endMs: number }[] }
  | { task: 'command'; command: string | undefined }
  | { task: 'moderation'; flagged: readonly boolean[] };

const RECEIPT_LINE = '\n: millrace-receipt ';
const LENGTH_MAX = 65_536;
/** Things in one image, stretches of speech in one recording. */
const FOUND_MAX = 1024;

/** What an engine's result says. Speech is left out: its samples are packed by serving (see `readAnswer`). */
export function contentOf(result: EngineResult): AnswerContent {
  switch (result.task) {
    case 'chat':
      return { task: 'chat', text: `${result.text}${result.toolCalls.map((call) => `${call.name}(${call.argumentsJson})`).join('')}` };
    case 'embedding':
      return { task: 'embedding', vectors: result.vectors };
    case 'detection':
      return { task: 'detection', objects: result.objects };
    case 'image-generation':
      return { task: 'image-generation', sizes: result.images.map(({ length }) => length) };
    case 'speech':
      return { task: 'speech', audio: new Uint8Array(result.samples.buffer, result.samples.byteOffset, result.samples.byteLength) };
    case 'activity':
      return { task: 'activity', segments: result.segments };
    case 'command':
      return { task: 'command', command: result.command };
    case 'moderation':
      return { task: 'moderation', flagged: result.results.map(({ flagged }) => flagged) };
    default:
      return { task: result.task, text: result.text };
  }
}

/** The bytes of an answer that its receipt's hash covers: of a stream those before the receipt. */
export function signedBytes(contentType: string, bytes: Buffer): Buffer {
  if (!contentType.startsWith('text/event-stream')) return bytes;
  const at = bytes.indexOf(RECEIPT_LINE);
  return at === -1 ? bytes : bytes.subarray(0, at + 1);
}

/** Reads what a stranger answered. @throws bad-answer */
export function readAnswer(task: TaskType, contentType: string, bytes: Buffer): AnswerContent {
  if (task === 'speech') return { task, audio: bytes };
  try {
    if (contentType.startsWith('text/event-stream')) return { task: 'chat', text: streamedText(bytes.toString('utf8')) };
    if (task === 'transcription' && !contentType.startsWith('application/json')) return { task, text: bytes.toString('utf8') };
    return contentOfJson(task, JSON.parse(bytes.toString('utf8')) as Fields);
  } catch (cause) {
    throw new MillraceError('bad-answer', {
      actor: 'peer',
      message: `An answer for ${task} cannot be read: ${(cause as Error).message.slice(0, 120)}`,
      values: { task, sizeBytes: bytes.length },
    });
  }
}

type Fields = Record<string, unknown>;

function contentOfJson(task: TaskType, body: Fields): AnswerContent {
  switch (task) {
    case 'chat':
      return { task, text: chatText(body) };
    case 'embedding':
      return { task, vectors: list(body.data).map((one) => vectorOf((one as Fields).embedding)) };
    case 'detection':
      return { task, objects: list(body.objects, FOUND_MAX).map(boxOf) };
    case 'image-generation':
      return { task, sizes: list(body.data, FOUND_MAX).map((one) => Buffer.byteLength(text((one as Fields).b64_json), 'base64')) };
    case 'activity':
      return { task, segments: list(body.segments, FOUND_MAX).map((one) => spanOf(one as Fields)) };
    case 'command':
      return { task, command: typeof body.command === 'string' ? body.command : undefined };
    case 'moderation':
      return { task, flagged: list(body.results).map((one) => (one as Fields).flagged === true) };
    default:
      return { task: task as 'ocr', text: text(body.text) };
  }
}

function chatText(body: Fields): string {
  if (Array.isArray(body.output)) {
    const parts = body.output.flatMap((item) => (Array.isArray((item as Fields).content) ? ((item as Fields).content as Fields[]) : []));
    const calls = (body.output as Fields[]).filter((item) => item.type === 'function_call');
    return parts.map((part) => (typeof part.text === 'string' ? part.text : '')).join('') + calls.map(callText).join('');
  }
  const message = (list(body.choices)[0] as Fields).message as Fields;
  const calls = Array.isArray(message.tool_calls) ? (message.tool_calls as { function: Fields }[]) : [];
  return `${message.content === null ? '' : text(message.content)}${calls.map((call) => callText(call.function)).join('')}`;
}

function callText(call: Fields): string {
  return `${String(call.name)}(${String(call.arguments)})`;
}

function streamedText(events: string): string {
  let whole = '';
  const calls = new Map<number, { name: string; arguments: string }>();
  for (const line of events.split('\n')) {
    if (!line.startsWith('data: {')) continue;
    const event = JSON.parse(line.slice(6)) as Fields;
    if (event.error !== undefined) throw new TypeError('the stream ends in an error');
    if (event.type === 'response.output_text.delta') whole += text(event.delta);
    const delta = (Array.isArray(event.choices) ? (event.choices[0] as Fields | undefined)?.delta : undefined) as Fields | undefined;
    if (typeof delta?.content === 'string') whole += delta.content;
    for (const call of Array.isArray(delta?.tool_calls) ? (delta.tool_calls as { index: number; function?: Fields }[]) : []) {
      const known = calls.get(call.index) ?? { name: '', arguments: '' };
      calls.set(call.index, {
        name: known.name + String(call.function?.name ?? ''),
        arguments: known.arguments + String(call.function?.arguments ?? ''),
      });
    }
  }
  return whole + [...calls.values()].map(callText).join('');
}

function vectorOf(value: unknown): ArrayLike<number> {
  if (typeof value === 'string') {
    const bytes = Buffer.from(value, 'base64');
    return Array.from({ length: Math.floor(bytes.length / 4) }, (_, index) => finite(bytes.readFloatLE(index * 4)));
  }
  return list(value).map(finite);
}

function boxOf(value: unknown): LabelledBox {
  const { label, box } = value as { label: unknown; box: Fields };
  const { x, y, width, height } = box;
  return { label: text(label), box: { x: finite(x), y: finite(y), width: finite(width), height: finite(height) } };
}

function spanOf({ startMs, endMs }: Fields): { startMs: number; endMs: number } {
  return { startMs: finite(startMs), endMs: finite(endMs) };
}

function list(value: unknown, max = LENGTH_MAX): unknown[] {
  if (Array.isArray(value) && value.length <= max) return value;
  throw new TypeError('no list, or a long one');
}

function text(value: unknown): string {
  if (typeof value === 'string') return value;
  throw new TypeError('no text');
}

function finite(value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new TypeError('no number');
}
