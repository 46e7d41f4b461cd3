import { MillraceError } from '../errors.ts';
import type { GatewayKey, ModelPrice, TaskType } from '../inference/index.ts';
import { parseAmount } from '../units.ts';

/** What the operator of a miner or validator may set, as texts; what is absent has its default. */
export type InferenceSettings = { [name in keyof typeof INFERENCE_DEFAULTS]?: string };

/** Money in tokens, lists with commas. */
export const INFERENCE_DEFAULTS = {
  /** Embedded models that a miner serves. */
  inferenceModels: 'moby-dick-1m',
  /** Base URL of an OpenAI-compatible server whose models a miner serves besides: `https://host/v1`. */
  inferenceBackend: '',
  /** Its models, each as `task:name`, e.g. `chat:llama3.2`. */
  inferenceBackendModels: '',
  /** For a million units in, a million units out, and each request. */
  inferencePriceIn: '0.05',
  inferencePriceOut: '0.2',
  inferencePriceRequest: '0.0001',
  /** Requests that one model works on at once. */
  inferenceConcurrency: '8',
  /** Gateways that a validator probes through: `https://host:port` or `https://key@host:port`. */
  validatorGateways: '',
  /** Probes of each miner in an epoch. */
  validatorProbes: '6',
  /** What a token of the inference network is worth in the network's token, as this validator sees it. */
  validatorEmissionPrice: '0.00001',
  /** The most that a validator pays ahead to one miner. */
  validatorTabMax: '1',
  /** Photographs that a validator varies where users have not yet allowed enough of theirs. */
  validatorImages: '',
} as const;

const DECIMALS = 18;
const UNIT_OF_TASK: Record<TaskType, ModelPrice['unit']> = {
  chat: 'tokens',
  embedding: 'tokens',
  moderation: 'tokens',
  detection: 'images',
  ocr: 'images',
  speech: 'characters',
  transcription: 'milliseconds',
  activity: 'milliseconds',
  command: 'milliseconds',
};

/** All settings, defaults where nothing was set. */
export function inferenceSettings(given: InferenceSettings = {}): Record<keyof typeof INFERENCE_DEFAULTS, string> {
  return { ...INFERENCE_DEFAULTS, ...given };
}

/** The price of a task by the settings. @throws bad-amount */
export function priceOfTask(task: TaskType, given: InferenceSettings | undefined): ModelPrice {
  const { inferencePriceIn, inferencePriceOut, inferencePriceRequest } = inferenceSettings(given);
  return {
    unit: UNIT_OF_TASK[task],
    inputPerMillion: parseAmount(inferencePriceIn, DECIMALS),
    outputPerMillion: parseAmount(inferencePriceOut, DECIMALS),
    perRequest: parseAmount(inferencePriceRequest, DECIMALS),
  };
}

/** A list with commas. */
export function listed(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

/** A whole number from 1 to `max`. @throws bad-inference-setting */
export function countOf(name: keyof typeof INFERENCE_DEFAULTS, given: InferenceSettings | undefined, max: number): number {
  const text = inferenceSettings(given)[name];
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= max) return count;
  throw badSetting(name, text, `a whole number from 1 to ${max}`);
}

/** A backend's models by task. @throws bad-inference-setting */
export function backendModels(given: InferenceSettings | undefined): { task: TaskType; id: string }[] {
  return listed(inferenceSettings(given).inferenceBackendModels).map((text) => {
    const at = text.indexOf(':');
    const [task, id] = [text.slice(0, at) as TaskType, text.slice(at + 1)];
    if (at > 0 && id !== '' && Object.hasOwn(UNIT_OF_TASK, task)) return { task, id };
    throw badSetting('inferenceBackendModels', text, 'task:name');
  });
}

/** The gateways of a validator. @throws bad-inference-setting */
export function gatewaysOf(given: InferenceSettings | undefined): GatewayKey[] {
  return listed(inferenceSettings(given).validatorGateways).map((text) => {
    if (!URL.canParse(text)) throw badSetting('validatorGateways', text, 'https://key@host:port');
    const { origin, username } = new URL(text);
    return { url: origin, key: username === '' ? undefined : decodeURIComponent(username) };
  });
}

function badSetting(name: string, got: string, expected: string): MillraceError {
  const shown = name === 'validatorGateways' ? 'something else' : got.slice(0, 80);
  return new MillraceError('bad-inference-setting', {
    actor: 'caller',
    message: `Got ${shown} as ${name}, expected ${expected}`,
    values: { setting: name, got: shown, expected },
  });
}
