import type { ByteReader } from '../content/source-tree.ts';

interface Window {
  parts: Uint8Array[];
  left: number;
}

/**
 * Runs `count` consumers side by side over windows that are produced for all of them at once: the next window is produced
 * when every consumer has taken its part of the last, so one window is in memory. Consumers read whole windows. When one
 * fails, the others fail with it; gives their results in order.
 */
export async function runInStep<T>(input: {
  count: number;
  sizeBytes: number;
  windowBytes: number;
  /** The parts of all consumers for bytes [from, from + bytes); the buffers may be used again for the next window. */
  produce: (from: number, bytes: number) => Promise<Uint8Array[]>;
  consume: (index: number, reader: ByteReader) => Promise<T>;
}): Promise<T[]> {
  const { count, sizeBytes, windowBytes, produce, consume } = input;
  let failure: { error: unknown } | undefined;
  const gates = new Map<number, PromiseWithResolvers<Window>>();
  const gateOf = (turn: number): PromiseWithResolvers<Window> => {
    const known = gates.get(turn);
    if (known !== undefined) return known;
    const gate = Promise.withResolvers<Window>();
    gate.promise.catch(() => {});
    if (failure !== undefined) gate.reject(failure.error);
    gates.set(turn, gate);
    return gate;
  };
  const fail = (error: unknown) => {
    failure ??= { error };
    for (const gate of gates.values()) gate.reject(failure.error);
  };
  const openGate = (turn: number) => {
    const from = turn * windowBytes;
    if (from >= sizeBytes) return;
    produce(from, Math.min(windowBytes, sizeBytes - from)).then((parts) => gateOf(turn).resolve({ parts, left: count }), fail);
  };
  const readerOf = (index: number): ByteReader => {
    let turn = 0;
    return {
      async fill(target) {
        const window = await gateOf(turn).promise;
        target.set(window.parts[index] as Uint8Array);
        turn += 1;
        window.left -= 1;
        if (window.left > 0) return;
        gates.delete(turn - 1);
        openGate(turn);
      },
      close: async () => {},
    };
  };
  const run = async (index: number): Promise<T> => {
    try {
      return await consume(index, readerOf(index));
    } catch (error) {
      fail(error);
      throw error;
    }
  };
  openGate(0);
  const results = await Promise.allSettled(Array.from({ length: count }, (_, index) => run(index)));
  if (failure !== undefined) throw failure.error;
  return results.map((result) => (result as PromiseFulfilledResult<T>).value);
}
