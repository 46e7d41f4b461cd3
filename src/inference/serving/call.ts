import { isUtf8 } from 'node:buffer';
import { MillraceError } from '../../errors.ts';
import type { EnginePart, EngineRequest, EngineResult, ModelCard, TaskType } from '../engines/engine.ts';
import { badRequest, unsupported } from './failure.ts';

/** What names an answer. */
export interface AnswerName {
  /** 32 hex digits. */
  id: string;
  /** Unix time, seconds. */
  created: number;
  model: string;
}

/** A whole answer. */
export interface WholeAnswer {
  contentType: string;
  body: string | Uint8Array;
}

/** How an answer is written as server-sent events: each function gives the text of whole events. */
export interface StreamWriter {
  first(): string;
  parts(parts: readonly EnginePart[]): string;
  last(result: EngineResult): string;
  /** What ends the stream, after the receipt. */
  readonly end: string;
}

/** A request in the words of some API, understood. */
export interface Call {
  request: EngineRequest;
  /** The most units that it can use: what must be authorised. */
  bounds: { input: number; output: number };
  whole(result: EngineResult, name: AnswerName): WholeAnswer;
  /** There when the caller asked for a stream. */
  stream?: (name: AnswerName) => StreamWriter;
}

/** A model as it is served: its card, and the most output of one request. */
export interface CallModel {
  card: ModelCard;
  outputUnitsMax: number;
}

/** A body to be understood. */
export interface CallInput {
  path: string;
  query: URLSearchParams;
  contentType: string;
  bytes: Buffer;
  /** The model of this name, checked to be one for the task. @throws unknown-model, wrong-task */
  modelFor(name: unknown, task: TaskType): CallModel;
}

/** Characters that a message may be long. */
export const TEXT_CHARACTERS_MAX = 4 << 20;

/** A JSON object from bytes. @throws bad-json */
export function readJsonObject(bytes: Buffer): Record<string, unknown> {
  let value: unknown;
  try {
    if (!isUtf8(bytes)) throw new TypeError('not UTF-8');
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new MillraceError('bad-json', {
      actor: 'caller',
      message: `The body is not JSON: ${(cause as Error).message.slice(0, 120)}`,
      values: { sizeBytes: bytes.length },
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badRequest('body', value, 'a JSON object');
  return value as Record<string, unknown>;
}

/** A text field. @throws bad-request */
export function textField(value: unknown, parameter: string, charactersMax = TEXT_CHARACTERS_MAX): string {
  if (typeof value === 'string' && value.length <= charactersMax) return value;
  throw badRequest(
    parameter,
    typeof value === 'string' ? `${value.length} characters` : value,
    `a text of at most ${charactersMax} characters`,
  );
}

/** A number in a range, or undefined where it is absent or null. @throws bad-request */
export function numberField(value: unknown, parameter: string, range: { min: number; max: number; whole?: boolean }): number | undefined {
  if (value === undefined || value === null) return undefined;
  const isNumber =
    typeof value === 'number' && value >= range.min && value <= range.max && (range.whole !== true || Number.isInteger(value));
  if (isNumber) return value;
  throw badRequest(parameter, value, `a ${range.whole === true ? 'whole ' : ''}number from ${range.min} to ${range.max}`);
}

/** A list of bounded length. @throws bad-request */
export function listField(value: unknown, parameter: string, max: number): unknown[] {
  if (Array.isArray(value) && value.length <= max) return value;
  throw badRequest(parameter, Array.isArray(value) ? `a list of ${value.length}` : value, `a list of at most ${max}`);
}

/** An object. @throws bad-request */
export function objectField(value: unknown, parameter: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw badRequest(parameter, value, 'an object');
}

/** Texts: one, or a list. @throws bad-request, unsupported-parameter */
export function textsField(value: unknown, parameter: string): string[] {
  const texts = typeof value === 'string' ? [value] : listField(value, parameter, 2048);
  if (texts.length === 0) throw badRequest(parameter, 'an empty list', 'at least one text');
  return texts.map((text) => {
    if (typeof text === 'number' || Array.isArray(text)) throw unsupported(parameter, 'This model takes texts, not numbers of tokens');
    return textField(text, parameter);
  });
}

/** Bytes of base64, with or without `data:…;base64,` before it. @throws bad-request */
export function bytesField(value: unknown, parameter: string): Buffer {
  const text = textField(value, parameter, 64 << 20);
  if (/^https?:/i.test(text)) throw unsupported(parameter, 'Addresses are not fetched here: send the bytes as a data: URL');
  const base64 = text.startsWith('data:') ? text.slice(text.indexOf(',') + 1) : text;
  const bytes = Buffer.from(base64, 'base64');
  if (bytes.length === 0) throw badRequest(parameter, 'nothing', 'base64');
  return bytes;
}

/** Parts of `multipart/form-data`: texts and one file. @throws bad-request */
export async function readForm(input: CallInput): Promise<{ fields: Map<string, string>; file: Buffer | undefined }> {
  const fields = new Map<string, string>();
  let file: Buffer | undefined;
  try {
    const form = await new Response(input.bytes as Uint8Array<ArrayBuffer>, { headers: { 'content-type': input.contentType } }).formData();
    for (const [name, value] of form) {
      if (typeof value === 'string') fields.set(name, value);
      else file ??= Buffer.from(await value.arrayBuffer());
    }
  } catch {
    throw badRequest('body', 'something else', 'multipart/form-data');
  }
  return { fields, file };
}
