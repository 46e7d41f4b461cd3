import { type Clock, systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import { type Logger, silentLogger } from '../../log.ts';
import type { Engine, EngineRequest, EngineState, ResultOf, RunOptions } from './engine.ts';
import { type EngineProcess, type EngineProgram, startEngineProcess } from './engine-process.ts';
import { findIsolation, type Isolation } from './engine-sandbox.ts';
import { checkRequest } from './request-limits.ts';

/** What an engine may use, and how long it may take. */
export interface EngineLimits {
  /** Writable memory beyond Node's own. */
  memoryBytesMax: number;
  loadTimeoutMs: number;
  /** From its start to its end; then the process is killed. */
  requestTimeoutMs: number;
  /** How long a kernel may go on after its caller has gone, before it is killed. */
  abortGraceMs: number;
  /** Requests at work at once; a kernel that blocks its thread gains nothing from more than one. */
  concurrency: number;
  /** Requests that wait; one more is refused. */
  queueMax: number;
  /** Without work for so long the process is ended; the next request starts it again. 0 keeps it. */
  idleMs: number;
}

/** What an engine is made with. */
export interface EngineOptions {
  limits?: Partial<EngineLimits>;
  isolation?: Isolation;
  logger?: Logger;
  clock?: Clock;
}

const DEFAULT_LIMITS: EngineLimits = {
  memoryBytesMax: 1 << 30,
  loadTimeoutMs: 60_000,
  requestTimeoutMs: 60_000,
  abortGraceMs: 2_000,
  concurrency: 1,
  queueMax: 64,
  idleMs: 300_000,
};
/** What a single request brings about is no reason to keep others waiting: the engine starts again at once. */
const CAUSED_BY_CALLERS = new Set(['engine-timeout', 'engine-memory', 'request-aborted']);
const BACK_OFF_FIRST_MS = 500;
const BACK_OFF_MAX_MS = 60_000;

/**
 * An engine in a child process of its own: started at the first request, killed when it takes too long or too much memory, started again
 * with growing pauses after failures, ended when idle. Nothing that happens in it reaches this process but its answers and typed errors.
 */
export function createEngine(program: EngineProgram, options: EngineOptions = {}): Engine {
  const { clock = systemClock, logger = silentLogger } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const isolation = options.isolation ?? findIsolation();
  const model = program.card.id;
  let starting: Promise<EngineProcess> | undefined;
  let state: EngineState = 'cold';
  let failures = 0;
  let notBeforeMs = 0;
  let isClosed = false;
  let atWork = 0;
  let idleTimer: NodeJS.Timeout | undefined;
  const waiting: (() => void)[] = [];

  const noteFailure = (error: MillraceError) => {
    starting = undefined;
    state = 'failed';
    notBeforeMs = clock.nowMs() + Math.min(BACK_OFF_MAX_MS, BACK_OFF_FIRST_MS * 2 ** failures);
    failures += 1;
    logger.warn('engine-ended', { model, code: error.code, message: error.message, said: String(error.values.said ?? '') });
  };

  const start = (): Promise<EngineProcess> => {
    if (isClosed) throw closedError(model);
    if (starting !== undefined) return starting;
    const waitMs = notBeforeMs - clock.nowMs();
    if (waitMs > 0) throw coolingError(model, waitMs);
    state = 'warming';
    const attempt = startEngineProcess(program, { isolation, ...limits });
    starting = attempt;
    attempt.then(
      (child) => {
        state = 'warm';
        logger.info('engine-ready', { model, pid: child.pid, isolation });
        void child.gone.then((error) => {
          if (starting !== attempt) return; // ended on purpose
          if (!CAUSED_BY_CALLERS.has(error.code)) return noteFailure(error);
          starting = undefined;
          state = 'cold';
          logger.info('engine-killed', { model, code: error.code });
        });
      },
      (error: MillraceError) => {
        if (starting === attempt) noteFailure(error);
      },
    );
    return attempt;
  };

  const stop = async (reason: MillraceError) => {
    const ending = starting;
    starting = undefined;
    state = 'cold';
    const child = await ending?.catch(() => undefined);
    child?.kill(reason);
    await child?.gone;
  };

  const takeTurn = async (signal: AbortSignal) => {
    if (atWork < limits.concurrency && waiting.length === 0) {
      atWork += 1;
      return;
    }
    if (waiting.length >= limits.queueMax) throw busyError(model, limits.queueMax);
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        waiting.splice(waiting.indexOf(go), 1);
        reject(abortedError());
      };
      waiting.push(go);
      signal.addEventListener('abort', leave, { once: true });
    });
  };

  /** A turn is handed on without letting go of it, so that nobody comes between. */
  const leaveTurn = () => {
    const next = waiting.shift();
    if (next !== undefined) return next();
    atWork -= 1;
    if (atWork === 0 && limits.idleMs > 0) {
      idleTimer = setTimeout(() => void stop(closedError(model)), limits.idleMs);
      idleTimer.unref();
    }
  };

  return {
    card: program.card,
    state: () => (state === 'failed' && clock.nowMs() >= notBeforeMs ? 'cold' : state),
    async warm() {
      await start();
    },
    async run<Request extends EngineRequest>(request: Request, run: RunOptions): Promise<ResultOf<Request>> {
      checkRequest(request, program.card);
      if (run.signal.aborted) throw abortedError();
      await takeTurn(run.signal);
      clearTimeout(idleTimer);
      try {
        const child = await start();
        const result = await runOne(child, request, run, limits, model);
        failures = 0;
        return result as ResultOf<Request>;
      } finally {
        leaveTurn();
      }
    },
    async close() {
      isClosed = true;
      clearTimeout(idleTimer);
      await stop(closedError(model));
    },
  };
}

/** One request in a process that has its model: with a deadline, and a way out for the caller. */
async function runOne(child: EngineProcess, request: EngineRequest, run: RunOptions, limits: EngineLimits, model: string) {
  const { id, result } = child.run(request, { onPart: run.onPart });
  const deadline = setTimeout(() => child.kill(timeoutError(model, limits.requestTimeoutMs)), limits.requestTimeoutMs);
  let grace: NodeJS.Timeout | undefined;
  const abort = () => {
    child.abort(id);
    grace = setTimeout(() => child.kill(abortedError()), limits.abortGraceMs);
  };
  run.signal.addEventListener('abort', abort, { once: true });
  if (run.signal.aborted) abort();
  try {
    const answer = await result;
    if (run.signal.aborted) throw abortedError();
    return answer;
  } finally {
    clearTimeout(deadline);
    clearTimeout(grace);
    run.signal.removeEventListener('abort', abort);
  }
}

function timeoutError(model: string, timeoutMs: number): MillraceError {
  return new MillraceError('engine-timeout', {
    actor: 'caller',
    message: `The engine of ${model} did not answer within ${timeoutMs} ms`,
    values: { model, timeoutMs },
    hint: 'Send a smaller input, or ask for less output.',
  });
}

function busyError(model: string, queueMax: number): MillraceError {
  return new MillraceError('engine-busy', {
    actor: 'host',
    message: `${queueMax} requests wait for ${model} already`,
    values: { model, queueMax },
    hint: 'Try again in a moment, or ask another miner.',
  });
}

function coolingError(model: string, waitMs: number): MillraceError {
  return new MillraceError('engine-failed', {
    actor: 'host',
    message: `The engine of ${model} fell over and is started again in ${Math.ceil(waitMs)} ms`,
    values: { model, waitMs: Math.ceil(waitMs) },
    hint: 'Try again after that time, or ask another miner.',
  });
}

function closedError(model: string): MillraceError {
  return new MillraceError('engine-closed', {
    actor: 'host',
    message: `The engine of ${model} has been closed`,
    values: { model },
    hint: 'Ask another miner.',
  });
}

function abortedError(): MillraceError {
  return new MillraceError('request-aborted', {
    actor: 'caller',
    message: 'The caller gave up the request',
    hint: 'Nothing has to be done.',
  });
}
