import { join } from 'node:path';
import type { Engine, ModelCard } from '../engines/engine.ts';
import { createEngine, type EngineLimits, type EngineOptions } from '../engines/engine-host.ts';
import type { EngineProgram } from '../engines/engine-process.ts';
import { modelRoot } from '../engines/model-card.ts';
import { LANGUAGE_MODEL } from './model-shape.ts';
import { WEIGHTS_NAME } from './text-kernel.ts';

/** SHA-256 of the committed weights. */
export const WEIGHTS_SHA256 = 'f592bb532f45c800ec36e23a893f4baed2956992aa768cfc44d44004416aa063';

/** The committed weights: in git, so that generation works without any network. */
export const WEIGHTS_PATH = join(import.meta.dirname, '../../../models/language', WEIGHTS_NAME);

/** Grows when the code around the weights changes what is answered. */
const REVISION = 1;

/** The card of the language model that this project trains. */
export const TEXT_CARD: ModelCard = {
  id: 'moby-dick-1m',
  task: 'chat',
  root: modelRoot('moby-dick-1m', [{ name: WEIGHTS_NAME, sha256: WEIGHTS_SHA256 }], REVISION),
  licence: 'Apache-2.0; trained on a text in the public domain',
  limits: [
    'It is a toy: 0.87 million weights that have read one novel, Moby Dick, and nothing else. It goes on with a text in the manner of that book.',
    'It does not answer questions, follow instructions, know facts, translate, reckon or write code; what it writes has no meaning beyond a few words.',
    `It sees the last ${LANGUAGE_MODEL.context} bytes of the conversation and of its own answer; what came before is forgotten.`,
    'Messages are joined by an empty line, without roles. It never ends by itself: it writes until a stop text or the limit of tokens.',
    'A token is one byte. It calls no functions and cannot be held to JSON; both are refused.',
    'Without a seed it takes seed 0: the same request gets the same answer.',
  ],
  determinism: 'exact',
  contextTokens: LANGUAGE_MODEL.context,
};

/** Which arithmetic the model is computed in. */
export interface TextArithmetic {
  /**
   * `native`: ONNX Runtime, the same bits on one kind of processor. `portable`: plain TypeScript, the same bits on every processor and
   * somewhat slower; what a referee uses. The bytes that both write differ only where two are all but equally likely.
   */
  arithmetic?: 'native' | 'portable';
}

/** What an engine set is told to run the language model beside the embedded ones. */
export function textProgram({ arithmetic = 'native' }: TextArithmetic = {}): EngineProgram & { limits: Partial<EngineLimits> } {
  return {
    card: TEXT_CARD,
    kernel: join(import.meta.dirname, 'text-kernel.ts'),
    files: async () => [{ name: WEIGHTS_NAME, path: WEIGHTS_PATH, sha256: WEIGHTS_SHA256 }],
    options: { arithmetic },
    limits: { concurrency: 16, memoryBytesMax: 512 << 20, requestTimeoutMs: 300_000 },
  };
}

/**
 * The engine of the language model, in a process of its own. Several requests are answered side by side; the same request gives the same
 * bytes however many there are.
 */
export function createTextGenerator(options: EngineOptions & TextArithmetic = {}): Engine {
  const program = textProgram(options);
  return createEngine(program, { ...options, limits: { ...program.limits, ...options.limits } });
}
