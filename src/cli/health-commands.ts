import type { Command } from 'commander';
import type { Run } from './context.ts';

/** Adds `millrace devices` and `millrace node health`. */
export function registerHealthCommands(program: Command, run: Run): void {
  program
    .command('devices [device]')
    .description('health of all devices of the compute network, ranked; of one device hour by hour, with what its partners measured')
    .option('--hours <count>', 'hours looked at, up to 48', '24')
    .addHelpText('after', '\nExamples:\n  millrace devices\n  millrace devices 3 --hours 6')
    .action(run(async (context, ...given: never[]) => (await import('./health.ts')).devices(context, given[0], given[1] as never)));
  const node = program.commands.find((command) => command.name() === 'node') ?? program.command('node').description('nodes of operators');
  node
    .command('status <operator>')
    .alias('health')
    .description('what a node of the compute network says of the devices of its operator, beside what the chain says: rank, uptime, record')
    .addHelpText('after', '\nExample:\n  millrace node status 1')
    .action(run(async (context, operator: never) => (await import('./health.ts')).nodeHealth(context, operator)));
}
