import type { Command } from 'commander';
import type { Run } from './context.ts';

const REPLAY = ['--replay', 'a validator may see and repeat this request; else only validators’ own probes check the miner'] as const;

const COURT = '\n\nA receipt that convicts who signed it is kept, told of, and reported to the court from this wallet, for the reward.';

/** Adds the commands of the inference network with their options, help and examples. */
export function registerInferenceCommands(program: Command, run: Run): void {
  program
    .command('ask <question>')
    .description('ask a language model of the network; - reads the question from standard input')
    .option('--model <name>', 'which model (default: the first that is served)')
    .option('--max-tokens <count>', 'how long the answer may be', '128')
    .option('--seed <number>', 'the same seed, the same answer')
    .option(...REPLAY)
    .addHelpText('after', `\nExamples:\n  millrace ask "Call me"\n  millrace ask - --json < question.txt${COURT}`)
    .action(run(async (context, question: never, options: never) => (await import('./ask.ts')).ask(context, question, options)));
  program
    .command('recognize <file>')
    .description(
      'what is in a picture: objects, the whole with --task classification, text with --task ocr; spoken commands with --task command',
    )
    .option('--task <task>', 'detection, classification, ocr, command or activity', 'detection')
    .option('--model <name>', 'which model (default: any of the task)')
    .option(...REPLAY)
    .addHelpText('after', `\nExamples:\n  millrace recognize photo.jpg\n  millrace recognize letter.png --task ocr${COURT}`)
    .action(run(async (context, path: never, options: never) => (await import('./recognize.ts')).recognize(context, path, options)));
  program
    .command('draw <prompt>')
    .description('let a model of the network make pictures; none comes with this software: miners serve it with a backend')
    .option('-o, --output <path>', 'where to; of several the second is NAME-2, and so on', 'out.png')
    .option('--count <n>', 'how many, 1 to 10', '1')
    .option('--size <size>', 'WIDTHxHEIGHT in pixels (default: the model’s own)')
    .option('--model <name>', 'which model (default: the first that is served)')
    .option(...REPLAY)
    .addHelpText('after', `\nExample:\n  millrace draw "a water mill in winter" -o mill.png --size 512x512${COURT}`)
    .action(run(async (context, prompt: never, options: never) => (await import('./draw.ts')).draw(context, prompt, options)));
  program
    .command('say <text>')
    .description('let a voice of the network read a text aloud into a WAV file')
    .option('-o, --output <path>', 'where to', 'out.wav')
    .option('--voice <name>', 'which voice', 'alloy')
    .option('--model <name>', 'which model (default: the first that is served)')
    .option(...REPLAY)
    .addHelpText('after', `\nExample:\n  millrace say "The mill turns." -o mill.wav${COURT}`)
    .action(run(async (context, text: never, options: never) => (await import('./say.ts')).say(context, text, options)));
  program
    .command('embed <texts...>')
    .description('texts as vectors; without --json how near each is to the first')
    .option('--model <name>', 'which model (default: the first that is served)')
    .option(...REPLAY)
    .addHelpText('after', `\nExample:\n  millrace embed "a broken generator" "the power unit failed" "chocolate cake"${COURT}`)
    .action(run(async (context, texts: never, options: never) => (await import('./embed.ts')).embed(context, texts, options)));
  const models = program
    .command('models')
    .description('the models that are served, by whom and at what price')
    .action(run(async (context) => (await import('./models.ts')).models(context)));
  models
    .command('store <model>')
    .description('store the files of an embedded model in the storage network, for everybody: miners fetch it there before they ask npm')
    .option('--copies <count>', 'at how many providers', '2')
    .option('--periods <count>', 'for how many proof periods')
    .option('--max-price <amount>', 'greatest price in all, in tokens')
    .addHelpText('after', '\nExample:\n  millrace models store silero-vad-v5 --copies 3')
    .action(run(async (context, model: never, options: never) => (await import('./models-store.ts')).storeModel(context, model, options)));
  const subnet = program.command('subnet').description('markets of models, judged by validators');
  subnet
    .command('list')
    .description('all subnets')
    .action(run(async (context) => (await import('./subnet.ts')).subnetList(context)));
  subnet
    .command('show <id>')
    .description('the metagraph, weights, concentration of stake, and who could decide alone')
    .addHelpText('after', '\nExample:\n  millrace subnet show 1')
    .action(run(async (context, id: never) => (await import('./subnet.ts')).subnetShow(context, id)));
}
