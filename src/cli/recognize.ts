import { readFile, stat } from 'node:fs/promises';
import { MillraceError } from '../errors.ts';
import { RECEIPT_HEADER } from '../inference/index.ts';
import type { CommandContext } from './context.ts';
import { withOwnGateway } from './inference.ts';
import { table } from './output.ts';

const FILE_BYTES_MAX = 32 << 20;
const TASKS = ['detection', 'classification', 'ocr', 'command', 'activity'];

/** What a model has found, in the words of `/v1/tasks/{type}`. */
export interface Found {
  objects?: { label: string; score: number; box: Record<string, number> | number[] }[];
  classes?: { label: string; score: number }[];
  lines?: { text: string; score: number }[];
  text?: string;
  /** Of spoken commands: the one that was heard, null where none was sure enough, and how sure each was, best first. */
  command?: string | null;
  scores?: { label: string; score: number }[];
  /** Where there is speech. */
  segments?: { startMs: number; endMs: number }[];
  durationMs?: number;
}

const SCORES_SHOWN = 5;

/** Lets a model of the network look at a picture (or listen to a sound), and prints what it found, who vouches for it, and the cost. */
export async function recognize(
  context: CommandContext,
  path: string,
  options: { task: string; model?: string; replay?: boolean },
): Promise<void> {
  if (!TASKS.includes(options.task)) {
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: `Got --task ${options.task}, expected one of ${TASKS.join(', ')}`,
      values: { got: options.task },
    });
  }
  const body = await readSmallFile(path);
  await withOwnGateway(context, options, async ({ send, account, told }) => {
    const query = options.model === undefined ? '' : `?${new URLSearchParams({ model: options.model })}`;
    const response = await send(`/v1/tasks/${options.task}${query}`, { body, type: 'application/octet-stream' });
    const found = (await response.json()) as Found;
    const bill = await account(response.headers.get(RECEIPT_HEADER));
    context.output.result({ ...found, ...bill }, () => `${foundText(found)}\n\n${told(bill)}`);
  });
}

/** A file of at most 32 MiB. @throws unreadable-file, file-too-large */
export async function readSmallFile(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const { size } = await stat(path);
    if (size > FILE_BYTES_MAX) {
      throw new MillraceError('file-too-large', {
        actor: 'caller',
        message: `${path} has ${size} bytes, a request takes ${FILE_BYTES_MAX}`,
        values: { path, got: size, limit: FILE_BYTES_MAX },
      });
    }
    return new Uint8Array(await readFile(path));
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new MillraceError('unreadable-file', {
      actor: 'caller',
      message: `Cannot read ${path}: ${(error as Error).message}`,
      values: { path },
      cause: error,
    });
  }
}

/** What was found, for people: a table of objects, classes, scores or stretches of speech, or the lines of a text. */
export function foundText(found: Found): string {
  if (found.objects !== undefined) {
    if (found.objects.length === 0) return 'Nothing was found.';
    const rows = found.objects.map(({ label, score, box }) => [
      label,
      score.toFixed(2),
      Object.values(box)
        .map((part) => Math.round(Number(part)))
        .join(', '),
    ]);
    return table(['what', 'score', 'box'], rows);
  }
  if (found.classes !== undefined) {
    return scoresTable('what', found.classes);
  }
  if (found.scores !== undefined) {
    const heard = found.command === null ? 'No command was heard.' : `Heard: ${found.command}`;
    return `${heard}\n\n${scoresTable('command', found.scores.slice(0, SCORES_SHOWN))}`;
  }
  if (found.segments !== undefined) {
    const length = found.durationMs === undefined ? '' : ` in ${secondsText(found.durationMs)} s`;
    if (found.segments.length === 0) return `No speech was found${length}.`;
    const rows = found.segments.map(({ startMs, endMs }) => [secondsText(startMs), secondsText(endMs)]);
    return table(['speech from s', 'to s'], rows);
  }
  if (found.lines !== undefined) return found.lines.map(({ text }) => text).join('\n');
  return found.text ?? JSON.stringify(found, null, 2);
}

function scoresTable(what: string, scores: readonly { label: string; score: number }[]): string {
  return table(
    [what, 'score'],
    scores.map(({ label, score }) => [label, score.toFixed(2)]),
  );
}

function secondsText(ms: number): string {
  return (ms / 1000).toFixed(2);
}
