import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { MillraceError } from '../../errors.ts';
import type { EnginePart, EngineRequest, EngineResult, ModelCard } from './engine.ts';
import { type Isolation, sandboxed } from './engine-sandbox.ts';
import type { FromChild, SentError, ToChild } from './kernel.ts';

/** What a model is run with. */
export interface EngineProgram {
  card: ModelCard;
  /** Absolute path of the module that exports `openKernel`. */
  kernel: string;
  /** Fetched when the engine is first started. */
  files(): Promise<readonly { name: string; path: string; sha256: string }[]>;
  options?: Record<string, unknown>;
}

/** An engine's process that has loaded its model. */
export interface EngineProcess {
  readonly pid: number;
  run(request: EngineRequest, options: { onPart?: (part: EnginePart) => void }): { id: number; result: Promise<EngineResult> };
  /** Asks the kernel to stop one request; it may take until the kernel looks. */
  abort(id: number): void;
  /** Ends it at once; what it was doing rejects with the given error. */
  kill(reason: MillraceError): void;
  /** Resolves when it has gone, with why. */
  readonly gone: Promise<MillraceError>;
}

interface Pending {
  resolve(result: EngineResult): void;
  reject(error: MillraceError): void;
  onPart?: (part: EnginePart) => void;
}

const CHILD = join(import.meta.dirname, 'engine-child.ts');
const ERROR_TAIL_BYTES = 2_000;

/**
 * Starts a process, has it load the model, and speaks with it over the channel of `child_process` (structured clones, no text).
 * @throws engine-failed, engine-memory, engine-timeout, bad-model, model-tampered
 */
export async function startEngineProcess(
  program: EngineProgram,
  options: { isolation: Isolation; memoryBytesMax: number; loadTimeoutMs: number },
): Promise<EngineProcess> {
  const files = await program.files();
  const { command, args, env } = sandboxed({ ...options, script: CHILD, files: files.map(({ path }) => path) });
  const child = spawn(command, args, { env, cwd: '/', stdio: ['ignore', 'ignore', 'pipe', 'ipc'], serialization: 'advanced' });
  const process = superviseChild(child, program.card.id);
  const timer = setTimeout(() => process.kill(loadTimeout(program.card.id, options.loadTimeoutMs)), options.loadTimeoutMs);
  try {
    const { card, kernel, options: settings = {} } = program;
    await process.open({ type: 'open', kernel, card, files, options: settings });
    return process;
  } catch (error) {
    process.kill(error as MillraceError);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function superviseChild(child: ChildProcess, model: string): EngineProcess & { open(message: ToChild): Promise<void> } {
  const pending = new Map<number, Pending>();
  let nextId = 1;
  let errors = '';
  let reason: MillraceError | undefined;
  let opening: { resolve(): void; reject(error: MillraceError): void } | undefined;

  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-ERROR_TAIL_BYTES);
  });
  child.on('message', (message: FromChild) => {
    if (message.type === 'ready') return opening?.resolve();
    if (message.type === 'refused') return opening?.reject(received(message.error));
    const request = pending.get(message.id);
    if (message.type === 'part') return request?.onPart?.(message.part);
    pending.delete(message.id);
    if (message.type === 'done') request?.resolve(message.result);
    else request?.reject(received(message.error));
  });
  const gone = new Promise<MillraceError>((resolve) => {
    const end = (code: number | null, signal: string | null) => {
      const error = reason ?? endedError(model, { code, signal, errors });
      opening?.reject(error);
      for (const { reject } of pending.values()) reject(error);
      pending.clear();
      resolve(error);
    };
    child.once('exit', end);
    child.once('error', (error) => {
      errors += error.message;
      if (child.pid === undefined) end(null, null);
    });
  });
  const send = (message: ToChild) => void child.send(message, () => {}); // a failure is told by the exit
  return {
    pid: child.pid ?? 0,
    gone,
    open(message) {
      return new Promise((resolve, reject) => {
        opening = { resolve, reject };
        send(message);
      });
    },
    run(request, { onPart }) {
      const id = nextId++;
      const result = new Promise<EngineResult>((resolve, reject) => pending.set(id, { resolve, reject, onPart }));
      send({ type: 'run', id, request });
      return { id, result };
    },
    abort: (id) => send({ type: 'abort', id }),
    kill(error) {
      reason ??= error;
      child.kill('SIGKILL');
    },
  };
}

function received({ code, ...detail }: SentError): MillraceError {
  return new MillraceError(code, detail);
}

function endedError(model: string, end: { code: number | null; signal: string | null; errors: string }): MillraceError {
  const values = { model, exitCode: end.code, signal: end.signal, said: end.errors.trim().split('\n').slice(-3).join(' | ').slice(0, 500) };
  // V8 and the C++ library end the process when an allocation is refused, and say so.
  if (/out of memory|bad_alloc|allocation failed|cannot allocate/i.test(end.errors)) {
    return new MillraceError('engine-memory', {
      actor: 'caller',
      message: `The engine of ${model} ended because it may not use more memory`,
      values,
      hint: 'Send a smaller input.',
    });
  }
  return new MillraceError('engine-failed', {
    actor: 'host',
    message: `The engine of ${model} ended in the middle of its work`,
    values,
    hint: 'It is started again; try once more.',
  });
}

function loadTimeout(model: string, timeoutMs: number): MillraceError {
  return new MillraceError('engine-timeout', {
    actor: 'host',
    message: `The model ${model} was not loaded within ${timeoutMs} ms`,
    values: { model, timeoutMs },
    hint: 'The machine is too slow or too busy for this model.',
  });
}
