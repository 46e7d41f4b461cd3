import type { Command } from 'commander';
import type { Run } from './context.ts';
import type { OwnNodeKind } from './operator.ts';

/** Adds the commands with which an owner handles the operator of a node of one's own: endpoint, keys, stake. */
export function registerOwnerCommands(node: Command, run: Run, kind: OwnNodeKind): void {
  const operator = ['--operator <number>', 'which operator (default: the one of the node key here)'] as const;
  node
    .command('endpoint <url>')
    .description('say on chain where the node is reached')
    .option(...operator)
    .option('--region <name>', 'where the node stands (default: as it was)')
    .addHelpText('after', `\nExample:\n  millrace ${kind} endpoint https://disk.example.org:9000`)
    .action(
      run(async (context, url: never, options: object) =>
        (await import('./operator.ts')).providerEndpoint(context, url, { ...options, kind } as never),
      ),
    );
  node
    .command('rotate <what> [address]')
    .description('change owner or beneficiary, with a delay, or the node key, at once')
    .option('--finish', 'finish the change that was started; a new owner does it with the own wallet', false)
    .option('--cancel', 'cancel the change that was started', false)
    .option(...operator)
    .addHelpText(
      'after',
      `\nExamples:\n  millrace ${kind} rotate beneficiary 0x…           start it; anyone may finish it after the delay\n  millrace ${kind} rotate beneficiary --finish\n  millrace ${kind} rotate owner --cancel           a stolen owner key is noticed in time\n  millrace ${kind} rotate owner --finish --operator 3\n  millrace ${kind} rotate node-key                 a new key is made here and replaces the old one`,
    )
    .action(
      run(async (context, what: never, address: never, options: object) =>
        (await import('./operator.ts')).providerRotate(context, what, address, { ...options, kind } as never),
      ),
    );
  node
    .command('limit <amount>')
    .description('most stake that the node key may promise in deals; bounds what a stolen node key can do; 0: no limit')
    .option(...operator)
    .addHelpText('after', `\nExample:\n  millrace ${kind} limit 250`)
    .action(
      run(async (context, amount: never, options: object) =>
        (await import('./operator.ts')).providerLimit(context, amount, { ...options, kind } as never),
      ),
    );
  node
    .command('stake <amount>')
    .description('add own stake')
    .option(...operator)
    .addHelpText('after', `\nExample:\n  millrace ${kind} stake 500`)
    .action(
      run(async (context, amount: never, options: object) =>
        (await import('./operator.ts')).providerStake(context, amount, { ...options, kind } as never),
      ),
    );
  node
    .command('unstake <amount>')
    .description('take out stake that secures nothing; it is paid after the delay')
    .option(...operator)
    .addHelpText('after', `\nExample:\n  millrace ${kind} unstake 500`)
    .action(
      run(async (context, amount: never, options: object) =>
        (await import('./operator.ts')).providerUnstake(context, amount, { ...options, kind } as never),
      ),
    );
  node
    .command('withdraw')
    .description('fetch stake whose delay is over, earnings, and what slashes credited')
    .option(...operator)
    .addHelpText('after', `\nEarnings are the beneficiary’s: withdraw with its wallet.\n\nExample:\n  millrace ${kind} withdraw --json`)
    .action(
      run(async (context, options: object) => (await import('./operator.ts')).providerWithdraw(context, { ...options, kind } as never)),
    );
}
