import type { Output } from './output.ts';

/** Flags that every command takes. */
export interface GlobalFlags {
  data?: string;
  network: string;
  rpcUrl?: string;
  json: boolean;
  logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** What a command is given: the global flags, how to speak, and a signal that fires at Ctrl-C. */
export interface CommandContext {
  flags: GlobalFlags;
  output: Output;
  signal: AbortSignal;
}

/** Wraps a command's action: gives it the context, then commander's arguments and options. */
export type Run = (action: (context: CommandContext, ...given: never[]) => Promise<void>) => (...given: unknown[]) => Promise<void>;
