import type { Command } from 'commander';
import { MillraceError } from '../errors.ts';
import type { Run } from './context.ts';

/** Adds the commands of rentals: `offers`, `rent`, `rentals`, `exec`, `cp`, `forward`, `extend`, `end-lease`, `rent-agent`, `queue`. */
export function registerRentCommands(program: Command, run: Run): void {
  registerRenting(program, run);
  registerWorkInRentals(program, run);
  registerQueue(program, run);
}

function registerRenting(program: Command, run: Run): void {
  program
    .command('offers')
    .description('machines that can be rented: what they have, what they cost')
    .option('--class <class>', 'of this class alone')
    .action(run(async (context, options: never) => (await import('./rent.ts')).offers(context, options)));
  program
    .command('rent')
    .description('rent machines by time, paid for the seconds in which you and they both found them up')
    .argument('[words...]', 'a document of a deployment (YAML of docs/job-format.md, Akash SDL); or, after --, what runs in them by itself')
    .option('--class <class>', 'class of the machines (default: that of the best one)')
    .option('--hours <count>', 'for how long (default: the document’s time, else 1)')
    .option('--max-price <amount>', 'greatest price of a machine and hour (default: the document’s, else the dearest candidate’s)')
    .option('--count <count>', 'machines, all or none (default: 1)')
    .option('--cpus <count>', 'at least so many cores each')
    .option('--memory <size>', 'at least so much memory each')
    .option('--token <token>', 'stable or native (default: stable)')
    .option('--interruptible', 'cheaper; the supplier may end it with a notice', false)
    .option('--collateral <amount>', 'least stake behind each lease, in tokens of the network (default: 0)')
    .option('--no-wait', 'do not wait until they answer')
    .addHelpText('after', RENT_HELP)
    .action(
      run(async (context, words: readonly string[], options: never) => {
        if (isDocument(words) && !process.argv.includes('--')) {
          return await (await import('./rent-document.ts')).rentDocument(context, words[0] as string, options);
        }
        requireSeparator(words, process.argv);
        await (await import('./rent.ts')).rent(context, words, options);
      }),
    );
  program
    .command('rentals')
    .description('what you rent or have rented: state, time, what was paid and returned')
    .option('--all', 'those that are closed too', false)
    .action(run(async (context, options: never) => (await import('./rent.ts')).rentals(context, options)));
  program
    .command('extend <rental>')
    .description('rent the same machine for longer, from the second at which it would end; what is in it stays')
    .option('--hours <count>', 'for how much longer', '1')
    .option('--max-price <amount>', 'greatest price of an hour (default: any)')
    .action(run(async (context, rental: never, options: never) => (await import('./rent.ts')).extend(context, rental, options)));
  program
    .command('end-lease <rental>')
    .description('end a rental with the interval that runs; the price of the rest returns')
    .action(run(async (context, rental: never) => (await import('./rent.ts')).endRental(context, rental)));
  program
    .command('rent-agent')
    .description('speak for this wallet’s rentals until all are closed (`millrace rent` starts it by itself)')
    .action(run(async (context) => (await import('./rent-agent.ts')).rentAgent(context)));
}

function registerWorkInRentals(program: Command, run: Run): void {
  program
    .command('exec')
    .description('run a command in a rental; its exit code is this command’s')
    .argument('<rental>', 'number of the rental')
    .argument('<command...>', 'program and arguments (after --)')
    .option('-t, --tty', 'with a terminal of its own', false)
    .option('-i, --interactive', 'standard input goes to it', false)
    .option('-w, --workdir <path>', 'where it begins (default /tmp)')
    .option('-e, --env <name=value>', 'set in its environment; may be repeated', (value: string, list: string[]) => [...list, value], [])
    .addHelpText(
      'after',
      '\nExamples:\n  millrace exec 7 -- python3 -V\n  millrace exec -it 7 -- bash\n  cat data | millrace exec -i 7 -- sh -c "cat > data"',
    )
    .action(
      run(async (context, rental: never, command: never, options: never) =>
        (await import('./rent-exec.ts')).exec(context, rental, command, options),
      ),
    );
  program
    .command('cp <from> <to>')
    .description('copy files and folders into a rental or out of it; one side is RENTAL:PATH')
    .addHelpText(
      'after',
      '\nPlain files and folders only; links and devices are refused. Examples:\n  millrace cp ./src 7:/tmp/src\n  millrace cp 7:/tmp/model.bin .',
    )
    .action(run(async (context, from: never, to: never) => (await import('./rent-exec.ts')).cp(context, from, to)));
  program
    .command('forward')
    .description('bring ports of a rental to this machine: what connects here is connected there')
    .argument('<rental>', 'number of the rental')
    .argument('<ports...>', 'PORT or LOCAL:PORT, TCP: where to listen here (0: any that is free), and the port within the rental')
    .option('--listen <address>', 'listen on this address of this machine, for others than its own users too', '127.0.0.1')
    .addHelpText('after', FORWARD_HELP)
    .action(
      run(async (context, rental: never, ports: never, options: never) =>
        (await import('./forward.ts')).forward(context, rental, ports, options),
      ),
    );
}

function registerQueue(program: Command, run: Run): void {
  program
    .command('queue <file>')
    .description('run the work of a document over your rentals until each piece has its result, whatever machines die')
    .option('--on <rentals>', 'numbers of rentals, such as 7,8,9 (default: all that run, also those that begin meanwhile)')
    .option('--output <folder>', 'where the results go (default: ./<name>-results)')
    .option('--patience <duration>', 'end when nothing can run for so long', '10m')
    .addHelpText('after', QUEUE_HELP)
    .action(run(async (context, file: never, options: never) => (await import('./rent-queue.ts')).queue(context, file, options)));
}

/** One word with the ending of a document, or `-`. */
function isDocument(words: readonly string[]): boolean {
  return words.length === 1 && /^-$|\.(?:ya?ml|json|sdl)$/i.test(words[0] ?? '');
}

/** `millrace rent end 7` is no command that runs in a rental: whoever means one says so by `--`. */
function requireSeparator(command: readonly string[], words: readonly string[]): void {
  if (command.length === 0 || words.includes('--')) return;
  throw new MillraceError('no-separator', {
    actor: 'caller',
    message: `Got "${command.join(' ').slice(0, 80)}" without -- in front, expected a command to run in the rental after --`,
    values: { command: command.join(' ').slice(0, 80) },
    hint: 'Nothing was rented. A rental is ended by `millrace end-lease NUMBER`; a document ends with .yaml, .yml, .json or .sdl.',
  });
}

const RENT_HELP = `
The supplier of a machine can see what runs on it. Files lie in the rental's sandbox: copy out what matters. Rentals have no network:
what listens in one is reached by its renter alone, with millrace forward.
An agent of yours runs in the background: it looks whether the machine is there and signs what is to be paid. While it is not running, drawn probers
speak for you. Time in which the machine is down is not charged; a supplier that ends early, or is down too long, loses stake, half of it to you.

A document says devices, counts, prices, time, and what runs in each rental: a command of the machine's own software, or in an image by its CID (a tar
archive of a root file system with /bin/sh: docker export CONTAINER > image.tar, then millrace put --public image.tar). All of it is rented or nothing.
What rentals cannot do is refused with line and field: registries, volumes, UDP, ports for another service. millrace explain FILE says which devices would do.

Examples:
  millrace rent examples/lab.yaml
  millrace rent deploy.sdl --max-price 0.05 --hours 2
  millrace rent --hours 2 --max-price 0.05
  millrace rent --count 3 --class cpu-4 --hours 8
  millrace rent --interruptible -- sh -c "while true; do ./work; done"
  millrace end-lease 7
`;

const FORWARD_HELP = `
Goes on until Ctrl-C or the end of the rental, also while its sandbox is made anew. A program in the rental is reached at its loopback, by this wallet alone; it
reaches nothing here or elsewhere. At most 32 connections to one rental at one time; one on which nothing moves for an hour is cut.

Examples:
  millrace forward 7 8080                 # http://127.0.0.1:8080 is port 8080 of rental 7
  millrace forward 7 8080:80 5432         # two ports, the first of them at 8080 here
  millrace --json forward 7 0:8888        # any port that is free; the answer says which
`;

const QUEUE_HELP = `
Each piece of work is a command that runs in a rental; a machine has as many at one time as it has cores, memory and disk for. When a machine is lost, what
ran there begins again on another one; an end counts once. The same command goes on after a break: what has a result in the folder is not done again.
A result is <folder>/<name>/stdout, stderr, result.json, and files/ for what a command with "outputs: true" left in $QUEUE_OUTPUT.

  queue: 1
  name: sweep                 # of the folder of results
  input: ./data               # a file or folder that every machine is given as $QUEUE_INPUT
  work:
    - name: fit
      command: [python3, fit.py]
      repeat: 20              # fit-1 to fit-20, told $QUEUE_INDEX
      cpus: 1                 # what it takes of a machine: 1 core and 64MiB where nothing is said
      memory: 256MiB
      time: 10m               # it has failed then (1d)
      outputs: true
      interruptible: true     # comes after other work and gives way to it
    - name: pair
      command: [sh, -c, 'echo member $RANK of $WORLD_SIZE']
      machines: 2             # on two machines at once, or not at all; rentals have no network

Examples:
  millrace queue examples/sweep.yaml
  millrace queue sweep.yaml --on 7,8,9 --output results
  millrace --json queue sweep.yaml | grep work-ended
`;
