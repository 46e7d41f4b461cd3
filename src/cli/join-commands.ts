import type { Command } from 'commander';
import type { Run } from './context.ts';
import { registerOwnerCommands } from './owner-commands.ts';

/** Adds joining, leaving and upgrading, the compute node of one's own, and what explains documents. */
export function registerJoinCommands(program: Command, run: Run): void {
  const node = (command: Command) =>
    command
      .option('--listen <host:port>', 'where to listen (setting computeListen; default 127.0.0.1:9500)')
      .option('--relay <who>', 'be reached without an inbound port: auto, operators such as 3,5, or none (setting relay)')
      .option('--cpus <count>', 'processors to give (computeCpus; all)')
      .option('--memory <size>', 'memory to give (computeMemory; all but 512 MiB)')
      .option('--disk <size>', 'disk to give (computeDisk; half of what is free)')
      .option('--price-cpu <amount>', 'tokens for a core and hour (jobPriceCpu)')
      .option('--price-memory <amount>', 'tokens for a GiB of memory and hour (jobPriceMemory)');
  node(
    program
      .command('join <manifest>')
      .description('use the network of a manifest (file or https URL); --compute: make this machine compute for it')
      .option('--compute', 'detect, measure, stake, start, and end only when a job has run through the network and was checked', false)
      .option('--endpoint <url>', 'https://host:port under which others reach this node (default: none, relays are used)')
      .option('--region <name>', 'where it stands')
      .option('--stake <amount>', 'network tokens to stake', '100')
      .option('--gas <amount>', 'of the chain’s coin, what the node key should hold at least', '0.1')
      .option('--wait <duration>', 'how long to wait for money at the wallet', '0s')
      .option('--detach', 'let the node run in the background when the command ends', false),
  )
    .addHelpText(
      'after',
      '\nThe same command again goes on where it stopped. Needs Debian’s bubblewrap and util-linux; docs/container.md has the container.\n\nExamples:\n  millrace --rpc-url https://… join network.json\n  millrace --rpc-url https://… join network.json --compute --wait 1h\n  millrace join network.json --compute --listen 0.0.0.0:9500 --endpoint https://node.example.org:9500 --detach',
    )
    .action(run(async (context, manifest: never, options: never) => (await import('./join.ts')).join(context, manifest, options)));
  program
    .command('leave')
    .description('this machine computes no more: no new work, what runs goes on to its end, then the node stops and its stake comes out')
    .option('--keep-stake', 'leave the stake where it is', false)
    .addHelpText('after', '\nExample:\n  millrace leave      # after the delay: millrace compute withdraw')
    .action(run(async (context, options: never) => (await import('./leave.ts')).leave(context, options)));
  program
    .command('upgrade')
    .description('bring this clone to its newest version, and start the compute node of this machine again with it')
    .addHelpText(
      'after',
      '\nOnly forward, only over what nobody has changed here. Containers: docs/container.md\n\nExample:\n  millrace upgrade',
    )
    .action(run(async (context) => (await import('./upgrade.ts')).upgrade(context)));
  program
    .command('explain <file>')
    .description('what a document of a job or a deployment (also Akash SDL) means, which devices would do, and why the others would not')
    .option('--no-market', 'only read the document')
    .addHelpText('after', '\nExamples:\n  millrace explain deploy.yaml\n  millrace explain examples/word-count.yaml')
    .action(run(async (context, file: never, options: never) => (await import('./explain.ts')).explain(context, file, options)));
  const compute = program.command('compute').description('the compute node of this machine');
  node(compute.command('run').description('run it in the foreground'))
    .addHelpText('after', '\nExample:\n  millrace compute run --relay auto')
    .action(run(async (context, options: never) => (await import('./compute-node.ts')).computeRun(context, options)));
  for (const [name, what] of [
    ['status', 'what it says of itself'],
    ['drain', 'it takes no new work, also after a restart; what runs goes on to its end'],
    ['resume', 'it takes work again'],
  ] as const) {
    compute
      .command(name)
      .description(what)
      .action(run(async (context) => (await import('./compute-node.ts')).computeTell(context, name)));
  }
  compute
    .command('earnings')
    .description('what jobs and leases have brought, in each token')
    .option('--withdraw', 'take it to the wallet', false)
    .action(run(async (context, options: never) => (await import('./compute-node.ts')).computeEarnings(context, options)));
  registerOwnerCommands(compute, run, 'compute');
}
