/** What a model does: the kind of request it takes. */
export type TaskType =
  | 'chat'
  | 'embedding'
  | 'detection'
  | 'ocr'
  | 'image-generation'
  | 'speech'
  | 'transcription'
  | 'activity'
  | 'command'
  | 'moderation';

/** Every task, in the order in which they are listed to people. */
export const TASK_TYPES: readonly TaskType[] = [
  'chat',
  'embedding',
  'detection',
  'ocr',
  'image-generation',
  'speech',
  'transcription',
  'activity',
  'command',
  'moderation',
];

/**
 * How re-execution compares: bit for bit on one kind of processor (`agreement` tells how near it is on another), within a tolerance, or not at
 * all (a foreign backend).
 */
export type Determinism = 'exact' | 'tolerant' | 'none';

/** What anyone may know of a model before choosing it. */
export interface ModelCard {
  /** The name that callers ask for, e.g. `ssdlite-coco`. */
  id: string;
  task: TaskType;
  /** 0x-prefixed SHA-256 over weights, configuration and quantisation; another root is another model. */
  root: `0x${string}`;
  licence: string;
  /** What it cannot do, in sentences for people. */
  limits: string[];
  determinism: Determinism;
  /** Names that `voice` of a speech request may have. */
  voices?: string[];
  /** Labels that it can give: classes of objects, commands. */
  labels?: string[];
  /** Input and output of a text model together, in tokens. */
  contextTokens?: number;
  /** Length of an embedding. */
  dimensions?: number;
}

/**
 * Asks for a digest of intermediate tensors of this very run. Which tensors is drawn from nonce, operator and model root, so that it is not
 * known before the nonce is; the digest covers the operator, so that it cannot be had from another miner's answer to the same request.
 */
export interface WitnessRequest {
  /** 32 bytes, 0x-prefixed hexadecimal; drawn after the answer was given. */
  nonce: `0x${string}`;
  /** The operator who answers (his address); a miner only ever puts his own here. */
  operator: `0x${string}`;
}

/** A digest of intermediate tensors, and which they were. */
export interface Witness {
  digest: `0x${string}`;
  taps: string[];
}

interface RequestBase {
  witness?: WitnessRequest;
}

/** A piece of a chat message: text, or the bytes of an encoded image. */
export type ChatContent = { type: 'text'; text: string } | { type: 'image'; bytes: Uint8Array };

/** One message of a conversation, as OpenAI's chat completions have it. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant' | 'tool';
  content: ChatContent[];
  name?: string;
  /** Of an assistant: what it called. */
  toolCalls?: ToolCall[];
  /** Of a tool: the call that this answers. */
  toolCallId?: string;
}

/** A function that the model may call; `parameters` is a JSON schema. */
export interface ToolDefinition {
  name: string;
  description?: string;
  parameters?: Record<string, unknown>;
}

/** A call of a function; `argumentsJson` is the text that the model wrote. */
export interface ToolCall {
  id: string;
  name: string;
  argumentsJson: string;
}

/** How a text model draws its words; a field that a model cannot honour is refused with `unsupported-parameter`, never ignored. */
export interface SamplingParameters {
  /** At most so many tokens of output. */
  outputTokensMax?: number;
  /** 0 is greedy. */
  temperature?: number;
  topP?: number;
  topK?: number;
  seed?: number;
  stop?: string[];
  frequencyPenalty?: number;
  presencePenalty?: number;
  /** Report the log-probability of each token, and of so many alternatives (0 to 20). */
  logprobs?: number;
  /** Text as it comes, any JSON object, or JSON that fits a schema. */
  responseFormat?: { type: 'text' } | { type: 'json' } | { type: 'schema'; name: string; schema: Record<string, unknown> };
}

/** A conversation to be continued. */
export interface ChatRequest extends RequestBase {
  task: 'chat';
  messages: ChatMessage[];
  sampling: SamplingParameters;
  tools?: ToolDefinition[];
  toolChoice?: 'auto' | 'none' | 'required' | { name: string };
}

/** Texts to be turned into vectors. */
export interface EmbeddingRequest extends RequestBase {
  task: 'embedding';
  texts: string[];
}

/** An encoded image (PNG, JPEG, WebP, GIF, AVIF, TIFF) in which things are to be found. */
export interface DetectionRequest extends RequestBase {
  task: 'detection';
  image: Uint8Array;
  /** Leave out what scores less, 0 to 1; default 0.5. */
  scoreMin?: number;
  /** At most so many objects; default 20. */
  objectsMax?: number;
}

/** An encoded image whose text is to be read. */
export interface OcrRequest extends RequestBase {
  task: 'ocr';
  image: Uint8Array;
}

/** A description of pictures that are to be made. */
export interface ImageGenerationRequest extends RequestBase {
  task: 'image-generation';
  prompt: string;
  /** How many; default 1. */
  count?: number;
  /** `WIDTHxHEIGHT` in pixels; the model's own size when left out. */
  size?: string;
}

/** A text to be spoken. */
export interface SpeechRequest extends RequestBase {
  task: 'speech';
  text: string;
  /** One of the card's voices; its first when left out. */
  voice?: string;
  /** 1 is the voice's own speed; 0.25 to 4. */
  speed?: number;
}

/** Encoded audio (WAV, MP3, Ogg, Opus, FLAC, M4A, WebM) whose words are to be written down. */
export interface TranscriptionRequest extends RequestBase {
  task: 'transcription';
  audio: Uint8Array;
  language?: string;
  prompt?: string;
}

/** Encoded audio in which speech is to be found. */
export interface ActivityRequest extends RequestBase {
  task: 'activity';
  audio: Uint8Array;
  /** A moment counts as speech from this probability on; default 0.5. */
  thresholdMin?: number;
}

/** Encoded audio that holds one spoken command. */
export interface CommandRequest extends RequestBase {
  task: 'command';
  audio: Uint8Array;
}

/** Texts to be judged for harm. */
export interface ModerationRequest extends RequestBase {
  task: 'moderation';
  texts: string[];
}

/** What an engine is asked; its `task` must be that of the card. */
export type EngineRequest =
  | ChatRequest
  | EmbeddingRequest
  | DetectionRequest
  | OcrRequest
  | ImageGenerationRequest
  | SpeechRequest
  | TranscriptionRequest
  | ActivityRequest
  | CommandRequest
  | ModerationRequest;

/** What was used, in the unit that the task is priced in: tokens, characters of text, images (seen or made), milliseconds of audio. */
export interface Usage {
  unit: 'tokens' | 'characters' | 'images' | 'milliseconds';
  input: number;
  output: number;
}

/** A token's log-probability (natural logarithm) with its alternatives, most likely first. */
export interface TokenLogprob {
  token: string;
  logprob: number;
  top: { token: string; logprob: number }[];
}

interface ResultBase {
  usage: Usage;
  /** 0x-prefixed SHA-256 of the raw output tensors (of the text for foreign backends): what re-execution of an exact engine must give again. */
  outputDigest: `0x${string}`;
  /** There when asked for and the engine can give it. */
  witness?: Witness;
}

/** The end of a conversation's continuation. */
export interface ChatResult extends ResultBase {
  task: 'chat';
  text: string;
  toolCalls: ToolCall[];
  finish: 'stop' | 'length' | 'tools' | 'filter';
  logprobs?: TokenLogprob[];
}

/** One vector for each text, in their order; of length 1 where the card says no otherwise. */
export interface EmbeddingResult extends ResultBase {
  task: 'embedding';
  vectors: Float32Array[];
}

/** Something found in an image: label, score 0 to 1, box in pixels of the upright image. */
export interface DetectedObject {
  label: string;
  score: number;
  box: { x: number; y: number; width: number; height: number };
}

/** What an image shows: single objects with boxes, and for the image as a whole the best score of each label. */
export interface DetectionResult extends ResultBase {
  task: 'detection';
  width: number;
  height: number;
  objects: DetectedObject[];
  classes: { label: string; score: number }[];
}

/** One line of text in an image; `corners` are clockwise from top left, in pixels of the upright image. */
export interface TextLine {
  text: string;
  score: number;
  corners: { x: number; y: number }[];
}

/** The text of an image, whole and by lines from top to bottom. */
export interface OcrResult extends ResultBase {
  task: 'ocr';
  width: number;
  height: number;
  text: string;
  lines: TextLine[];
}

/** Pictures, encoded (PNG, JPEG or WebP). */
export interface ImageGenerationResult extends ResultBase {
  task: 'image-generation';
  images: Uint8Array[];
}

/** Spoken text: mono samples -1 to 1; serving packs them into the format that the caller wants. */
export interface SpeechResult extends ResultBase {
  task: 'speech';
  samples: Float32Array;
  sampleRateHz: number;
}

/** Written-down speech. */
export interface TranscriptionResult extends ResultBase {
  task: 'transcription';
  text: string;
  language?: string;
  segments?: { startMs: number; endMs: number; text: string }[];
}

/** Where there is speech, in milliseconds from the start, and the highest probability seen. */
export interface ActivityResult extends ResultBase {
  task: 'activity';
  durationMs: number;
  segments: { startMs: number; endMs: number }[];
  probabilityMax: number;
}

/** The command that was heard, or none when no score passes the model's threshold; all scores, best first. */
export interface CommandResult extends ResultBase {
  task: 'command';
  command: string | undefined;
  scores: { label: string; score: number }[];
}

/** One judgement for each text, in their order. */
export interface ModerationResult extends ResultBase {
  task: 'moderation';
  results: { flagged: boolean; categories: { label: string; score: number; flagged: boolean }[] }[];
}

/** What an engine answers. */
export type EngineResult =
  | ChatResult
  | EmbeddingResult
  | DetectionResult
  | OcrResult
  | ImageGenerationResult
  | SpeechResult
  | TranscriptionResult
  | ActivityResult
  | CommandResult
  | ModerationResult;

/** The result that belongs to a request. */
export type ResultOf<Request extends EngineRequest> = Extract<EngineResult, { task: Request['task'] }>;

/** A piece of a chat answer, as it comes: the pieces' texts together are the result's text. */
export type EnginePart =
  | { type: 'text'; text: string; tokens: number; logprobs?: TokenLogprob[] }
  | { type: 'tool'; index: number; id?: string; name?: string; argumentsJson: string };

/** How a request is run. */
export interface RunOptions {
  /** Ends the work; the promise rejects with `request-aborted`. */
  signal: AbortSignal;
  onPart?: (part: EnginePart) => void;
}

/** `cold`: the next request loads the model first; `failed`: it fell over and waits before the next try. */
export type EngineState = 'cold' | 'warming' | 'warm' | 'failed';

/** All that serving and judging know of a model. */
export interface Engine {
  readonly card: ModelCard;
  /**
   * Runs one request; requests that do not fit beside one another wait in turn.
   * @throws wrong-task, bad-image, image-too-large, bad-audio, audio-too-long, text-too-long, unsupported-parameter (caller);
   *   engine-busy, engine-failed, engine-memory, engine-timeout, model-unavailable (host or peer); request-aborted (caller)
   */
  run<Request extends EngineRequest>(request: Request, options: RunOptions): Promise<ResultOf<Request>>;
  state(): EngineState;
  /** Loads the model before the first request needs it. */
  warm(): Promise<void>;
  /** Ends its process; requests under way reject with `engine-closed`. */
  close(): Promise<void>;
}
