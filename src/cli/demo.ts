import type { CommandContext } from './context.ts';
/** The demo. */
export async function demo(_context: CommandContext): Promise<void> {}
