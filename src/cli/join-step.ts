import { MillraceError, toMillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';

/** Does one step of joining; where it fails, the error says which step it was, and that the command goes on where it stopped. */
export async function joinStep<Value>(context: CommandContext, name: string, act: () => Promise<Value>): Promise<Value> {
  context.signal.throwIfAborted();
  context.output.note(`… ${name}`);
  try {
    return await act();
  } catch (error) {
    context.signal.throwIfAborted();
    const { code, actor, message, values, hint } = toMillraceError(error);
    throw new MillraceError('join-stopped', {
      actor,
      message: `Joining stopped at "${name}": ${message}`,
      values: { ...values, step: name, code },
      hint: `${hint === undefined ? '' : `${hint} `}The same command goes on where it stopped.`,
      cause: error,
    });
  }
}
