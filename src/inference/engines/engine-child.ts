/** The process of one engine: opens the kernel that the host names and answers what it asks over the channel of `child_process`. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { FromChild, Kernel, OpenKernel, SentError, ToChild } from './kernel.ts';

const running = new Map<number, AbortController>();
let kernel: Kernel | undefined;

function tell(message: FromChild): void {
  if (process.connected) process.send?.(message);
}

function asSent(error: unknown): SentError {
  const { code, actor, message, values, hint } = classify(error).toJSON();
  return { code, actor, message, values: values as SentError['values'], hint };
}

/** What native code throws when it finds no memory tells so in its text alone. */
function classify(error: unknown): MillraceError {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof MillraceError || !/bad_alloc|failed to allocate|out of memory|cannot allocate|allocation failed/i.test(text)) {
    return toMillraceError(error);
  }
  return new MillraceError('engine-memory', {
    actor: 'caller',
    message: 'The request needs more memory than the engine may use',
    values: { reason: text.slice(0, 200) },
    hint: 'Send a smaller input.',
    cause: error,
  });
}

async function open(message: Extract<ToChild, { type: 'open' }>): Promise<void> {
  const { card, files, options } = message;
  const module = (await import(message.kernel)) as { openKernel: OpenKernel };
  kernel = await module.openKernel({
    card,
    options,
    async read(name) {
      const file = files.find((each) => each.name === name);
      if (file === undefined) throw tampered(card.id, name, 'it is not one of the files of this model');
      const bytes = new Uint8Array(await readFile(file.path));
      const got = createHash('sha256').update(bytes).digest('hex');
      if (got !== file.sha256) throw tampered(card.id, name, `its SHA-256 is ${got}, not ${file.sha256}`);
      return bytes;
    },
  });
  tell({ type: 'ready' });
}

function tampered(model: string, file: string, reason: string): MillraceError {
  return new MillraceError('model-tampered', {
    actor: 'host',
    message: `${file} of the model ${model} is not loaded: ${reason}`,
    values: { model, file, reason },
    hint: 'Delete the folder of models in the data folder; they are fetched anew.',
  });
}

async function run({ id, request }: Extract<ToChild, { type: 'run' }>): Promise<void> {
  const abort = new AbortController();
  running.set(id, abort);
  try {
    const result = await (kernel as Kernel).run(request, { signal: abort.signal, onPart: (part) => tell({ type: 'part', id, part }) });
    tell({ type: 'done', id, result });
  } catch (error) {
    tell({ type: 'failed', id, error: asSent(error) });
  } finally {
    running.delete(id);
  }
}

process.on('message', (message: ToChild) => {
  if (message.type === 'open') void open(message).catch((error: unknown) => tell({ type: 'refused', error: asSent(error) }));
  else if (message.type === 'run') void run(message);
  else running.get(message.id)?.abort();
});
// The host is gone, however it went.
process.on('disconnect', () => process.exit(0));
