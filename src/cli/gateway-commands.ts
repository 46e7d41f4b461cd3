import type { Command } from 'commander';
import type { Run } from './context.ts';

/** Adds what turns `millrace gateway` into the inference gateway of callers with keys. */
export function registerInferenceGatewayCommands(gateway: Command, run: Run): void {
  gateway
    .command('init')
    .description('make the purse from which the inference gateway pays miners, and fill it from the wallet; can be repeated')
    .option('--tokens <amount>', 'tokens that the purse should hold at least', '10')
    .option('--gas <amount>', 'of the chain’s coin, what the purse should hold at least', '0.1')
    .addHelpText('after', '\nExample:\n  millrace gateway init --tokens 100')
    .action(run(async (context, options: never) => (await import('./gateway-run.ts')).gatewayInit(context, options)));
  gateway
    .command('run')
    .description('the inference gateway: OpenAI’s API in front of all miners, for callers with keys or x402 payments')
    .option('--listen <host:port>', 'where to listen (gatewayListen; 127.0.0.1:8090)')
    .option('--fee <percent>', 'on top of miners’ prices (gatewayFee; 0)')
    .option('--tab-max <amount>', 'most tokens paid ahead to one miner, a quarter of it to a new one (gatewayTabMax; 1)')
    .option('--tls-cert <file>', 'certificate with its chain, PEM: serves HTTPS; read again when it is replaced (gatewayTlsCert)')
    .option('--tls-key <file>', 'its private key, PEM (gatewayTlsKey)')
    .option('--no-payments', 'callers need a key; x402 payments are not taken')
    .addHelpText(
      'after',
      `
Pages: /v1/… (OpenAI), /recognize, /health, /metrics, /v1/key, /v1/receipts/ID. Miners that are not bonded at the court of receipts are passed over.

Examples:
  millrace gateway init --tokens 100 && millrace gateway keys create alice --budget 5 --period 30d
  millrace gateway run
  millrace gateway run --listen 0.0.0.0:443 --tls-cert /etc/letsencrypt/live/HOST/fullchain.pem --tls-key /etc/letsencrypt/live/HOST/privkey.pem
  curl http://127.0.0.1:8090/v1/chat/completions -H "authorization: Bearer sk-millrace-…" -H "content-type: application/json" -d '{"model":"moby-dick-1m","messages":[{"role":"user","content":"Call me"}]}'`,
    )
    .action(run(async (context, options: never) => (await import('./gateway-run.ts')).gatewayRun(context, options)));
  gateway
    .command('status')
    .description('purse, keys, and the miners that the running inference gateway knows')
    .action(run(async (context) => (await import('./gateway-run.ts')).gatewayStatus(context)));
  const keys = gateway.command('keys').description('keys of callers of the inference gateway');
  keys
    .command('create <name>')
    .description('make a key; it is printed once')
    .option('--budget <amount>', 'most tokens that it may spend (default: the whole purse)')
    .option('--period <duration>', 'the budget begins anew so often, e.g. 30d (default: never)')
    .option('--per-minute <count>', 'most requests in a minute')
    .option('--models <names...>', 'only these models')
    .option('--expires <duration>', 'good for so long, e.g. 90d')
    .option('--zero-retention', 'nobody keeps anything of its requests', false)
    .addHelpText('after', '\nExample:\n  millrace gateway keys create alice --budget 5 --period 30d --per-minute 60')
    .action(run(async (context, name: never, options: never) => (await import('./caller-keys.ts')).keysCreate(context, name, options)));
  keys
    .command('list')
    .description('all keys with what they have spent')
    .action(run(async (context) => (await import('./caller-keys.ts')).keysList(context)));
  keys
    .command('revoke <id>')
    .description('end a key at once')
    .action(run(async (context, id: never) => (await import('./caller-keys.ts')).keysRevoke(context, id)));
}
