import { readFileSync } from 'node:fs';
import { MillraceError } from '../errors.ts';
import type { GatewayKey, ModelPrice, TaskType } from '../inference/index.ts';
import { formatSize, parseAmount, parseDuration, parseSize, TOKEN_DECIMALS } from '../units.ts';

/** What the operator of a miner or validator may set, as texts; what is absent has its default. */
export type InferenceSettings = { [name in keyof typeof INFERENCE_DEFAULTS]?: string };

/** Money in tokens, lists with commas. */
export const INFERENCE_DEFAULTS = {
  /** Embedded models that a miner serves. */
  inferenceModels: 'moby-dick-1m',
  /** Base URL of an OpenAI-compatible server whose models a miner serves besides: `https://host/v1`. */
  inferenceBackend: '',
  /** Its models, each as `task:name` or, served under another name than it has there, `task:name=theirs`, e.g. `chat:llama3.2`. */
  inferenceBackendModels: '',
  /** A file with the backend's key, or the name of an environment variable that holds it; the key itself is no setting. */
  inferenceBackendKeyFile: '',
  inferenceBackendKeyEnv: '',
  /** For a million units in, a million units out, and each request. */
  inferencePriceIn: '0.05',
  inferencePriceOut: '0.2',
  inferencePriceRequest: '0.0001',
  /** Requests that one model works on at once. */
  inferenceConcurrency: '8',
  /** Requests that may wait for one model (empty: four times as many), and those of one payer, running and waiting (empty: all). */
  inferenceQueue: '',
  inferencePerPayer: '',
  /** The most output of one request; empty: 512 units of an embedded model, 4,096 of a backend's. */
  inferenceOutputMax: '',
  /** What the process of an embedded model may use, and how long a request may take; empty: as measured for each model. */
  inferenceModelMemory: '',
  inferenceTimeLimit: '',
  /** Bodies in memory of requests that bring a payment, and the largest of them. */
  inferenceBodies: '256MiB',
  inferenceBodyMax: '32MiB',
  /** Gateways that a validator probes through: `https://host:port` or `https://key@host:port`. */
  validatorGateways: '',
  /** A file with more of them, one a line, so that no key stands in a command line. */
  validatorGatewaysFile: '',
  /** Servers with drand's HTTP API (`https://api.drand.sh/{chain hash}/`) that have the pulses of subnets' beacons: others' commits are opened by them. */
  validatorPulses: '',
  /** Probes of each miner in an epoch. */
  validatorProbes: '6',
  /** What a token of the inference network is worth in the network's token, as this validator sees it. */
  validatorEmissionPrice: '0.00001',
  /** The most that a validator pays ahead to one miner. */
  validatorTabMax: '1',
  /** Photographs that a validator varies where users have not yet allowed enough of theirs. */
  validatorImages: '',
  /** Cases that a validator brings before the jury at most, ever: each needs a bond, which is lost when the jury finds the miner not guilty. 0: none. */
  validatorCases: '0',
} as const;

const FILE_CHARACTERS_MAX = 65_536;
const MODEL_NAME = /^[\w][\w.:/@+-]{0,127}$/;
/** What a backend calls a model; llama.cpp calls it by its path. */
const THEIR_NAME = /^[\x21-\x7e]{1,256}$/;
const UNIT_OF_TASK: Record<TaskType, ModelPrice['unit']> = {
  chat: 'tokens',
  embedding: 'tokens',
  moderation: 'characters',
  detection: 'images',
  ocr: 'images',
  'image-generation': 'images',
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
    inputPerMillion: parseAmount(inferencePriceIn, TOKEN_DECIMALS),
    outputPerMillion: parseAmount(inferencePriceOut, TOKEN_DECIMALS),
    perRequest: parseAmount(inferencePriceRequest, TOKEN_DECIMALS),
  };
}

/** A list with commas. */
export function listed(text: string): string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}

/** A whole number from 1 to `max`, or undefined where nothing is set. @throws bad-inference-setting */
export function optionalCountOf(
  name: keyof typeof INFERENCE_DEFAULTS,
  given: InferenceSettings | undefined,
  max: number,
): number | undefined {
  return inferenceSettings(given)[name] === '' ? undefined : countOf(name, given, max);
}

/** Bytes between bounds, or undefined where nothing is set. @throws bad-inference-setting, bad-size */
export function bytesOf(
  name: keyof typeof INFERENCE_DEFAULTS,
  given: InferenceSettings | undefined,
  { min, max }: { min: number; max: number },
): number | undefined {
  const text = inferenceSettings(given)[name];
  if (text === '') return undefined;
  const bytes = parseSize(text);
  if (bytes >= BigInt(min) && bytes <= BigInt(max)) return Number(bytes);
  throw badSetting(name, text, `${formatSize(min)} to ${formatSize(max)}`);
}

/** A time from 1 s to an hour in milliseconds, or undefined where nothing is set. @throws bad-inference-setting, bad-duration */
export function timeLimitMs(given: InferenceSettings | undefined): number | undefined {
  const { inferenceTimeLimit: text } = inferenceSettings(given);
  if (text === '') return undefined;
  const seconds = parseDuration(text);
  if (seconds >= 1 && seconds <= 3600) return seconds * 1000;
  throw badSetting('inferenceTimeLimit', text, '1s to 1h');
}

/** A whole number from 1 to `max`. @throws bad-inference-setting */
export function countOf(name: keyof typeof INFERENCE_DEFAULTS, given: InferenceSettings | undefined, max: number): number {
  const text = inferenceSettings(given)[name];
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= max) return count;
  throw badSetting(name, text, `a whole number from 1 to ${max}`);
}

/** How many cases a validator may bring before the jury. @throws bad-inference-setting */
export function casesMaxOf(given: InferenceSettings | undefined): number {
  const text = inferenceSettings(given).validatorCases;
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw badSetting('validatorCases', text, 'a whole number up to 9999');
}

/** A model of a backend: what it does, the name that callers ask for, and its name there. */
export interface BackendModelSetting {
  task: TaskType;
  id: string;
  theirs: string;
}

/** A backend's models. @throws bad-inference-setting */
export function backendModels(given: InferenceSettings | undefined): BackendModelSetting[] {
  return listed(inferenceSettings(given).inferenceBackendModels).map((text) => {
    const at = text.indexOf(':');
    const task = text.slice(0, at) as TaskType;
    const [id = '', theirs = id] = text.slice(at + 1).split('=', 2);
    const isSound = MODEL_NAME.test(id) && THEIR_NAME.test(theirs);
    if (at > 0 && isSound && Object.hasOwn(UNIT_OF_TASK, task)) return { task, id, theirs };
    throw badSetting('inferenceBackendModels', text, `task:name or task:name=theirs, task one of ${Object.keys(UNIT_OF_TASK).join(', ')}`);
  });
}

/** The base URL of a backend, empty where there is none. Keys do not belong in it. @throws bad-inference-setting */
export function backendUrl(given: InferenceSettings | undefined): string {
  const text = inferenceSettings(given).inferenceBackend;
  if (text === '') return '';
  const url = URL.parse(text);
  const isPlain = url !== null && ['http:', 'https:'].includes(url.protocol) && `${url.search}${url.hash}` === '';
  if (isPlain && `${url.username}${url.password}` === '') return text;
  throw badSetting(
    'inferenceBackend',
    isPlain ? 'a URL with a password in it' : text,
    'http://host:port/v1, without name, password or query',
  );
}

/** The key of a backend, from the file or the environment variable that the settings name. @throws bad-inference-setting, backend-key-missing */
export function backendKey(given: InferenceSettings | undefined, env: NodeJS.ProcessEnv = process.env): string | undefined {
  const { inferenceBackendKeyFile: file, inferenceBackendKeyEnv: variable } = inferenceSettings(given);
  if (file !== '' && variable !== '') throw badSetting('inferenceBackendKeyFile', file, 'either a file or an environment variable');
  if (file === '' && variable === '') return undefined;
  const text = (file === '' ? env[variable] : readSmall(file))?.trim() ?? '';
  if (/^[\x21-\x7e]{1,4096}$/.test(text)) return text;
  throw new MillraceError('backend-key-missing', {
    actor: 'caller',
    message: file === '' ? `The environment has no usable key in ${variable}` : `There is no usable key in ${file}`,
    values: { file, variable },
    hint: 'Expected one line of printable characters without spaces.',
  });
}

/** The gateways of a validator. @throws bad-inference-setting */
export function gatewaysOf(given: InferenceSettings | undefined): GatewayKey[] {
  const { validatorGateways, validatorGatewaysFile: file } = inferenceSettings(given);
  const inFile = file === '' ? [] : (readSmall(file) ?? throwUnreadable(file)).split('\n').flatMap(listed);
  return [...listed(validatorGateways), ...inFile].map((text) => {
    if (!URL.canParse(text)) throw badSetting('validatorGateways', text, 'https://key@host:port');
    const { origin, username } = new URL(text);
    return { url: origin, key: username === '' ? undefined : decodeURIComponent(username) };
  });
}

function throwUnreadable(file: string): never {
  throw badSetting('validatorGatewaysFile', file, 'a file that can be read');
}

function readSmall(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').slice(0, FILE_CHARACTERS_MAX);
  } catch {
    return undefined;
  }
}

function badSetting(name: string, got: string, expected: string): MillraceError {
  const shown = name === 'validatorGateways' ? 'something else' : got.slice(0, 80);
  return new MillraceError('bad-inference-setting', {
    actor: 'caller',
    message: `Got ${shown} as ${name}, expected ${expected}`,
    values: { setting: name, got: shown, expected },
  });
}
