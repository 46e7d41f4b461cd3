import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { MillraceError } from '../errors.ts';
import { badJob, sandboxFailed } from './executor.ts';
import { KNOWN_ANSWER, KNOWN_ANSWER_INPUT, KNOWN_ANSWER_MEMORY_BYTES, knownAnswerModule } from './strict-known-answer.ts';
import { makeStrict, type StrictModule } from './strict-module.ts';
import { checkGlobals, decodeStrictState, type StrictEnd } from './strict-state.ts';

/** What a strict job may use. */
export interface StrictLimits {
  /** Its memory, from its beginning and never more; a multiple of 64 KiB, at most 1 GiB. */
  memoryBytes: number;
  /** Instructions that one segment may run at most, counted ahead of each turn of a loop; beyond them the job ends. Part of the result. */
  fuelPerSegment: bigint;
  /** Seconds that this machine waits for one segment. Not part of the result: another machine may be faster. */
  wallSeconds: number;
  /** Its output; a longer one counts as none, and the job has reached its limit. */
  outputBytes: number;
}

/** A strict job: its module, and what it is begun with. */
export interface StrictProgram {
  /** A WebAssembly module as `makeStrict` wants it. */
  module: Uint8Array;
  /** One string of bytes, as `encodeStrictInput` makes it. */
  input: Uint8Array;
  segments: number;
  limits: StrictLimits;
}

/** What a segment changed. */
export interface StrictChange {
  end: StrictEnd;
  /** SHA-256 of the whole state, as `hashStrictState` says. */
  stateHash: string;
  globals: Uint8Array;
  /** Pages that differ from the state before; without content: they are all zero now. */
  pages: { page: number; content: Uint8Array | undefined }[];
  fuelUsed: bigint;
}

/** What a strict job gives in the end: nothing where it is longer than its limit, where it ended early, or where its module points beyond its memory. */
export interface StrictOutput {
  bytes: Uint8Array;
  /** It is nothing because it is longer than the limit. */
  isTooLong: boolean;
}

/** A strict job on its way, in a worker of its own. */
export interface StrictRun {
  /** The state that it stands at. */
  readonly change: StrictChange;
  /**
   * Runs a segment from the state that it stands at.
   * @throws strict-time-over, sandbox-failed
   */
  step(index: number): Promise<StrictChange>;
  /** The output of the state that it stands at; ends the run. */
  output(): Promise<StrictOutput>;
  /** Ends the worker, in the middle of any loop. */
  close(): Promise<void>;
}

/** What the worker of a run is given. */
export interface StrictTask {
  module: Uint8Array;
  globals: StrictModule['globals'];
  fuel: bigint;
}

/** What it is asked. */
export type StrictQuestion =
  | { kind: 'begin'; input: Uint8Array; segments: number }
  | { kind: 'restore'; state: Uint8Array }
  | { kind: 'segment'; index: number }
  | { kind: 'output'; bytesMax: number };

/** What it answers. */
export type StrictAnswer = { kind: 'state'; change: StrictChange } | ({ kind: 'output' } & StrictOutput);

const MEMORY_BYTES_MAX = 2 ** 30;
const FUEL_MAX = 2n ** 62n;
const WALL_SECONDS_MAX = 86_400;
/** Twice what the depth of the worker can come to. */
const STACK_MIB = 32;
const HEAP_MIB = 128;
const KNOWN_ANSWER_LIMITS = { memoryBytes: KNOWN_ANSWER_MEMORY_BYTES, fuelPerSegment: 10_000_000n, wallSeconds: 60, outputBytes: 0 };

/**
 * Runs WebAssembly modules segment by segment so that every machine comes to the same states: no imports, one size of memory, canonical NaNs,
 * fuel and depth counted in the code (decision 0032). What keeps a module in is V8, as with `WasmExecutor`; a worker per run.
 */
export class StrictEngine {
  /**
   * An engine that has shown that this machine calculates as all do.
   * @param options.knownAnswer state hashes due; given by tests alone.
   * @throws strict-engine-unfit: then this machine must neither run nor judge strict jobs
   */
  static async open(options: { knownAnswer?: readonly string[] } = {}): Promise<StrictEngine> {
    const engine = new StrictEngine();
    const due = options.knownAnswer ?? KNOWN_ANSWER;
    const found = await engine.#answerKnown().catch((error: unknown) => [error instanceof Error ? error.message : String(error)]);
    if (found.length !== due.length || found.some((hash, index) => hash !== due[index])) throw unfit(found, due);
    return engine;
  }

  /**
   * Begins a job, at its state 0 or at a state that was handed over.
   * @param from.state bytes as `encodeStrictState` makes them; their hash is the caller's to compare (`run.change.stateHash`).
   * @throws bad-image, bad-job, bad-state, strict-time-over
   */
  async start(program: StrictProgram, from?: { state: Uint8Array }): Promise<StrictRun> {
    const { module, input, segments, limits } = program;
    checkLimits(limits);
    const strict = makeStrict(module, limits.memoryBytes);
    if (from !== undefined) checkGlobals(decodeStrictState(from.state, limits.memoryBytes), strict.globals);
    const worker = new StrictWorker({ module: strict.bytes, globals: strict.globals, fuel: limits.fuelPerSegment }, limits.wallSeconds);
    const ask = async (question: StrictQuestion) => {
      const answer = await worker.ask(question);
      if (answer.kind !== 'state') throw sandboxFailed('strict', 'its worker answered something else');
      return answer.change;
    };
    try {
      let change = await ask(from === undefined ? { kind: 'begin', input, segments } : { kind: 'restore', state: from.state });
      return {
        get change() {
          return change;
        },
        step: async (index) => {
          change = await ask({ kind: 'segment', index });
          return change;
        },
        output: async () => {
          const answer = await worker.ask({ kind: 'output', bytesMax: limits.outputBytes }).finally(() => worker.close());
          if (answer.kind !== 'output') throw sandboxFailed('strict', 'its worker answered something else');
          return { bytes: answer.bytes, isTooLong: answer.isTooLong };
        },
        close: async () => await worker.close(),
      };
    } catch (error) {
      await worker.close();
      throw error;
    }
  }

  async #answerKnown(): Promise<string[]> {
    const program = { module: knownAnswerModule(), input: KNOWN_ANSWER_INPUT, segments: 2, limits: KNOWN_ANSWER_LIMITS };
    const run = await this.start(program);
    try {
      return [run.change.stateHash, (await run.step(0)).stateHash, (await run.step(1)).stateHash];
    } finally {
      await run.close();
    }
  }
}

/** A worker that answers one question at a time, and is ended when it takes too long. */
class StrictWorker {
  readonly #worker: Worker;
  readonly #wallSeconds: number;
  readonly #exited: Promise<string>;
  #fault = 'its worker ended early';

  constructor(task: StrictTask, wallSeconds: number) {
    this.#wallSeconds = wallSeconds;
    this.#worker = new Worker(join(import.meta.dirname, 'strict-worker.ts'), {
      workerData: task,
      env: {},
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB, maxYoungGenerationSizeMb: 16, stackSizeMb: STACK_MIB },
    });
    this.#worker.on('error', (error) => {
      this.#fault = (error as Error).message;
    });
    this.#exited = new Promise((resolve) => this.#worker.once('exit', () => resolve(this.#fault)));
  }

  /** @throws strict-time-over, sandbox-failed */
  async ask(question: StrictQuestion): Promise<StrictAnswer> {
    const { promise, resolve } = Promise.withResolvers<StrictAnswer>();
    const timer = setTimeout(() => {
      this.#fault = '';
      void this.#worker.terminate();
    }, this.#wallSeconds * 1000);
    this.#worker.once('message', resolve);
    this.#worker.postMessage(question);
    const answer = await Promise.race([promise, this.#exited]);
    clearTimeout(timer);
    this.#worker.off('message', resolve);
    if (typeof answer !== 'string') return answer;
    throw answer === '' ? timeOver(this.#wallSeconds) : sandboxFailed('strict', answer);
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}

/**
 * What a strict job is begun with, as its module reads it: count of arguments, each with its length; length of the seed, the seed; count of
 * files, each with length and bytes of its path and of its content. Counts and lengths are uint32, little end first; files are in the order given.
 */
export function encodeStrictInput(input: {
  argv: readonly string[];
  seed: Uint8Array;
  files: readonly { path: string; bytes: Uint8Array }[];
}): Uint8Array {
  const number = (value: number) => Buffer.from(Uint32Array.of(value).buffer);
  const sized = (bytes: Uint8Array) => [number(bytes.length), bytes];
  return Buffer.concat([
    number(input.argv.length),
    ...input.argv.flatMap((argument) => sized(Buffer.from(argument))),
    ...sized(input.seed),
    number(input.files.length),
    ...input.files.flatMap(({ path, bytes }) => [...sized(Buffer.from(path)), ...sized(bytes)]),
  ]);
}

function checkLimits({ memoryBytes, fuelPerSegment, wallSeconds }: StrictLimits): void {
  if (!(memoryBytes > 0 && memoryBytes <= MEMORY_BYTES_MAX))
    throw badJob(`limits.memoryBytes is ${memoryBytes}, allowed are up to ${MEMORY_BYTES_MAX}`);
  if (!(fuelPerSegment > 0n && fuelPerSegment <= FUEL_MAX))
    throw badJob(`limits.fuelPerSegment is ${fuelPerSegment}, allowed are 1 to ${FUEL_MAX}`);
  if (!(wallSeconds > 0 && wallSeconds <= WALL_SECONDS_MAX))
    throw badJob(`limits.wallSeconds is ${wallSeconds}, allowed are up to ${WALL_SECONDS_MAX}`);
}

function unfit(found: readonly string[], due: readonly string[]): MillraceError {
  return new MillraceError('strict-engine-unfit', {
    actor: 'host',
    message: 'This machine does not calculate as strict jobs need it: the known-answer test gave other states',
    values: { found, due, engine: `V8 ${process.versions.v8}`, architecture: process.arch },
    hint: 'Strict jobs are neither run nor judged here. Use the pinned Node, without options for its engine, or another machine.',
  });
}

function timeOver(wallSeconds: number): MillraceError {
  return new MillraceError('strict-time-over', {
    actor: 'host',
    message: `A segment was not ready within ${wallSeconds} s on this machine`,
    values: { wallSeconds },
    hint: 'Nothing is decided by it: run it on a faster or idler machine, or cut the job into more segments.',
  });
}
