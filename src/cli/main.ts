/** The command line of Millrace. Each command is one file; nothing heavy is loaded before a command runs. */
import { Command, CommanderError, Option } from 'commander';
import { exitCodeOf, MillraceError } from '../errors.ts';
import { countExternalMemory } from '../memory.ts';
import { registerCommands } from './commands.ts';
import { registerCompletion } from './completion.ts';
import type { CommandContext, GlobalFlags } from './context.ts';
import { createOutput, printError } from './output.ts';
import { separateCommand } from './separate-command.ts';

const INTERRUPTED = 130;

countExternalMemory();

async function main(argv: readonly string[]): Promise<number> {
  const interrupt = new AbortController();
  const version = await versionText();
  const program = new Command('millrace');
  program
    .description('Pool disks, processors, models and sensors into one network; store files, proven and paid on a chain.')
    .option('--data <folder>', 'data folder (else MILLRACE_HOME, else the system default)')
    .option('--network <name>', 'which network below the data folder', 'dev')
    .option('--rpc-url <url>', 'an external chain instead of the embedded one (MILLRACE_RPC_URL)')
    .option('--json', 'one JSON object on standard output', false)
    .addOption(new Option('--log-level <level>', 'how much is logged').choices(['debug', 'info', 'warn', 'error']).default('info'))
    .configureOutput({ outputError: () => {}, writeErr: (text) => void (isJson || process.stderr.write(text)) })
    .exitOverride();
  const run =
    (action: (context: CommandContext, ...given: never[]) => Promise<void>) =>
    async (...given: unknown[]): Promise<void> => {
      const flags = program.opts<GlobalFlags>();
      await action({ flags, output: createOutput({ json: flags.json }), signal: interrupt.signal }, ...(given.slice(0, -1) as never[]));
    };
  registerCommands(program, run);
  registerCompletion(program);
  program
    .command('version')
    .description('print the version')
    .action(run(async ({ output }) => output.result({ version }, () => version)));
  const words = separateCommand(program, argv);
  const isJson = ownWords(words).includes('--json');
  program.version(isJson ? JSON.stringify({ version }) : version, '-V, --version');
  const stop = () => {
    if (interrupt.signal.aborted) process.exit(INTERRUPTED);
    interrupt.abort(Object.assign(new Error('interrupted'), { name: 'AbortError' }));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 5));
  try {
    await program.parseAsync(words, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    if (interrupt.signal.aborted) return INTERRUPTED;
    const shown = error instanceof CommanderError ? badUsage(error, program) : error;
    // The help was printed already: a command group alone is a question.
    if (isJson || (error as CommanderError).code !== 'commander.help') printError(shown, isJson);
    return exitCodeOf(shown);
  }
}

/** What is said to this program, and not to one that it runs. */
function ownWords(words: readonly string[]): readonly string[] {
  const separator = words.indexOf('--');
  return separator === -1 ? words : words.slice(0, separator);
}

/** What was wrong with the command line itself: an unknown command or option, an argument too many or too few. */
function badUsage(error: CommanderError, program: Command): MillraceError {
  const [first] = program.args;
  if (error.code === 'commander.excessArguments' && first !== undefined && !program.commands.some((command) => command.name() === first)) {
    return new MillraceError('unknown-command', {
      actor: 'caller',
      message: `There is no command "${first}"`,
      values: { command: first },
      hint: 'All commands: millrace --help.',
    });
  }
  return new MillraceError('bad-usage', {
    actor: 'caller',
    message: error.code === 'commander.help' ? 'A command is missing' : error.message.replace(/^error: /, ''),
    values: { kind: error.code.replace(/^commander\./, '') },
    hint: 'Add --help for the options and examples.',
  });
}

async function versionText(): Promise<string> {
  const { default: packageJson } = await import('../../package.json', { with: { type: 'json' } });
  return packageJson.version;
}

process.exitCode = await main(process.argv.slice(2));
// Keep-alive sockets and idle pools must not hold a finished command.
setTimeout(() => process.exit(), 100).unref();
