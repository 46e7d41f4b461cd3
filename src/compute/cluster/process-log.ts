/** The end of what a process printed, readable from any place that is still there. */
export interface ProcessLog {
  append(bytes: Uint8Array): void;
  /** What was printed from `from` (in bytes since its first start), and where to go on; earlier bytes than are kept are left out. */
  read(from: number): { text: string; next: number };
}

const KEPT_BYTES = 256 << 10;

/** Keeps the last 256 KiB. */
export function createProcessLog(): ProcessLog {
  let kept = Buffer.alloc(0);
  let end = 0;
  return {
    append(bytes) {
      kept = Buffer.concat([kept, bytes]).subarray(-KEPT_BYTES);
      end += bytes.length;
    },
    read(from) {
      const start = Math.min(Math.max(from, end - kept.length), end);
      return { text: kept.subarray(kept.length - (end - start)).toString('utf8'), next: end };
    },
  };
}
