import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { systemClock } from '../../clock.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';

/** A receipt as a gateway keeps it. */
export interface KeptReceipt {
  id: string;
  /** As it came from the miner: base64url. */
  encoded: string;
  /** The key that it was for; absent for those who paid by themselves. */
  keyId?: string;
  /** What the caller was charged, base units. */
  charged: string;
  uid: number;
}

/** The receipts of a gateway: evidence for callers and validators. No request and no answer is in it. */
export interface ReceiptBook {
  /** Keeps a receipt; on the disk within a moment. */
  add(receipt: KeptReceipt): void;
  /** One of the last few thousand, or where `deep` any: one such search at a time. @throws receipt-unknown */
  find(id: string, deep: boolean): Promise<KeptReceipt>;
  /** All that are kept of one id: a miner that signs an id twice contradicts itself. Reads all files. */
  all(id: string): Promise<KeptReceipt[]>;
  readonly count: number;
  flush(): Promise<void>;
  close(): Promise<void>;
}

const FLUSH_MS = 200;
const FILE_BYTES_MAX = 64 << 20;
const FILES_MAX = 64;
const RECENT_MAX = 4096;
const WAITING_MAX = 100_000;
const ID = /^0x[0-9a-f]{64}$/;

/** Opens the receipts in a folder: files of one JSON object a line, the oldest of 64 removed when a new one begins. */
export async function openReceiptBook(folder: string, log: Logger): Promise<ReceiptBook> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const names = async () => (await readdir(folder)).filter((name) => /^receipts-\d{13}\.ndjson$/.test(name)).sort();
  const recent = new Map<string, KeptReceipt>();
  let waiting: KeptReceipt[] = [];
  let file: FileHandle | undefined;
  let sizeBytes = 0;
  let count = 0;
  let turn: Promise<void> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;
  let searching: Promise<unknown> = Promise.resolve();

  const findInFiles = async (id: string): Promise<KeptReceipt | undefined> => {
    for (const name of (await names()).reverse()) {
      const [found] = await findInFile(join(folder, name), id);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const begin = async (): Promise<FileHandle> => {
    await file?.close();
    const old = await names();
    for (const name of old.slice(0, Math.max(0, old.length - FILES_MAX + 1))) await rm(join(folder, name));
    // A name that sorts by time; a second file in the same millisecond waits for the next.
    let path = join(folder, `receipts-${Date.now()}.ndjson`);
    while (old.includes(path.slice(folder.length + 1))) {
      await systemClock.sleep(1);
      path = join(folder, `receipts-${Date.now()}.ndjson`);
    }
    sizeBytes = 0;
    return open(path, 'a', 0o600);
  };
  const write = async (): Promise<void> => {
    const batch = waiting;
    waiting = [];
    if (batch.length === 0) return;
    const bytes = Buffer.from(batch.map((receipt) => `${JSON.stringify(receipt)}\n`).join(''));
    try {
      if (file === undefined || sizeBytes > FILE_BYTES_MAX) file = await begin();
      await file.appendFile(bytes);
      await file.datasync();
      sizeBytes += bytes.length;
    } catch (error) {
      log.error('receipts-not-kept', { count: batch.length, reason: (error as Error).message });
      file = undefined;
    }
  };
  const flush = (): Promise<void> => {
    clearTimeout(timer);
    timer = undefined;
    turn = turn.then(write);
    return turn;
  };

  return {
    get count() {
      return count;
    },
    add(receipt) {
      count += 1;
      recent.set(receipt.id, receipt);
      if (recent.size > RECENT_MAX) recent.delete(recent.keys().next().value as string);
      if (waiting.length < WAITING_MAX) waiting.push(receipt);
      timer ??= setTimeout(() => void flush(), FLUSH_MS);
    },
    async find(id, deep) {
      const known = recent.get(id);
      if (known !== undefined) return known;
      if (deep && ID.test(id)) {
        const search = searching.then(() => findInFiles(id));
        searching = search.catch(() => {});
        const found = await search;
        if (found !== undefined) return found;
      }
      throw new MillraceError('receipt-unknown', {
        actor: 'caller',
        message: `There is no receipt ${id.slice(0, 80)} here`,
        values: { id: id.slice(0, 80) },
      });
    },
    async all(id) {
      await flush();
      const found: KeptReceipt[] = [];
      for (const name of await names()) found.push(...(await findInFile(join(folder, name), id, Number.POSITIVE_INFINITY)));
      return found;
    },
    flush,
    async close() {
      await flush();
      await file?.close();
    },
  };
}

async function findInFile(path: string, id: string, countMax = 1): Promise<KeptReceipt[]> {
  const found: KeptReceipt[] = [];
  const lines = createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY });
  try {
    for await (const line of lines) {
      if (!line.startsWith(`{"id":"${id}"`)) continue;
      try {
        found.push(JSON.parse(line) as KeptReceipt);
      } catch {
        // A line that a crash has torn: nobody was told that it is there.
      }
      if (found.length === countMax) break;
    }
    return found;
  } finally {
    lines.close();
  }
}
