import type { Writable } from 'node:stream';
import { type MillraceError, toMillraceError } from '../errors.ts';

/** How a command speaks: one JSON object on standard output with `--json`, else text; progress only on a terminal. */
export interface Output {
  json: boolean;
  /** The result of the command: printed as JSON, or by `text` for people. */
  result(value: unknown, text: () => string): void;
  /** One NDJSON line of a stream, or one line of text. */
  line(value: unknown, text: string): void;
  /** Text for people as it comes, without an end of its line; nothing with `--json`. */
  piece(text: string): void;
  /** A remark for people, on standard error; silent with `--json`. */
  note(text: string): void;
  progress(label: string): Progress;
}

/** A progress bar on a terminal, nothing in a pipe. */
export interface Progress {
  update(done: number, total: number | undefined, detail?: string): void;
  end(): void;
}

const BAR_WIDTH = 28;
const REDRAW_MS = 100;

/** The output of one command. Bigints are written as decimal strings. */
export function createOutput(options: {
  json: boolean;
  stdout?: Writable;
  stderr?: Writable & { isTTY?: boolean; columns?: number };
}): Output {
  const stdout = options.stdout ?? process.stdout;
  const stderr = options.stderr ?? process.stderr;
  return {
    json: options.json,
    result: (value, text) => void stdout.write(options.json ? `${toJson(value)}\n` : `${harmless(text())}\n`),
    line: (value, text) => void stdout.write(options.json ? `${toJson(value)}\n` : `${harmless(text)}\n`),
    piece: (text) => void (options.json || stdout.write(harmless(text))),
    note: (text) => void (options.json || stderr.write(`${harmless(text)}\n`)),
    progress: (label) => (options.json || stderr.isTTY !== true ? { update() {}, end() {} } : bar(label, stderr)),
  };
}

/** Names and reasons come from strangers too: nothing in them moves the cursor, sets a title, or turns the order of letters. */
function harmless(text: string): string {
  return text.replace(/(?![\n\t])[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, '\ufffd');
}

/** Prints an error: as JSON `{code, actor, message, values, hint}` with `--json`, else message, hint and code. */
export function printError(error: unknown, json: boolean, stderr: Writable = process.stderr): MillraceError {
  const shown = toMillraceError(error);
  if (json) stderr.write(`${toJson(shown)}\n`);
  else {
    stderr.write(`Error: ${harmless(shown.message)}\n`);
    if (shown.hint !== undefined) stderr.write(`  ${harmless(shown.hint)}\n`);
    stderr.write(`  (${shown.code})\n`);
    if (process.env.MILLRACE_TRACE)
      stderr.write(`${shown.stack}\n${shown.cause instanceof Error ? `caused by ${shown.cause.stack}\n` : ''}`);
  }
  return shown;
}

/** JSON with bigints as decimal strings. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item) => (typeof item === 'bigint' ? item.toString() : item));
}

/** Rows as a table with aligned columns; numbers (cells of digits, dots and units) are not aligned specially. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)));
  const lineOf = (row: readonly string[]) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] as number)))
      .join('  ')
      .trimEnd();
  return [lineOf(header.map((name) => name.toUpperCase())), ...rows.map(lineOf)].join('\n');
}

function bar(label: string, stderr: Writable & { columns?: number }): Progress {
  let drawnAt = Number.NEGATIVE_INFINITY;
  return {
    update(done, total, detail = '') {
      const now = performance.now();
      if (now - drawnAt < REDRAW_MS && done !== total) return;
      drawnAt = now;
      const share = total === undefined || total === 0 ? undefined : Math.min(1, done / total);
      const filled = share === undefined ? 0 : Math.round(share * BAR_WIDTH);
      const drawing = share === undefined ? '…' : `[${'#'.repeat(filled)}${' '.repeat(BAR_WIDTH - filled)}] ${Math.floor(share * 100)}%`;
      stderr.write(`\r\x1b[K${`${label} ${drawing} ${detail}`.slice(0, (stderr.columns ?? 100) - 1)}`);
    },
    end() {
      if (drawnAt > 0) stderr.write('\r\x1b[K');
    },
  };
}
