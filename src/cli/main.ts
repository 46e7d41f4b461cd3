/** The command line of Millrace. Each command is one file; nothing heavy is loaded before a command runs. */
import { Command, CommanderError } from 'commander';
import { exitCodeOf } from '../errors.ts';
import { registerCommands } from './commands.ts';
import { registerCompletion } from './completion.ts';
import type { CommandContext, GlobalFlags } from './context.ts';
import { createOutput, printError } from './output.ts';

const INTERRUPTED = 130;

async function main(argv: readonly string[]): Promise<number> {
  const interrupt = new AbortController();
  const program = new Command('millrace');
  program
    .description('Pool disks, processors, models and sensors into one network; store files, proven and paid on a chain.')
    .option('--data <folder>', 'data folder (else MILLRACE_HOME, else the system default)')
    .option('--network <name>', 'which network below the data folder', 'dev')
    .option('--rpc-url <url>', 'an external chain instead of the embedded one (MILLRACE_RPC_URL)')
    .option('--json', 'one JSON object on standard output', false)
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .version(await versionText(), '-V, --version')
    .showHelpAfterError('(add --help for the options and examples)')
    .exitOverride();
  const run =
    (action: (context: CommandContext, ...given: never[]) => Promise<void>) =>
    async (...given: unknown[]): Promise<void> => {
      const flags = program.opts<GlobalFlags>();
      await action({ flags, output: createOutput({ json: flags.json }), signal: interrupt.signal }, ...(given.slice(0, -1) as never[]));
    };
  registerCommands(program, run);
  registerCompletion(program);
  const stop = () => {
    if (interrupt.signal.aborted) process.exit(INTERRUPTED);
    interrupt.abort(Object.assign(new Error('interrupted'), { name: 'AbortError' }));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 5));
  try {
    await program.parseAsync(argv, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (interrupt.signal.aborted) return INTERRUPTED;
    printError(error, program.opts<GlobalFlags>().json);
    return exitCodeOf(error);
  }
}

async function versionText(): Promise<string> {
  const { default: packageJson } = await import('../../package.json', { with: { type: 'json' } });
  return packageJson.version;
}

process.exitCode = await main(process.argv.slice(2));
// Keep-alive sockets and idle pools must not hold a finished command.
setTimeout(() => process.exit(), 100).unref();
