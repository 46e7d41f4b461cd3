import { closeSync, existsSync, fstatSync, mkdirSync, openSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

/** Severity of a log line, least first. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Fields of a log line. Never pass keys, passwords or mnemonics. */
export type LogFields = Record<string, string | number | bigint | boolean | null | undefined>;

/** Writes one NDJSON line per call: `{time, level, role, event, …}`. */
export interface Logger {
  debug(event: string, fields?: LogFields): void;
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields): void;
}

/** Where lines go: a file that is rotated at `maxBytes` (one predecessor kept as `.1`), or any sink. */
export interface LogOptions {
  role: string;
  level?: LogLevel;
  file?: string;
  maxBytes?: number;
  sink?: (line: string) => void;
}

const LEVELS: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };
const SECRET_KEY = /(secret|password|passphrase|mnemonic|privatekey|private_key)/i;

/** A logger for one role. Fields whose name looks like a secret are written as `[redacted]`. */
export function createLogger(options: LogOptions): Logger {
  const threshold = LEVELS[options.level ?? 'info'];
  const sink =
    options.sink ??
    (options.file === undefined
      ? (line: string) => void process.stderr.write(line)
      : rotatingFile(options.file, options.maxBytes ?? 16 << 20));
  const write = (level: LogLevel, event: string, fields: LogFields = {}) => {
    if (LEVELS[level] < threshold) return;
    const line: Record<string, unknown> = { time: new Date().toISOString(), level, role: options.role, event };
    for (const [key, value] of Object.entries(fields)) {
      line[key] = SECRET_KEY.test(key) ? '[redacted]' : typeof value === 'bigint' ? value.toString() : value;
    }
    sink(`${JSON.stringify(line)}\n`);
  };
  return {
    debug: (event, fields) => write('debug', event, fields),
    info: (event, fields) => write('info', event, fields),
    warn: (event, fields) => write('warn', event, fields),
    error: (event, fields) => write('error', event, fields),
  };
}

/** A logger that writes nothing, for callers that do not listen. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

function rotatingFile(path: string, maxBytes: number): (line: string) => void {
  mkdirSync(dirname(path), { recursive: true });
  let file = openSync(path, 'a', 0o600);
  let sizeBytes = fstatSync(file).size;
  return (line) => {
    if (sizeBytes + line.length > maxBytes && sizeBytes > 0) {
      closeSync(file);
      if (existsSync(path)) renameSync(path, `${path}.1`);
      file = openSync(path, 'a', 0o600);
      sizeBytes = 0;
    }
    sizeBytes += writeSync(file, line);
  };
}
