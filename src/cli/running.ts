/** What every command that stays has in common: settings from any source, where to listen, and waiting to be stopped. */
import { readSetting, type SettingSources } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { askControl } from '../node/index.ts';
import type { CommandContext } from './context.ts';

/** Those of the named settings that any source gives. */
export function givenSettings(names: readonly string[], sources: SettingSources): Record<string, string> {
  const given = names.map((name) => [name, readSetting(name, sources)?.value]);
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

/** `host:port`, the host perhaps in brackets. @throws bad-option */
export function listenAddress(given: string): { host: string; port: number } {
  const at = /^(\[[0-9a-f:]+\]|[^:]+):(\d{1,5})$/i.exec(given);
  if (at !== null && Number(at[2]) < 65_536) return { host: at[1] as string, port: Number(at[2]) };
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got --listen ${given.slice(0, 80)}, expected host:port`,
    values: { got: given.slice(0, 80) },
  });
}

/** Resolves when the command is told to end: Ctrl-C or SIGTERM. */
export async function untilStopped({ signal }: CommandContext): Promise<void> {
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}

/**
 * Asks a process of one's own over its control socket.
 * @throws what `notRunning` makes when nobody listens there, and what the process answers
 */
export async function askRunning(
  socket: string,
  command: string,
  options: { arguments?: Record<string, unknown>; timeoutMs?: number; notRunning: (cause: MillraceError) => MillraceError },
): Promise<unknown> {
  const { notRunning, ...asked } = options;
  try {
    return await askControl(socket, command, asked);
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'not-running') throw notRunning(error);
    throw error;
  }
}
