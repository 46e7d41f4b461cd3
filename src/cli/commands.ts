import type { Command } from 'commander';
import { registerBackingCommands } from './backing-commands.ts';
import { registerClusterCommands } from './cluster-commands.ts';
import { registerComputeCommands } from './compute-commands.ts';
import type { Run } from './context.ts';
import { registerInferenceGatewayCommands } from './gateway-commands.ts';
import { registerHealthCommands } from './health-commands.ts';
import { registerInferenceCommands } from './inference-commands.ts';
import { registerJoinCommands } from './join-commands.ts';
import { registerJurorCommands } from './juror-commands.ts';
import { registerModelNodeCommands } from './model-node-commands.ts';
import { registerOwnerCommands } from './owner-commands.ts';
import { registerRentCommands } from './rent-commands.ts';
import { registerSimulateCommand } from './simulate-command.ts';
import { registerSubnetOwnerCommands } from './subnet-owner-commands.ts';

/** Adds every command with its options, help and examples. The code of a command is loaded when it runs. */
export function registerCommands(program: Command, run: Run): void {
  program.action(run(async (context) => (await import('./overview.ts')).overview(context)));
  registerNetworkCommands(program, run);
  registerFileCommands(program, run);
  registerMarketCommands(program, run);
  registerGatewayCommands(program, run);
  registerDealCommands(program, run);
  registerProviderCommands(program, run);
  registerBackingCommands(program, run);
  registerWalletCommands(program, run);
  registerFounderCommands(program, run);
  registerInferenceCommands(program, run);
  registerComputeCommands(program, run);
  registerJoinCommands(program, run);
  registerHealthCommands(program, run);
  registerSubnetOwnerCommands(program, run);
  registerModelNodeCommands(program, run);
  registerJurorCommands(program, run);
  registerClusterCommands(program, run);
  registerRentCommands(program, run);
  registerSimulateCommand(program, run);
}

function registerNetworkCommands(program: Command, run: Run): void {
  program
    .command('up')
    .description('start a whole network on this machine, or go on with the one that is there')
    .option('--nodes <count>', 'how many node processes (default: as before, at first 3)')
    .option('--with <roles>', 'roles of the nodes: storage, inference, compute (default: as before, at first storage)')
    .option('--profile <name>', 'dev or laptop (only when the network is made; default: dev)')
    .option('--rpc-port <port>', 'first port tried for the chain (default: as before, at first 8545)')
    .option('--node-port <port>', 'first port tried for nodes (default: as before, at first 9000)')
    .option('--beacon <address>', 'the randomness beacon of an external chain (only when the network is made)')
    .option('--detach', 'return when everything is ready', false)
    .addHelpText('after', '\nExamples:\n  millrace up --detach\n  millrace up --nodes 5\n  MILLRACE_RPC_URL=https://… millrace up')
    .action(run(async (context, options: never) => (await import('./up.ts')).up(context, options)));
  program
    .command('down')
    .description('stop everything that runs of this network; nothing is lost')
    .action(run(async (context) => (await import('./down.ts')).down(context)));
  program
    .command('restart [part]')
    .description('restart one part (chain, database, follower, node-1, …) or all of them')
    .action(run(async (context, part: never) => (await import('./down.ts')).restart(context, part)));
  program
    .command('reset')
    .description('stop the network and delete all that it keeps on this machine')
    .option('--yes', 'do it without asking', false)
    .action(run(async (context, options: never) => (await import('./down.ts')).reset(context, options)));
  program
    .command('export <folder>')
    .description('copy all that this machine keeps of the network to a folder; the network must be down')
    .action(run(async (context, target: never) => (await import('./backup.ts')).exportData(context, target)));
  program
    .command('import <folder>')
    .description('take over a folder that `millrace export` made')
    .action(run(async (context, source: never) => (await import('./backup.ts')).importData(context, source)));
  program
    .command('logs [part]')
    .description('print the log of one part, or of all; of a rental, by its number, what its command printed')
    .option('-f, --follow', 'go on as lines come', false)
    .option('-n, --lines <count>', 'how many lines', '50')
    .addHelpText('after', '\nExamples:\n  millrace logs -f node-1\n  millrace logs chain -n 200\n  millrace logs -f 7')
    .action(run(async (context, part: never, options: never) => (await import('./logs.ts')).logs(context, part, options)));
  program
    .command('status')
    .description('what runs, providers, balances, the next proof')
    .option('--powers', 'every power over this network and who holds it', false)
    .action(run(async (context, options: never) => (await import('./status.ts')).status(context, options)));
  program
    .command('doctor')
    .description('what this machine has and lacks, with the fix for each')
    .action(run(async (context) => (await import('./doctor.ts')).doctor(context)));
  program
    .command('demo')
    .description('tell the story: store, prove, lose, slash, compensate, get back')
    .action(run(async (context) => (await import('./demo.ts')).demo(context)));
  const dev = program.command('dev').description('tools for the dev profile');
  dev
    .command('warp <duration>')
    .description('move the chain’s time, period by period, while the nodes prove')
    .addHelpText('after', '\nExamples:\n  millrace dev warp 10m\n  millrace dev warp 1d')
    .action(run(async (context, duration: never) => (await import('./warp.ts')).warp(context, duration)));
  const config = program.command('config').description('settings');
  config
    .command('show')
    .description('each setting with its value and where it came from')
    .addHelpText(
      'after',
      '\nA setting is set by a flag of the command that uses it, by MILLRACE_… in the environment (askPrice: MILLRACE_ASK_PRICE), or in config.json of the data folder or the network’s.',
    )
    .action(run(async (context) => (await import('./config-show.ts')).configShow(context)));
}

function registerFileCommands(program: Command, run: Run): void {
  program
    .command('put <path>')
    .description('store a file or folder; - is standard input')
    .option('--copies <count>', 'at how many providers', '2')
    .option('--periods <count>', 'for how many proof periods')
    .option('--public', 'do not encrypt', false)
    .option('--distinct', 'encrypt each copy under its own key', false)
    .option('--max-price <amount>', 'greatest price in all, in tokens')
    .option('--market', 'by the order book instead of direct deals', false)
    .option('--durability <code>', 'cut into shards by the order book: 10+4, 10of14, or as durable as 11nines')
    .option('--bid-price <amount>', 'greatest price per GiB and period (default: what the book needs now, and a tenth)')
    .option('--repair-below <count>', 'shards are repaired when fewer than this are healthy')
    .option('--distinct-networks', 'no two shards in one network', false)
    .option('--region-max <count>', 'shards in one region at most')
    .option('--agent <address>', 'a node key that may acknowledge and challenge for you (role watcher)')
    .option('--collateral <amount>', 'stake behind the shards, per GiB (default: what the asks bear)')
    .addHelpText(
      'after',
      '\nExamples:\n  millrace put photo.jpg\n  millrace put album/ --copies 3 --json\n  millrace put archive/ --durability 10+4\n  tar c data | millrace put - --public',
    )
    .action(run(async (context, path: never, options: never) => (await import('./put.ts')).put(context, path, options)));
  program
    .command('get <cid>')
    .description('read a file or folder back, verified block by block')
    .option('-o, --output <path>', 'where to; - is standard output')
    .option('--path <path>', 'one file of a folder')
    .option('--grant <text>', 'a grant made by `millrace share`')
    .option('--max-price <tokens>', 'read from sellers too, for at most so much in all (default 0: only who gives it free)')
    .option('--max-chunk <size>', 'most that one payment buys, so that a seller can cheat for (8256KiB; a block at least)')
    .addHelpText(
      'after',
      '\nExamples:\n  millrace get bafy… -o photo.jpg\n  millrace get bafy… -o photo.jpg --max-price 0.1\n  millrace get bafy… --path album/1.jpg -o -',
    )
    .action(run(async (context, cid: never, options: never) => (await import('./get.ts')).get(context, cid, options)));
  program
    .command('retrievers')
    .description('who sells reads: prices, and the success rates that this client saw')
    .action(run(async (context) => (await import('./retrievers.ts')).retrievers(context)));
  program
    .command('retriever')
    .description('sell reads from a cache: no stake, no registration, paid by the byte')
    .option('--listen <host:port>', 'where to listen', '127.0.0.1:9100')
    .option('--endpoint <url>', 'https://host:port under which others reach it (default: where it listens)')
    .option('--retrieval-price <tokens>', 'price of a GiB')
    .option('--retrieval-cache <size>', 'disk for the cache')
    .option('--retrieval-chunk <size>', 'most that one payment buys')
    .option('--retrieval-origin-price <tokens>', 'pay others at most this for a GiB that is missing')
    .option('--retrieval-origin-budget <tokens>', 'pay others at most this beyond what was earned')
    .addHelpText(
      'after',
      '\nThe wallet of this data folder is paid and signs. Example:\n  millrace retriever --listen 0.0.0.0:9100 --endpoint https://192.0.2.7:9100',
    )
    .action(run(async (context, options: never) => (await import('./retriever-run.ts')).retrieverRun(context, options)));
  program
    .command('ls')
    .description('what you stored')
    .action(run(async (context) => (await import('./ls.ts')).ls(context)));
  program
    .command('piece <path>')
    .description('root CID, piece CIDs and sizes of a file or folder, without storing it; - is standard input')
    .addHelpText('after', '\nExamples:\n  millrace piece disk.img --json\n  cat disk.img | millrace piece -')
    .action(run(async (context, path: never) => (await import('./piece.ts')).piece(context, path)));
  program
    .command('share <cid>')
    .description('let somebody else decrypt a file; it cannot be taken back')
    .requiredOption('--to <key>', 'the recipient’s sharing key (`millrace wallet show`)')
    .addHelpText('after', '\nExample:\n  millrace share bafy… --to z6LS…')
    .action(run(async (context, cid: never, options: never) => (await import('./share.ts')).share(context, cid, options)));
}

function registerMarketCommands(program: Command, run: Run): void {
  program
    .command('file <cid>')
    .description('a file of the order book: its shards, their health, price, money and repairs; or one thing to do with it')
    .option('--withdraw <amount>', 'take out what is free: an amount of tokens, or "all"')
    .option('--reserve <amount>', 'add to what is reserved for repairs')
    .option('--challenges <amount>', 'add to the budget for challenges')
    .option('--challenge <shard>', 'make the provider of a shard prove it, out of the budget')
    .option('--end <shard>', 'give up a shard before its time')
    .option('--cancel', 'withdraw a bid that no batch has filled yet')
    .addHelpText('after', '\nExamples:\n  millrace file bafy…\n  millrace file bafy… --withdraw all')
    .action(run(async (context, cid: never, options: never) => (await import('./file.ts')).file(context, cid, options)));
  program
    .command('market')
    .description('the order book: asks, bids, the running batch, and the prices of past ones')
    .action(run(async (context) => (await import('./market.ts')).market(context)));
}

function registerGatewayCommands(program: Command, run: Run): void {
  program
    .command('open <token>')
    .description('open what was shared with you: a grant, a file that holds one, a link or a CID')
    .option('-o, --output <path>', 'where to; - is standard output')
    .addHelpText('after', '\nExamples:\n  millrace open millrace-grant-z… -o album\n  millrace open http://host:9000/ipfs/bafy…')
    .action(run(async (context, token: never, options: never) => (await import('./open.ts')).open(context, token, options)));
  program
    .command('link <cid>')
    .description('links to public content that need no wallet, for curl and browsers')
    .option('--path <path>', 'one file of a folder')
    .addHelpText('after', '\nExample:\n  millrace put site/ --public && millrace link bafy…')
    .action(run(async (context, cid: never, options: never) => (await import('./link.ts')).link(context, cid, options)));
  const gateway = program
    .command('gateway')
    .description('serve public content to browsers of this machine, every block verified; run: the inference gateway')
    .option('--port <port>', 'port on 127.0.0.1; 0 takes a free one', '8080')
    .addHelpText('after', '\nExample:\n  millrace gateway   # then http://127.0.0.1:8080/ipfs/bafy…')
    .action(run(async (context, options: never) => (await import('./gateway.ts')).gateway(context, options)));
  registerInferenceGatewayCommands(gateway, run);
  const s3 = program
    .command('s3')
    .description('serve S3 on this machine: buckets and objects for every S3 tool, stored on the network')
    .option('--port <port>', 'port on 127.0.0.1; 0 takes a free one', '8333')
    .option('--copies <count>', 'at how many providers', '2')
    .option('--periods <count>', 'for how many proof periods', '288')
    .option('--max-price <amount>', 'greatest price of one content, in tokens')
    .option('--staging <size>', 'how much may wait on this machine for the network', '10GiB')
    .option('--acknowledge <when>', 'staged: when durable here; stored: when providers hold it', 'staged')
    .option('--pack-every <duration>', 'small objects that come within this time become one piece', '5s')
    .option('--index-every <duration>', 'how often a changed index is stored on the network', '10m')
    .addHelpText(
      'after',
      '\nExamples:\n  millrace s3\n  eval "$(millrace s3 keys)"; aws --endpoint-url http://127.0.0.1:8333 s3 cp photo.jpg s3://first/\n  aws --endpoint-url http://127.0.0.1:8333 s3api create-bucket --bucket open --acl public-read   # not encrypted, for links',
    )
    .action(run(async (context, options: never) => (await import('./s3.ts')).s3(context, options)));
  s3.command('keys')
    .description('access key and secret, for tools')
    .action(run(async (context) => (await import('./s3.ts')).s3Keys(context)));
  s3.command('status')
    .description('buckets, how many objects are on the network, and the CID of the index')
    .action(run(async (context) => (await import('./s3.ts')).s3StatusShow(context)));
  s3.command('export')
    .description('store the index on the network now (the endpoint must be stopped)')
    .action(run(async (context) => (await import('./s3.ts')).s3Export(context)));
  s3.command('restore <cid>')
    .description('bring the index back on another machine, with the same wallet')
    .addHelpText('after', '\nExample:\n  millrace wallet import keystore.json && millrace s3 restore bafy… && millrace s3')
    .action(run(async (context, cid: never) => (await import('./s3.ts')).s3Restore(context, cid)));
}

function registerDealCommands(program: Command, run: Run): void {
  program
    .command('deals [cid]')
    .description('your deals: state, proofs, money')
    .option('--all', 'deals of every client', false)
    .action(run(async (context, cid: never, options: never) => (await import('./deals.ts')).deals(context, cid, options)));
  program
    .command('asks')
    .description('what providers ask')
    .action(run(async (context) => (await import('./asks.ts')).asks(context)));
  program
    .command('challenge <deal>')
    .description('make a provider prove your piece now; the bond comes back when it cannot')
    .option('--bytes <from-to>', 'make it publish these bytes of the piece on chain instead, for a bond on each 31.75 bytes')
    .option('-o, --output <file>', 'where to write the published bytes')
    .action(run(async (context, deal: never, options: never) => (await import('./challenge.ts')).challenge(context, deal, options)));
  program
    .command('ledger')
    .description('the events behind the numbers, newest first, each with its transaction')
    .option('--provider <number>', 'of one provider')
    .option('--deal <number>', 'of one deal')
    .option('-n, --lines <count>', 'how many', '50')
    .action(run(async (context, options: never) => (await import('./ledger.ts')).ledger(context, options)));
  program
    .command('audit')
    .description('recompute every reward and every balance from the chain alone, and compare')
    .option('--from <block>', 'take what does not fit in events before this block as known')
    .addHelpText('after', '\nExit code 4 when something differs.\n\nExamples:\n  millrace audit\n  millrace audit --json --from 120000')
    .action(run(async (context, options: never) => (await import('./audit.ts')).audit(context, options)));
  const rewards = program
    .command('rewards')
    .description('what was earned in rewards, what has vested, and the events behind it')
    .option('--account <address>', 'of one account (default: the beneficiaries of all operators)')
    .option('-n, --lines <count>', 'how many events of each account', '20')
    .action(run(async (context, options: never) => (await import('./rewards.ts')).rewards(context, options)));
  rewards
    .command('claim')
    .description('pay out what has vested of this wallet’s rewards')
    .option('--to <address>', 'to another account')
    .addHelpText('after', '\nRewards are the beneficiary’s: claim with its wallet.\n\nExample:\n  millrace rewards claim')
    .action(run(async (context, options: never) => (await import('./rewards.ts')).rewardsClaim(context, options)));
  const deal = program.command('deal').description('one deal');
  deal
    .command('end <deal>')
    .description('end your deal early, for a fee')
    .action(run(async (context, id: never) => (await import('./deal.ts')).endDeal(context, id)));
  deal
    .command('extend <deal>')
    .description('prolong a deal; the provider must agree')
    .requiredOption('--periods <count>', 'by how many periods')
    .action(run(async (context, id: never, options: never) => (await import('./deal.ts')).extendDeal(context, id, options)));
  deal
    .command('expire <deal>')
    .description('close a deal that did not become active in time; the escrow comes back')
    .action(run(async (context, id: never) => (await import('./deal.ts')).expireDeal(context, id)));
  deal
    .command('settle <deal>')
    .description('pay for proven periods, return the money of unproven ones, take fees; anyone may')
    .action(run(async (context, id: never) => (await import('./deal.ts')).settleDeal(context, id)));
}

function registerProviderCommands(program: Command, run: Run): void {
  const provider = program.command('provider').description('run a storage provider of your own');
  provider
    .command('init')
    .description('make keys and register as an operator')
    .option('--endpoint <url>', 'https://host:port under which others reach this node (default: none, for a node behind a router)')
    .option('--beneficiary <address>', 'who receives earnings (default: the owner)')
    .option('--region <name>', 'where the node stands')
    .option('--stake <amount>', 'tokens to stake', '1000')
    .option('--limit <amount>', 'most stake that the node key may promise (default: a quarter of the stake; 0: no limit)')
    .addHelpText(
      'after',
      '\nExample:\n  millrace provider init --endpoint https://disk.example.org:9000 --stake 5000 --region eu\n  millrace provider init                       # behind a router: then millrace provider run --relay auto',
    )
    .action(run(async (context, options: never) => (await import('./provider.ts')).providerInit(context, options)));
  provider
    .command('run')
    .description('run the provider in the foreground')
    .option('--listen <host:port>', 'where to listen (setting listen; default 127.0.0.1:9000)')
    .option('--quota <size>', 'disk to offer (setting quota; default 10GiB)')
    .option('--ask-price <amount>', 'tokens for a GiB and period (askPrice; 0.01)')
    .option('--ask-min-price <amount>', 'least tokens for a deal and period (askMinPrice; 0.000001)')
    .option('--ask-min-size <size>', 'smallest piece (askMinSize; 127B)')
    .option('--ask-max-size <size>', 'largest piece (askMaxSize; 32GiB)')
    .option('--ask-min-periods <count>', 'shortest deal (askMinPeriods; 1)')
    .option('--ask-max-periods <count>', 'longest deal (askMaxPeriods; 100000)')
    .option('--ask-collateral <percent>', 'collateral, of the whole price of a deal (askCollateral; 50)')
    .option('--ask-min-collateral <amount>', 'least collateral of a deal (askMinCollateral; 0.1)')
    .option('--ask-bond <amount>', 'what each side loses when a deal is not active in time (askBond; 0.01)')
    .option('--relay <who>', 'be reached without an inbound port: auto, operators such as 3,5, or none (relay; none)')
    .option('--roles <list>', 'what the node does: storage, relay, checker, matcher, watcher (roles; storage)')
    .option('--relay-price <amount>', 'as a relay: tokens for a GiB carried (relayPrice; 0)')
    .option('--relay-max-price <amount>', 'behind a relay: most tokens for a GiB carried (relayMaxPrice; 0)')
    .option('--relay-tunnels <count>', 'as a relay: greatest number of nodes (relayTunnels; 64)')
    .option('--relay-streams <count>', 'as a relay: greatest number of connections to a node (relayStreams; 128)')
    .option('--relay-bandwidth <size>', 'as a relay: greatest bandwidth for a node, a second (relayBandwidth; 16MiB)')
    .addHelpText(
      'after',
      '\nEach flag is also a setting: MILLRACE_ASK_PRICE in the environment, "askPrice" in <data>/config.json or <data>/<network>/config.json.\n\nExamples:\n  millrace provider run --listen 0.0.0.0:9000 --quota 500GiB\n  millrace provider run --ask-price 0.02 --ask-max-size 64GiB\n  millrace provider run --relay auto\n  millrace provider run --listen 0.0.0.0:9000 --roles storage,relay',
    )
    .action(run(async (context, options: never) => (await import('./provider.ts')).providerRun(context, options)));
  provider
    .command('show')
    .description('stake, locks, standing, earnings of the operators here')
    .action(run(async (context) => (await import('./provider.ts')).providerShow(context)));
  registerOwnerCommands(provider, run, 'provider');
  registerExitCommands(provider, run);
}

function registerExitCommands(provider: Command, run: Run): void {
  const node = ['--node <number>', 'a node of `millrace up` (default: the one of `millrace provider run`)'] as const;
  provider
    .command('status')
    .description('what the running node says of itself')
    .option(...node)
    .action(run(async (context, options: never) => (await import('./provider-exit.ts')).providerStatus(context, options)));
  provider
    .command('drain')
    .description('the running node takes no new deals, also after a restart; those that run go on to their end')
    .option(...node)
    .addHelpText('after', '\nExamples:\n  millrace provider drain\n  millrace provider drain --node 2')
    .action(run(async (context, options: never) => (await import('./provider-exit.ts')).providerDrain(context, options)));
  provider
    .command('resume')
    .description('the running node takes deals again')
    .option(...node)
    .action(run(async (context, options: never) => (await import('./provider-exit.ts')).providerResume(context, options)));
  provider
    .command('leave')
    .description('leave every running deal: each is proven a last time, its client gets the leaving fee; shards of files are handed over')
    .option('--no-wait', 'leave what can be left now; the node serves shards of files until others have proven them')
    .option(...node)
    .addHelpText('after', '\nExample:\n  millrace provider leave --json')
    .action(run(async (context, options: never) => (await import('./provider-exit.ts')).providerLeave(context, options)));
}

function registerWalletCommands(program: Command, run: Run): void {
  const wallet = program.command('wallet').description('your key and its money');
  wallet
    .command('create')
    .description('make a key, encrypted on disk')
    .action(run(async (context) => (await import('./wallet.ts')).walletCreate(context)));
  wallet
    .command('show')
    .description('address, sharing key, balances')
    .action(run(async (context) => (await import('./wallet.ts')).walletShow(context)));
  wallet
    .command('import <keystore>')
    .description('take over a keystore file (Web3 Secret Storage v3)')
    .action(run(async (context, path: never) => (await import('./wallet.ts')).walletImport(context, path)));
  wallet
    .command('export <path>')
    .description('copy the encrypted keystore to a file')
    .action(run(async (context, path: never) => (await import('./wallet.ts')).walletExport(context, path)));
  wallet
    .command('deposit <amount>')
    .description('move tokens into the rails account from which deals are paid')
    .action(run(async (context, amount: never) => (await import('./wallet.ts')).walletDeposit(context, amount)));
  wallet
    .command('withdraw [amount]')
    .description('bring money from the rails into the wallet: an amount, or all that nothing uses, refunds too, in every token')
    .option('--token <token>', 'of this token only: network, stable, compute, …')
    .addHelpText('after', '\nExamples:\n  millrace wallet withdraw\n  millrace wallet withdraw 2.5 --token stable --json')
    .action(
      run(async (context, amount: never, options: never) => (await import('./rails-money.ts')).walletWithdraw(context, amount, options)),
    );
  wallet
    .command('send <address> <amount>')
    .description('send tokens of the network to an account')
    .option('--gas', 'send the chain’s own coin instead, which pays for transactions', false)
    .addHelpText('after', '\nExamples:\n  millrace wallet send 0x… 1500\n  millrace wallet send 0x… 0.1 --gas')
    .action(
      run(async (context, to: never, amount: never, options: never) =>
        (await import('./wallet.ts')).walletSend(context, to, amount, options),
      ),
    );
}

function registerFounderCommands(program: Command, run: Run): void {
  program
    .command('deploy')
    .description('put the contracts on a chain and write its manifest; can be repeated and resumed')
    .option('--profile <name>', 'dev, laptop or production', 'production')
    .option('--beacon <address>', 'a randomness beacon, for chains whose prevRandao one party chooses')
    .option('--allocations <file>', 'first holders of the token: JSON of address to amount (default: the profile’s)')
    .option('--compute-allocations <file>', 'first holders of the compute network’s token, 500 million in all (default: the profile’s)')
    .option('--stable-token <address>', 'the stable token of the chain, where the profile wants one')
    .option('--jury-votes <n>', 'votes of the first jury of a dispute, odd (default: the profile’s); audited jobs want one juror more')
    .option('--out <path>', 'where a copy of the manifest goes, to be handed to others')
    .addHelpText('after', '\nExample:\n  millrace --rpc-url https://… deploy --profile production')
    .action(run(async (context, options: never) => (await import('./deploy.ts')).deploy(context, options)));
}
