import type { Command } from 'commander';
import { MillraceError } from '../errors.ts';
import type { Run } from './context.ts';
import { registerOwnerCommands } from './owner-commands.ts';

/** Adds `millrace juror` with its options, help and examples. */
export function registerJurorCommands(program: Command, run: Run): void {
  const juror = program
    .command('juror')
    .description('sit on the jury that decides disputes of all networks, by looking at the matter itself');
  juror
    .command('enrol')
    .description('make keys, register as an operator, stake, and take seats at the jury; can be repeated')
    .option('--seats <count>', 'seats to hold; each may be drawn for one vote', '1')
    .option('--stake <amount>', 'tokens to stake (default: twice what the seats lock)')
    .option('--beneficiary <address>', 'who receives what jurors earn (default: the owner)')
    .option('--gas <amount>', 'of the chain’s coin, what the node key should hold at least; sent from the wallet', '0.1')
    .addHelpText('after', '\nExamples:\n  millrace juror enrol\n  millrace juror enrol --seats 4 --beneficiary 0x…')
    .action(run(async (context, options: never) => (await import('./juror.ts')).jurorEnrol(context, options)));
  juror
    .command('leave')
    .description('give seats up; once the delay is over, free the stake behind them')
    .option('--seats <count>', 'how many (default: all)')
    .action(run(async (context, options: never) => (await import('./juror.ts')).jurorLeave(context, options)));
  juror
    .command('status')
    .description('seats, open votes, what waits for the juror, and what the running one says of itself')
    .action(run(async (context) => (await import('./juror.ts')).jurorStatus(context)));
  juror
    .command('run')
    .description(
      'judge disputes in the foreground: votes are committed, revealed (also after a crash), closed, executed, settled and fetched',
    )
    .option('--listen <host:port>', 'where to listen (setting jurorListen; default 127.0.0.1:9400)')
    .addHelpText(
      'after',
      '\nIt votes only what a judge of the disputed contract answers, never a guess: where it has none, the vote is not cast, which costs the penalty.\n\nExample:\n  millrace juror run',
    )
    .action(run(async (context, options: never) => (await import('./juror.ts')).jurorRun(context, options)));
  registerOwnerCommands(juror, run, 'juror');
}

/** A whole number from 1 on. @throws bad-option */
export function countOption(name: string, text: string): number {
  if (/^[1-9]\d{0,3}$/.test(text)) return Number(text);
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${name} ${text.slice(0, 20)}, expected a whole number from 1 to 9999`,
    values: { option: name, got: text.slice(0, 20) },
  });
}
