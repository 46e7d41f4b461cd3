import { readFileSync } from 'node:fs';
import { exitCodeOf, MillraceError, toMillraceError } from '../errors.ts';
import { createLogger } from '../log.ts';
import { type ChainSupervisorOptions, startChainSupervisor } from './supervisor.ts';

/**
 * The embedded chain as a process of its own. One argument: its options as JSON (balances as decimal strings), or `-` to read them
 * from standard input. Prints one line `{"ready":true,…status}` on standard output; errors as JSON on standard error.
 * SIGTERM and SIGINT stop it after the block in the making.
 */
type ProcessOptions = Omit<ChainSupervisorOptions, 'accounts' | 'log'> & {
  accounts?: { address: `0x${string}`; balance: string }[];
  logFile?: string;
};

function readOptions(argument: string | undefined): ProcessOptions {
  try {
    const text = argument === '-' ? readFileSync(0, 'utf8') : (argument ?? '');
    const parsed = JSON.parse(text) as ProcessOptions;
    if (typeof parsed.folder !== 'string') throw new TypeError('no folder');
    return parsed;
  } catch (cause) {
    throw new MillraceError('bad-arguments', {
      actor: 'caller',
      message: 'Expected one argument: the options as JSON with a folder, or - for standard input',
      cause,
    });
  }
}

async function main(): Promise<void> {
  const { accounts, logFile, ...options } = readOptions(process.argv[2]);
  const supervisor = await startChainSupervisor({
    ...options,
    accounts: accounts?.map(({ address, balance }) => ({ address, balance: BigInt(balance) })),
    log: createLogger({ role: 'chain', file: logFile }),
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void supervisor.stop());
  process.stdout.write(`${JSON.stringify({ ready: true, ...supervisor.status(), controlPath: supervisor.controlPath })}\n`);
  const failure = await supervisor.ended;
  await supervisor.stop();
  if (failure !== undefined) throw failure;
}

main().catch((error) => {
  process.stderr.write(`${JSON.stringify(toMillraceError(error))}\n`);
  process.exitCode = exitCodeOf(error);
});
