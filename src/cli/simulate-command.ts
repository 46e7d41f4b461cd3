import type { Command } from 'commander';
import type { Run } from './context.ts';

/** Adds `millrace simulate` with what can be simulated. */
export function registerSimulateCommand(program: Command, run: Run): void {
  const simulate = program.command('simulate').description('what a design of incentives does, before anybody stakes on it');
  registerSubnet(simulate, run);
  registerJobs(simulate, run);
}

function registerJobs(simulate: Command, run: Run): void {
  simulate
    .command('jobs')
    .description(
      'run jobs of honest and cheating providers through the real commitments and draws; who is found, and at which stake cheating loses',
    )
    .option('--honest <count>', 'honest providers', '18')
    .option('--forgers <count>', 'providers that make everything up', '1')
    .option('--skippers <count>', 'providers that make a share of their segments up', '1')
    .option('--share <share>', 'that share', '0.1')
    .option('--jobs <count>', 'jobs of each provider', '50')
    .option('--segments <count>', 'segments of a job', '100')
    .option('--samples <count>', 'segments that each auditor replays after probation', '2')
    .option('--auditors <count>', 'auditors of a job', '1')
    .option('--probation <count>', 'jobs that are replayed whole, at first and after a slash', '10')
    .option('--new-cheaters', 'cheaters that pass through probation themselves; else all were honest until theirs was over', false)
    .option('--colluding <share>', 'share of seats that cover for cheaters', '0')
    .option('--seed <number>', 'the same seed, the same numbers', '1')
    .option('--stakes', 'instead: the stakes at which cheating stops paying, for colluding shares from 0 to 0.4', false)
    .option('--stake-jobs <count>', 'with --stakes: cheated jobs behind each row', '200')
    .addHelpText(
      'after',
      '\nExamples:\n  millrace simulate jobs\n  millrace simulate jobs --honest 0 --forgers 0 --skippers 100\n  millrace simulate jobs --colluding 0.4 --auditors 3\n  millrace simulate jobs --stakes --json',
    )
    .action(run(async (context, options: never) => (await import('./simulate-jobs.ts')).showSimulatedJobs(context, options)));
}

function registerSubnet(simulate: Command, run: Run): void {
  simulate
    .command('subnet')
    .description('run miners, cheats, copiers and cabals through the real consensus function; who earns what')
    .option('--validators <count>', 'honest validators; they have all stake that no other option takes', '8')
    .option('--noise <part>', 'error of honest weights, in parts of each', '0.1')
    .option('--miners <count>', 'honest miners', '20')
    .option('--churn <epochs>', 'each honest miner changes its quality so often; 0: never', '10')
    .option('--cheats <count>', 'miners of a lower quality', '0')
    .option('--cheat-quality <quality>', 'their quality; honest miners have a third on average, 1 at most', '0.05')
    .option('--copiers <share>', 'stake of validators that copy consensus', '0')
    .option('--copy-lag <epochs>', 'how late; 0: they read others before the epoch, as without commit and reveal', '1')
    .option('--cabal <share>', 'stake of validators that weigh their own worthless miners', '0')
    .option('--cabal-validators <count>', 'how many they are', '4')
    .option('--cabal-miners <count>', 'how many miners they have', '4')
    .option('--cabal-weight <share>', 'share of their weight on these', '1')
    .option('--silent <share>', 'stake of validators that never reveal', '0')
    .option('--population <file>', 'instead of the options above: groups in JSON, as below')
    .option('--epochs <count>', 'how long', '80')
    .option('--seed <number>', 'the same seed, the same numbers', '1')
    .option('--mode <rule>', 'yuma2, yuma3 or yuma3-liquid', 'yuma3-liquid')
    .option('--speed <low,high>', 'slowest and fastest speed of bonds', '0.1,0.3')
    .option('--penalty <share>', 'bonds penalty', '0')
    .option('--consensus <mode>', 'what is early: previous, current or auto', 'previous')
    .option('--kappa <share>', 'stake that must support a weight', '0.5')
    .option('--attacks', 'instead: the table of attacks and defences', false)
    .option('--cabals', 'instead: the map of cabals of 10 to 49 % of stake', false)
    .option('--full', 'with --cabals: every percent, nine utilities, three noises (about a minute)', false)
    .option('--copying', 'instead: rules of bonds against copiers', false)
    .option('--document', 'instead: all three tables with words, in Markdown', false)
    .addHelpText(
      'after',
      '\nExamples:\n  millrace simulate subnet --cabal 0.4 --noise 0.4\n  millrace simulate subnet --copiers 0.2 --copy-lag 0           # without commit and reveal\n  millrace simulate subnet --cheats 3 --silent 0.3 --json\n  millrace simulate subnet --copiers 0.1 --mode yuma2 --churn 5\n  millrace simulate subnet --attacks\n  millrace simulate subnet --cabals --full\n  millrace simulate subnet --document > docs/inference-attacks.md\n\nA population as JSON (stakes in any unit; does: judge, copy, favour or silent):\n  {"validators": [{"group": "honest", "count": 8, "stake": 60, "does": "judge", "noise": 0.2},\n                  {"group": "ring", "count": 3, "stake": 25, "does": "favour", "weight": 0.9},\n                  {"group": "friends", "stake": 5, "does": "favour", "whom": "ring", "weight": 0.5},\n                  {"group": "copier", "stake": 10, "does": "copy", "lag": 1}],\n   "miners": [{"group": "good", "count": 20, "quality": 1, "churn": 10}, {"group": "ring", "count": 4, "quality": 0.1}]}',
    )
    .action(run(async (context, options: never) => (await import('./simulate.ts')).simulate(context, options)));
}
