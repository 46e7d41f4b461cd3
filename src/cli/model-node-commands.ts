import type { Command } from 'commander';
import type { Run } from './context.ts';
import type { ModelNodeKind } from './model-node.ts';
import { registerOwnerCommands } from './owner-commands.ts';

/** Adds `millrace miner` and `millrace validator` with their options, help and examples. */
export function registerModelNodeCommands(program: Command, run: Run): void {
  const miner = program
    .command('miner')
    .description('serve models to whoever pays: embedded ones, or those of any OpenAI-compatible server');
  registerInit(miner, run, 'miner');
  registerMinerRun(miner, run);
  registerTelling(miner, run, 'miner');
  miner
    .command('leave')
    .description(
      'take no new work, leave office at the court of receipts so that the bond comes free, claim what was earned; can be repeated',
    )
    .option('--no-wait', 'do not wait until requests are over and all is claimed; the node goes on, and so does the next call')
    .addHelpText('after', '\nExamples:\n  millrace miner leave\n  millrace miner leave --no-wait')
    .action(run(async (context, options: never) => (await import('./miner-leave.ts')).minerLeave(context, options)));
  miner
    .command('unlock')
    .description('free the bond of a miner that left, once its delay is over')
    .action(run(async (context) => (await import('./model-node-status.ts')).minerUnlock(context)));
  miner
    .command('models')
    .description('models that a miner can embed, with what each of them cannot do')
    .action(run(async (context) => (await import('./model-node-status.ts')).minerModels(context)));
  registerOwnerCommands(miner, run, 'miner');
  const validator = program.command('validator').description('judge miners: probe them, weigh them, commit, reveal and settle');
  registerInit(validator, run, 'validator');
  registerValidatorRun(validator, run);
  registerTelling(validator, run, 'validator');
  registerOwnerCommands(validator, run, 'validator');
}

const INIT_EXAMPLES: Record<ModelNodeKind, string> = {
  miner: `
Examples:
  millrace subnet list                                     the subnets, and what the next uid costs in each
  millrace miner init --subnet 1 --price-max 2 --endpoint https://models.example.org:9200
  millrace miner init --subnet 1                           behind a router: then millrace miner run --relay auto`,
  validator: `
Examples:
  millrace validator init --subnet 1 --subnet 2 --stake 5000 --endpoint https://judge.example.org:9300
  millrace validator init --subnet 1 --tokens 20           with tokens for probes`,
};

function registerInit(parent: Command, run: Run, kind: ModelNodeKind): void {
  const isMiner = kind === 'miner';
  parent
    .command('init')
    .description('make keys, register as an operator, stake, and take a uid in the chosen subnets at their present price; can be repeated')
    .option('--subnet <numbers...>', 'subnets in which to take a uid')
    .option('--price-max <amount>', 'most tokens burnt for one uid (default: the price that is shown)')
    .option('--endpoint <url>', 'https://host:port under which others reach this node (default: none, for a node behind a router)')
    .option('--beneficiary <address>', 'who receives earnings (default: the owner)')
    .option('--region <name>', 'where the node stands')
    .option(
      '--stake <amount>',
      isMiner ? 'tokens to stake: at least the bond behind receipts' : 'tokens to stake: it decides permits and votes',
      isMiner ? '100' : '1000',
    )
    .option('--gas <amount>', 'of the chain’s coin, what the node key should hold at least; sent from the wallet', '0.1')
    .option('--tokens <amount>', `tokens that the node key should hold at least${isMiner ? '' : ', for probes'}; sent from the wallet`, '0')
    .addHelpText('after', INIT_EXAMPLES[kind])
    .action(run(async (context, options: never) => (await import('./model-node.ts')).modelNodeInit(context, kind, options)));
}

function registerMinerRun(miner: Command, run: Run): void {
  const command = miner
    .command('run')
    .description('serve models in the foreground; SIGTERM ends it cleanly, nothing that was earned is lost')
    .option('--model <names...>', 'embedded models to serve (inferenceModels; moby-dick-1m, none with --backend)')
    .option('--backend <url>', 'base URL of an OpenAI-compatible server: llama.cpp, Ollama, vLLM (inferenceBackend)')
    .option('--backend-model <models...>', 'its models: task:name, or task:name=theirs under another name (inferenceBackendModels)')
    .option('--backend-key-file <path>', 'file with the key of the backend (inferenceBackendKeyFile)')
    .option('--backend-key-env <name>', 'environment variable that holds the key of the backend (inferenceBackendKeyEnv)')
    .option('--price-in <amount>', 'tokens for a million units in (inferencePriceIn; 0.05)')
    .option('--price-out <amount>', 'tokens for a million units out (inferencePriceOut; 0.2)')
    .option('--price-request <amount>', 'tokens for each request (inferencePriceRequest; 0.0001)')
    .option('--output-max <units>', 'most output of one request (inferenceOutputMax; 512, of a backend 4096)')
    .option('--concurrency <count>', 'requests that one model works on at once (inferenceConcurrency; 8)')
    .option('--queue <count>', 'requests that may wait for one model (inferenceQueue; four times as many)')
    .option('--per-payer <count>', 'of these, most of one payer (inferencePerPayer; all)')
    .option('--model-memory <size>', 'memory of the process of an embedded model (inferenceModelMemory; as measured for it)')
    .option('--time-limit <duration>', 'longest request of an embedded model, longest silence of a backend (inferenceTimeLimit)')
    .option('--bodies <size>', 'memory for bodies of paid requests (inferenceBodies; 256MiB)')
    .option('--body-max <size>', 'largest body (inferenceBodyMax; 32MiB)');
  withAddress(command, 'minerListen; 127.0.0.1:9200')
    .helpOption(false)
    .option('-h, --help', 'all options, and what each embedded model cannot do', false)
    .addHelpText('after', MINER_EXAMPLES)
    .action(
      run(async (context, options: { help: boolean }) => {
        if (!options.help) return (await import('./model-node-run.ts')).modelNodeRun(context, 'miner', options as never);
        // The models are loaded when somebody asks for help, never before.
        command.outputHelp();
        process.stdout.write(
          `\nEmbedded models, and what each of them cannot do:\n${(await import('./model-node-status.ts')).modelsText()}\n`,
        );
      }),
    );
}

const MINER_EXAMPLES = `
Each flag is also a setting: MILLRACE_INFERENCE_PRICE_OUT in the environment, "inferencePriceOut" in <data>/<network>/config.json.
A backend is asked at the start what it does; what it was not seen to do is refused to callers. Its answers are of the class "reputation only": nobody
can prove which model stands behind a URL.

Examples:
  millrace miner run --model ssdlite-coco ppocr-v4
  millrace miner run --backend http://127.0.0.1:11434/v1 --backend-model chat:llama3.2          Ollama
  millrace miner run --backend http://127.0.0.1:8080/v1 --backend-model chat:qwen=/models/qwen.gguf   llama.cpp
  millrace miner run --backend http://127.0.0.1:1234/v1 --backend-model image-generation:sd   pictures (stable-diffusion.cpp, LocalAI)
  millrace miner run --backend https://gpu.lan/v1 --backend-model chat:meta-llama/Llama-3.1-8B --backend-key-file vllm.key
  millrace miner run --model use-lite-en --price-in 0.01 --listen 0.0.0.0:9200`;

function registerValidatorRun(validator: Command, run: Run): void {
  const command = validator
    .command('run')
    .description(
      'judge the miners of every subnet in which the operator holds a uid, in the foreground; commits are opened again after a restart',
    )
    .option('--gateway <urls...>', 'gateways to probe through, without keys (validatorGateways)')
    .option('--gateways-file <path>', 'file with gateways as https://key@host:port, one a line (validatorGatewaysFile)')
    .option('--pulses <urls...>', 'servers with the pulses of subnets’ beacons, as drand’s (validatorPulses)')
    .option('--probes <count>', 'probes of each miner in an epoch (validatorProbes; 6)')
    .option('--emission-price <amount>', 'what a token of the inference network is worth in this network’s (validatorEmissionPrice)')
    .option('--tab-max <amount>', 'most tokens paid ahead to one miner (validatorTabMax; 1)')
    .option('--images <folder>', 'photographs that probes are varied from (validatorImages)')
    .option(
      '--cases <count>',
      'most cases brought before the jury for what a re-run refutes, each with a bond that can be lost (validatorCases; 0)',
    );
  withAddress(command, 'validatorListen; 127.0.0.1:9300')
    .addHelpText(
      'after',
      `
Without a gateway probes are paid from the node key, straight to miners. Evidence of past epochs is at /v1/inference/evidence/SUBNET.

Examples:
  millrace validator run
  millrace validator run --gateways-file gateways.txt --probes 12 --images ~/photographs`,
    )
    .action(run(async (context, options: never) => (await import('./model-node-run.ts')).modelNodeRun(context, 'validator', options)));
}

function withAddress(command: Command, listen: string): Command {
  return command
    .option('--listen <host:port>', `where to listen (${listen})`)
    .option('--relay <who>', 'be reached without an inbound port: auto, operators such as 3,5, or none (relay; none)')
    .option('--relay-max-price <amount>', 'behind a relay: most tokens for a GiB carried (relayMaxPrice; 0)');
}

function registerTelling(parent: Command, run: Run, kind: ModelNodeKind): void {
  parent
    .command('status')
    .description('stake, bond, uids, rewards, and what the running node says of itself')
    .action(run(async (context) => (await import('./model-node-status.ts')).modelNodeStatus(context, kind)));
  parent
    .command('drain')
    .description('the running node takes no new work, also after a restart')
    .action(run(async (context) => (await import('./model-node-status.ts')).modelNodeTell(context, kind, 'drain')));
  parent
    .command('resume')
    .description('the running node takes work again')
    .action(run(async (context) => (await import('./model-node-status.ts')).modelNodeTell(context, kind, 'resume')));
}
