import type { Command } from 'commander';
import type { Run } from './context.ts';

/** Adds `millrace back` and `millrace backing` with their options, help and examples. */
export function registerBackingCommands(program: Command, run: Run): void {
  program
    .command('back <operator> <amount>')
    .description('put your tokens behind an operator: they lift its rank, share its income, and its slashes after its own stake')
    .addHelpText('after', '\nExample:\n  millrace back 3 250')
    .action(run(async (context, operator: never, amount: never) => (await import('./backing.ts')).back(context, operator, amount)));
  const backing = program
    .command('backing')
    .description('whom this wallet backs, what it is worth, and what waits for it')
    .action(run(async (context) => (await import('./backing.ts')).backing(context)));
  backing
    .command('leave <operator>')
    .description('take tokens from behind an operator; they are paid after the delay and can be slashed until then')
    .option('--amount <amount>', 'how many (default: all)')
    .addHelpText('after', '\nExamples:\n  millrace backing leave 3\n  millrace backing leave 3 --amount 100')
    .action(
      run(async (context, operator: never, options: never) => (await import('./backing.ts')).backingLeave(context, operator, options)),
    );
  backing
    .command('withdraw')
    .description('fetch your part of incomes, and what has left and waited long enough')
    .addHelpText('after', '\nExample:\n  millrace backing withdraw --json')
    .action(run(async (context) => (await import('./backing.ts')).backingWithdraw(context)));
}
