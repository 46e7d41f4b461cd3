/** Work that goes on beside a loop: whom it waits for may be slow, and the loop must not be. */
export interface Beside {
  /** Begins work of a name unless that is under way, and waits a moment for it. @throws what work threw since the last call, of whatever name */
  go(name: string, work: () => Promise<void>): Promise<void>;
  isUnderWay(name: string): boolean;
  /** When all that is under way has ended; whoever ends it does so by its own signal. */
  ended(): Promise<void>;
}

/** So that who answers at once is heard in the same look. */
const MOMENT_MS = 2_000;

/** Nothing is under way yet. */
export function createBeside(momentMs = MOMENT_MS): Beside {
  const underWay = new Map<string, Promise<void>>();
  const failures: unknown[] = [];
  return {
    async go(name, work) {
      let running = underWay.get(name);
      if (running === undefined) {
        running = work()
          .catch((error) => void failures.push(error))
          .finally(() => underWay.delete(name));
        underWay.set(name, running);
      }
      let timer: NodeJS.Timeout | undefined;
      const moment = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, momentMs);
      });
      await Promise.race([running, moment]);
      clearTimeout(timer);
      if (failures.length > 0) throw failures.shift();
    },
    isUnderWay: (name) => underWay.has(name),
    async ended() {
      await Promise.all(underWay.values());
    },
  };
}
