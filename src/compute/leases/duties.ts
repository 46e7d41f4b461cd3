/**
 * Does the duty of every item again and again, never twice at once for one item: an item that waits for the chain keeps no other waiting. A duty
 * does not throw.
 * @returns stops it, and resolves when what was under way is done
 */
export function startDuties<Item>(options: {
  items: () => Iterable<Item>;
  duty: (item: Item) => Promise<void>;
  everyMs: number;
}): () => Promise<void> {
  const busy = new Map<Item, Promise<void>>();
  const timer = setInterval(() => {
    for (const item of options.items()) {
      if (busy.has(item)) continue;
      busy.set(
        item,
        options.duty(item).finally(() => busy.delete(item)),
      );
    }
  }, options.everyMs);
  return async () => {
    clearInterval(timer);
    await Promise.allSettled(busy.values());
  };
}
