import { MillraceError } from '../../errors.ts';
import type { EngineRequest, ModelCard } from './engine.ts';

/** What a request may carry at most; beyond it nothing reaches an engine. */
export const REQUEST_LIMITS = {
  imageBytesMax: 32 << 20,
  audioBytesMax: 32 << 20,
  /** Texts in one request of embeddings or moderation. */
  textsMax: 256,
  /** Of one text, in UTF-16 units. */
  textLengthMax: 100_000,
  /** Of all texts or messages of a request together. */
  totalLengthMax: 1_000_000,
  speechLengthMax: 2_000,
  promptLengthMax: 32_000,
  /** Pictures that one request may ask for. */
  imagesMax: 10,
} as const;

/**
 * Refuses a request that an engine must not even be given: of another task, or too large.
 * @throws wrong-task, image-too-large, audio-too-long, text-too-long, empty-request
 */
export function checkRequest(request: EngineRequest, card: ModelCard): void {
  if (request.task !== card.task) {
    throw new MillraceError('wrong-task', {
      actor: 'caller',
      message: `The model ${card.id} does ${card.task}, not ${request.task}`,
      values: { model: card.id, got: request.task, expected: card.task },
      hint: 'Choose a model of that task; the list of models names the task of each.',
    });
  }
  switch (request.task) {
    case 'chat':
      return checkLength(request.messages.flatMap(({ content }) => content).reduce((sum, part) => sum + lengthOf(part), 0));
    case 'embedding':
    case 'moderation':
      return checkTexts(request.texts);
    case 'speech':
      return checkLine(request.text, REQUEST_LIMITS.speechLengthMax);
    case 'image-generation':
      return checkLine(request.prompt, REQUEST_LIMITS.promptLengthMax);
    case 'detection':
    case 'ocr':
      return checkBytes('image', request.image, REQUEST_LIMITS.imageBytesMax);
    default:
      return checkBytes('audio', request.audio, REQUEST_LIMITS.audioBytesMax);
  }
}

function lengthOf(part: { type: 'text'; text: string } | { type: 'image'; bytes: Uint8Array }): number {
  if (part.type === 'text') return part.text.length;
  checkBytes('image', part.bytes, REQUEST_LIMITS.imageBytesMax);
  return 0;
}

function checkTexts(texts: readonly string[]): void {
  if (texts.length === 0) throw empty('texts');
  if (texts.length > REQUEST_LIMITS.textsMax) throw tooLong(`${texts.length} texts`, `${REQUEST_LIMITS.textsMax} texts`);
  const longest = texts.reduce((most, { length }) => Math.max(most, length), 0);
  if (longest > REQUEST_LIMITS.textLengthMax) throw tooLong(`${longest} characters`, `${REQUEST_LIMITS.textLengthMax} characters`);
  checkLength(texts.reduce((sum, { length }) => sum + length, 0));
}

function checkLine(text: string, lengthMax: number): void {
  if (text.trim() === '') throw empty('text');
  if (text.length > lengthMax) throw tooLong(`${text.length} characters`, `${lengthMax} characters`);
}

function checkLength(length: number): void {
  if (length > REQUEST_LIMITS.totalLengthMax) throw tooLong(`${length} characters`, `${REQUEST_LIMITS.totalLengthMax} characters`);
}

function checkBytes(what: 'image' | 'audio', bytes: Uint8Array, max: number): void {
  if (bytes.length === 0) throw empty(what);
  if (bytes.length <= max) return;
  throw new MillraceError(what === 'image' ? 'image-too-large' : 'audio-too-long', {
    actor: 'caller',
    message: `Got ${bytes.length} bytes of ${what}, expected at most ${max}`,
    values: { got: bytes.length, max },
    hint:
      what === 'image'
        ? 'Send a smaller image, or one that is compressed more.'
        : 'Send a shorter recording, or one that is compressed more.',
  });
}

function tooLong(got: string, max: string): MillraceError {
  return new MillraceError('text-too-long', {
    actor: 'caller',
    message: `Got ${got}, expected at most ${max}`,
    values: { got, max },
    hint: 'Send less text at once.',
  });
}

function empty(what: string): MillraceError {
  return new MillraceError('empty-request', {
    actor: 'caller',
    message: `The request has no ${what}`,
    values: { missing: what },
    hint: `Send some ${what}.`,
  });
}
