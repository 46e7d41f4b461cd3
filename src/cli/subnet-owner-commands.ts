import type { Command } from 'commander';
import type { Run } from './context.ts';

/** Adds to `millrace subnet` what its owner and the holder of a uid can do. */
export function registerSubnetOwnerCommands(program: Command, run: Run): void {
  const subnet = program.commands.find((command) => command.name() === 'subnet');
  if (subnet === undefined) return;
  registerOwning(subnet, run);
  registerHolding(subnet, run);
}

function registerOwning(subnet: Command, run: Run): void {
  subnet
    .command('create <task>')
    .description('make a subnet of the wallet’s for a lock that comes back when it is ended')
    .option('--tempo <duration>', 'length of an epoch; never changes', '1h')
    .option('--lock-max <amount>', 'most tokens locked (default: what is shown)')
    .option('--set <rules...>', 'rules other than the defaults, as name=value (millrace subnet rules)')
    .addHelpText('after', '\nExample:\n  millrace subnet create chat --tempo 30m --lock-max 500 --set kappa=50% maxValidators=32')
    .action(run(async (context, kind: never, options: never) => (await import('./subnet-owner.ts')).subnetCreate(context, kind, options)));
  subnet
    .command('rules [id]')
    .description('every rule with its bounds and meaning; of a subnet with its present value')
    .action(run(async (context, id: never) => (await import('./subnet-owner.ts')).subnetRules(context, id)));
  subnet
    .command('set <id> <rules...>')
    .description('the owner changes rules, as name=value, from the next epoch on')
    .addHelpText(
      'after',
      '\nExamples:\n  millrace subnet set 1 kappa=55% immunityEpochs=8\n  millrace subnet set 1 optimistic=true stakeThreshold=1000',
    )
    .action(run(async (context, id: never, rules: never) => (await import('./subnet-owner.ts')).subnetSet(context, id, rules)));
  subnet
    .command('beacon <id> <which>')
    .description('the owner says to which beacon’s rounds weights are sealed: quicknet, or a JSON file that describes another')
    .action(run(async (context, id: never, which: never) => (await import('./subnet-owner.ts')).subnetBeacon(context, id, which)));
  subnet
    .command('burn <id> <amount>')
    .description('burn tokens for a subnet: its share of the emission is measured by that')
    .action(run(async (context, id: never, amount: never) => (await import('./subnet-owner.ts')).subnetBurn(context, id, amount)));
  subnet
    .command('owner <id> [address]')
    .description('hand a subnet over: the owner names an address, which accepts')
    .option('--accept', 'with the wallet that was named', false)
    .action(
      run(async (context, id: never, address: never, options: never) =>
        (await import('./subnet-owner.ts')).subnetOwner(context, id, address, options),
      ),
    );
  subnet
    .command('dissolve <id>')
    .description('end a subnet: its owner at any time, anybody when nothing was settled for long')
    .action(run(async (context, id: never) => (await import('./subnet-owner.ts')).subnetDissolve(context, id)));
  subnet
    .command('return-lock <id>')
    .description('give the lock of an ended subnet back to its creator, once it is due')
    .action(run(async (context, id: never) => (await import('./subnet-owner.ts')).subnetReturnLock(context, id)));
}

function registerHolding(subnet: Command, run: Run): void {
  const operator = ['--operator <number>', 'which operator (default: that of the miner, validator or provider here)'] as const;
  subnet
    .command('register <id>')
    .description(
      'take a uid for an operator at its present price, which is burnt; it stays until somebody else takes it, and cannot be given back',
    )
    .option('--price-max <amount>', 'most tokens burnt (default: the price that is shown)')
    .option(...operator)
    .addHelpText('after', '\nExample:\n  millrace subnet register 2 --price-max 1.5')
    .action(run(async (context, id: never, options: never) => (await import('./subnet-place.ts')).subnetRegister(context, id, options)));
  subnet
    .command('permit <id>')
    .description('take a free permit to judge for the operator’s uid; needs stake')
    .option(...operator)
    .action(run(async (context, id: never, options: never) => (await import('./subnet-place.ts')).subnetPermit(context, id, options)));
  subnet
    .command('take <percent>')
    .description('what the operator keeps before its income is shared with backers; holds after a delay')
    .option(...operator)
    .addHelpText('after', '\nExample:\n  millrace subnet take 12.5')
    .action(
      run(async (context, percent: never, options: never) => (await import('./subnet-place.ts')).subnetTake(context, percent, options)),
    );
  subnet
    .command('income')
    .description('what waits for the operator and this wallet, in the inference token')
    .option(...operator)
    .action(run(async (context, options: never) => (await import('./subnet-place.ts')).subnetIncome(context, options)));
  subnet
    .command('claim')
    .description('fetch all of it; the operator’s part goes to its beneficiary')
    .option(...operator)
    .action(run(async (context, options: never) => (await import('./subnet-place.ts')).subnetClaim(context, options)));
}
