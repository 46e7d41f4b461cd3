import type { Command } from 'commander';
import type { Run } from './context.ts';

/** Adds `millrace cluster …` with its options, help and examples. */
export function registerClusterCommands(program: Command, run: Run): void {
  const cluster = program.command('cluster').description('machines rented together, on a network of their own, for one program');
  cluster
    .command('up <name> [file]')
    .description('rent the machines, start the program, and replace machines that are lost; without a file, go on with an earlier one')
    .option('--class <class>', 'class of the machines: 32 bytes in hex, or a name of at most 31 letters (default: the document’s)')
    .option('--max-price <amount>', 'greatest price of a machine and hour (default: the document’s)')
    .option('--hours <count>', 'how long the machines are reserved (default: the document’s time, else 1)')
    .option('--token <token>', 'native or stable (default: that of the document’s price, else native)')
    .option('--collateral <amount>', 'least stake behind each machine, in tokens of the network', '0')
    .option('--deposit <amount>', 'first put so much of that token into the account from which leases are paid')
    .option('--turn <number>', 'this is the stand-in with that number: it acts later than those before it', '0')
    .addHelpText('after', HELP)
    .action(
      run(async (context, name: never, spec: never, options: never) => (await import('./cluster.ts')).up(context, name, spec, options)),
    );
  cluster
    .command('ps <name>')
    .description('its machines and processes')
    .action(run(async (context, name: never) => (await import('./cluster.ts')).ps(context, name)));
  cluster
    .command('logs <name>')
    .description('what a process printed')
    .option('--rank <rank>', 'which process', '0')
    .option('-f, --follow', 'go on as it prints', false)
    .action(run(async (context, name: never, options: never) => (await import('./cluster.ts')).logs(context, name, options)));
  cluster
    .command('exec <name> <command...>')
    .description('run a command within a process’s container')
    .option('--rank <rank>', 'which process', '0')
    .addHelpText('after', '\nExample:\n  millrace cluster exec training -- cat /cluster/hostfile')
    .action(
      run(async (context, name: never, command: never, options: never) =>
        (await import('./cluster.ts')).exec(context, name, command, options),
      ),
    );
  cluster
    .command('down <name>')
    .description('end its program and its leases')
    .action(run(async (context, name: never) => (await import('./cluster.ts')).down(context, name)));
}

const HELP = `
The program keeps checkpoints in /checkpoints (a file whose name ends with a number; written elsewhere first, then renamed); every machine has the
newest. It is told RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; /cluster/hostfile is for mpirun, /etc/hosts has rank-0, rank-1, …, master.
When a machine is lost, another one takes its ranks and all processes start anew.
The limits are those of one process; a machine's processes and its checkpoints together must fit into what the class offers (millrace offers).
When all processes have ended the machines are given back at once, with their files and logs: fetch what matters while it runs (logs, exec).

FILE is a deployment (YAML of docs/job-format.md or Akash SDL, one service; a machine and a process for each of its count; a quarter of the memory
is for checkpoints), or, where more is to be said, a specification in JSON:
  {"version": 1, "image": "sha256:…", "argv": ["/usr/bin/python3", "/train.py"], "env": {}, "processes": 4, "machines": 3,
   "limits": {"memoryBytes": 1073741824, "cpus": 1, "processes": 128, "diskBytes": 67108864, "wallSeconds": 86400, "outputBytes": 1048576},
   "checkpointBytesMax": 268435456, "restartsMax": 3}

Examples:
  millrace cluster up training examples/training.yaml
  millrace cluster up training spec.json --class cpu-4 --max-price 0.5 --hours 8
  millrace cluster up training
  millrace cluster ps training`;
