import { sandboxFailed } from './executor.ts';

const CALL_TIMEOUT_MS = 60_000;

/** An answer of an engine of Docker, waited for a minute. @throws sandbox-failed, and what the engine says */
export function callEngine<T>(answer: Promise<T>): Promise<T> {
  return withinTime(answer, CALL_TIMEOUT_MS);
}

/** An answer of an engine of Docker, waited for so long. @throws sandbox-failed, and what the engine says */
export async function withinTime<T>(answer: Promise<T>, timeoutMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(sandboxFailed('docker', `the engine did not answer within ${timeoutMs} ms`)), timeoutMs);
  });
  return await Promise.race([answer, late]).finally(() => clearTimeout(timer));
}
