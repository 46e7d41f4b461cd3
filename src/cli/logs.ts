import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import type { Output } from './output.ts';
import { folderOf } from './session.ts';

const TAIL_BYTES_MAX = 4 << 20;
const FOLLOW_MS = 200;

/** Prints the last lines of one part's log, or of all in order of time, and with --follow those that come. */
export async function logs(context: CommandContext, part: string | undefined, options: { follow: boolean; lines: string }): Promise<void> {
  if (part !== undefined && /^\d+$/.test(part)) return (await import('./rent-exec.ts')).rentalLogs(context, part, options);
  const folder = folderOf(context).logs;
  const names = existsSync(folder)
    ? readdirSync(folder)
        .filter((name) => name.endsWith('.log'))
        .map((name) => name.slice(0, -4))
    : [];
  if (part !== undefined && !names.includes(part)) {
    throw new MillraceError('unknown-part', {
      actor: 'caller',
      message: `There is no log of "${part}"`,
      values: { part },
      hint: names.length === 0 ? 'Nothing has run yet.' : `Known: ${names.join(', ')}.`,
    });
  }
  const paths = (part === undefined ? names : [part]).map((name) => join(folder, `${name}.log`));
  const count = Number(options.lines);
  if (!Number.isInteger(count) || count < 0)
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: `Got --lines ${options.lines}, expected a whole number`,
      values: { got: options.lines },
    });
  const sizes = new Map(paths.map((path) => [path, statSync(path).size]));
  const lines = paths.flatMap(
    (path) => readFrom(path, Math.max(0, (sizes.get(path) as number) - TAIL_BYTES_MAX), sizes.get(path) as number).lines,
  );
  for (const line of sortByTime(lines)
    .slice(-count || undefined)
    .slice(0, count || 0))
    printLine(context.output, line);
  while (options.follow && !context.signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, FOLLOW_MS));
    const fresh = paths.flatMap((path) => {
      const size = statSync(path).size;
      const from = size < (sizes.get(path) as number) ? 0 : (sizes.get(path) as number);
      const { lines: found, end } = readFrom(path, from, size);
      sizes.set(path, end);
      return found;
    });
    for (const line of sortByTime(fresh)) printLine(context.output, line);
  }
}

/** Whole lines between two offsets, and where the last one ends. */
function readFrom(path: string, from: number, to: number): { lines: string[]; end: number } {
  const buffer = Buffer.alloc(Math.max(0, to - from));
  const file = openSync(path, 'r');
  const length = readSync(file, buffer, 0, buffer.length, from);
  closeSync(file);
  const end = buffer.subarray(0, length).lastIndexOf(10) + 1;
  return {
    lines: buffer
      .subarray(0, end)
      .toString('utf8')
      .split('\n')
      .filter((line) => line !== ''),
    end: from + end,
  };
}

function sortByTime(lines: string[]): string[] {
  const timeOf = (line: string) => /"time":"([^"]+)"/.exec(line)?.[1] ?? '';
  return lines.sort((one, other) => (timeOf(one) < timeOf(other) ? -1 : timeOf(one) > timeOf(other) ? 1 : 0));
}

function printLine(output: Output, line: string): void {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return output.line({ text: line }, line);
  }
  const { time, level, role, event, ...rest } = fields;
  const details = Object.entries(rest).map(([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  output.line(
    fields,
    `${String(time).slice(11, 23)} ${String(level).toUpperCase().padEnd(5)} ${String(role).padEnd(10)} ${event} ${details.join(' ')}`,
  );
}
