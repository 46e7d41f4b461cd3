import { MillraceError } from '../../errors.ts';

/** How many requests of one model there may be. */
export interface QueueLimits {
  /** Worked on at once. */
  running: number;
  /** Waiting for their turn. */
  waiting: number;
  /** Of one payer, running and waiting. */
  perPayer: number;
}

/** A place in a queue. */
export interface QueuePlace {
  /** Resolves when it is this request's turn. Rejects with the signal's reason. */
  turn(signal: AbortSignal): Promise<void>;
  /** Leaves the queue, or makes room for the next. Counts once. */
  leave(): void;
}

/** A bounded queue in front of a model. */
export interface Queue {
  /** Whether there is a place: asked before a payment is taken. @throws queue-full */
  check(): void;
  /** Takes a place. @throws queue-full, payer-busy (429 with `retryAfterSeconds`) */
  enter(payer: string): QueuePlace;
  readonly running: number;
  readonly waiting: number;
}

/** Requests wait in the order in which they came; past the limits they are refused at once. */
export function createQueue(limits: QueueLimits): Queue {
  let running = 0;
  const waiting = new Set<() => void>();
  const ofPayer = new Map<string, number>();
  let places = 0;
  const check = () => {
    if (places >= limits.running + limits.waiting) throw queueFull(places, limits);
  };

  return {
    get running() {
      return running;
    },
    get waiting() {
      return places - running;
    },
    check,
    enter(payer) {
      check();
      const own = ofPayer.get(payer) ?? 0;
      if (own >= limits.perPayer) throw payerBusy(own);
      ofPayer.set(payer, own + 1);
      places += 1;
      let state: 'new' | 'waiting' | 'running' | 'left' = 'new';
      const next = () => {
        for (const start of waiting) {
          waiting.delete(start);
          start();
          return;
        }
      };
      return {
        turn(signal) {
          if (running < limits.running) {
            running += 1;
            state = 'running';
            return Promise.resolve();
          }
          state = 'waiting';
          return new Promise((resolve, reject) => {
            const start = () => {
              signal.removeEventListener('abort', onAbort);
              running += 1;
              state = 'running';
              resolve();
            };
            const onAbort = () => {
              waiting.delete(start);
              reject(signal.reason);
            };
            if (signal.aborted) return reject(signal.reason);
            waiting.add(start);
            signal.addEventListener('abort', onAbort, { once: true });
          });
        },
        leave() {
          if (state === 'left') return;
          const wasRunning = state === 'running';
          state = 'left';
          places -= 1;
          const left = (ofPayer.get(payer) ?? 1) - 1;
          if (left > 0) ofPayer.set(payer, left);
          else ofPayer.delete(payer);
          if (wasRunning) {
            running -= 1;
            next();
          }
        },
      };
    },
  };
}

function queueFull(places: number, limits: QueueLimits): MillraceError {
  return new MillraceError('queue-full', {
    actor: 'peer',
    message: `${places} requests run or wait here already`,
    values: { running: limits.running, waiting: limits.waiting, retryAfterSeconds: 1 },
    hint: 'Try again in a moment, or at another miner.',
  });
}

function payerBusy(own: number): MillraceError {
  return new MillraceError('payer-busy', {
    actor: 'caller',
    message: `${own} requests of this payer run or wait here already`,
    values: { own, retryAfterSeconds: 1 },
    hint: 'Wait for one of them to end.',
  });
}
