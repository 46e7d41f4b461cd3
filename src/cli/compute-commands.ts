import type { Command } from 'commander';
import type { Run } from './context.ts';

/** Adds the commands of the compute network with their options, help and examples. */
export function registerComputeCommands(program: Command, run: Run): void {
  const collect = (value: string, before: string[]) => [...before, value];
  program
    .command('run [words...]')
    .description('run a job document, or the command behind --, on the network')
    .option('--input <name=source>', 'what the job finds below /input: a file here, or a CID; can be repeated', collect, [])
    .option('--output <folder>', 'where its outputs go (default: ./<name>-output, with a number where that is not empty)')
    .option('--image <source>', 'for a command: an image, a tar archive here or its CID (default: software of the machine)')
    .option('--check <class>', 'for a command: exact-output, fingerprint or none (default: exact-output with an image, else none)')
    .option('--time <duration>', 'for a command: its time limit (default: 10m)')
    .option('--memory <size>', 'for a command: its memory (default: 256MiB)')
    .option('--cpus <count>', 'for a command: its processors (default: 1)')
    .option('--token <token>', 'paid in: stable or native (default: that of the document’s price, else stable)')
    .option('--price <amount>', 'the most for the run, in that token, without audits and fees (default: the document’s)')
    .option('--auditors <count>', 'operators that are drawn to run parts of it again', '1')
    .option('--lower', 'run it as reputation only where jurors or auditors are missing, instead of refusing', false)
    .option('--no-wait', 'end with the outputs; audits and settlement go on without this command')
    .addHelpText(
      'after',
      '\nThe same command again goes on with a run that was interrupted.\n\nExamples:\n  millrace run examples/word-count.yaml --input text=bafy…\n  millrace run -- python3 train.py\n  millrace run --image tools.tar --input data.csv -- sort /input/data.csv -o /output/sorted.csv',
    )
    .action(
      run(async (context, words: readonly string[], options: never) => {
        const { runCommand, wantedRun } = await import('./run-job.ts');
        await runCommand(context, wantedRun(words, process.argv), options);
      }),
    );
  program
    .command('canary <document>')
    .description('make jobs with a wrong state, so that auditors who do not look are caught; their provider plays along (jobCanaries)')
    .requiredOption('--budget <amount>', 'the most that all of them may cost')
    .option('--every <duration>', 'from one to the next in the mean; when exactly nobody can foresee', '1h')
    .option('--count <count>', 'end after so many (default: when the budget is spent, or Ctrl-C)')
    .option('--input <name=source>', 'what the job finds below /input: a file here, or a CID; can be repeated', collect, [])
    .option('--token <token>', 'paid in: stable or native', 'stable')
    .option('--auditors <count>', 'operators that are drawn for each', '1')
    .addHelpText('after', '\nExample:\n  millrace canary examples/word-count.yaml --budget 0.1 --every 30m')
    .action(run(async (context, path: never, flags: never) => (await import('./canary.ts')).canary(context, path, flags)));
  program
    .command('jobs')
    .description('the jobs of this wallet')
    .action(run(async (context) => (await import('./jobs.ts')).jobs(context)));
  program
    .command('job')
    .description('one job')
    .command('show <id>')
    .description('its tries, outputs, receipt and what the chain says')
    .addHelpText('after', '\nExample:\n  millrace job show 1f0c9a')
    .action(run(async (context, id: never) => (await import('./jobs.ts')).jobShow(context, id)));
}
