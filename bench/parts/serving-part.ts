/** One process of the measurement of serving: `backend`, `chain`, `miner` or `gateway`. Prints what others must know of it, ends with its parent. */
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { connectChain, createSender, developmentSigner, readManifest } from '../../src/chain/index.ts';
import { openTransportIdentity, startPeerServer } from '../../src/connect/index.ts';
import { startInferenceServer } from '../../src/gateway/inference/inference-server.ts';
import { createMiner, fetchOf } from '../../src/inference/index.ts';
import { startForeignBackend } from '../../src/inference/serving/foreign-backend.ts';
import { backendModels, TEST_DOMAIN } from '../../src/inference/serving/miner-fixture.ts';
import { silentLogger } from '../../src/log.ts';
import { createPayer, openReceiver } from '../../src/token/index.ts';
import { startChannelsNetwork } from '../../src/token/voucher-fixture.ts';

interface Argument {
  root: string;
  rpcUrl: string;
  manifest: string;
  backend: string;
  index: number;
  name: string;
  isFree?: boolean;
  words?: number;
  wordMs?: number;
  miners: { url: string; transportKey: string; operatorId: number }[];
}

/** Accounts of the fixture's chain: those of gateways have tokens, those of miners coins for gas. */
const MINER_ACCOUNTS = [1, 6, 7, 8, 9];
const GATEWAY_ACCOUNTS: Record<string, number> = { tls: 2, slow: 3, plain: 4, paid: 5 };
const FREE = { inputPerMillion: 0n, outputPerMillion: 0n, perRequest: 0n };
const PRICE = { inputPerMillion: 70_000_003n, outputPerMillion: 210_000_007n, perRequest: 1000n };
/** About as many requests as the default settings allow: a token ahead, where a request of an embedded model costs 0.0002 at most. */
const TAB_MAX = 3n * 10n ** 8n;

const [role, text] = process.argv.slice(2) as [string, string];
const argument = JSON.parse(text) as Argument;
const say = (value: object) => process.stdout.write(`${JSON.stringify(value)}\n`);
const now = () => BigInt(Math.floor(Date.now() / 1000));
process.stdin.resume();

/** The chain as one of its accounts sees it. */
async function connect(account: number) {
  const client = await connectChain({ rpcUrl: argument.rpcUrl, manifest: readManifest(argument.manifest) });
  const signer = developmentSigner(account, 'dev');
  const sender = createSender({ client, signer, journalFolder: join(argument.root, `keys-${role}-${account}`), log: silentLogger });
  return { client, signer, sender, token: client.address('stableToken') };
}

async function startMiner(): Promise<void> {
  const { client, signer, sender, token } = await connect(MINER_ACCOUNTS[argument.index] as number);
  const folder = join(argument.root, `miner-${argument.index}`);
  mkdirSync(folder, { recursive: true });
  const receiver = await openReceiver({
    client,
    receiver: signer.address,
    folder: join(folder, 'vouchers'),
    claimIntervalSeconds: 300,
    sender,
  });
  const operatorId = argument.index + 1;
  const price = argument.isFree ? FREE : PRICE;
  const models = backendModels(argument.backend, 1024).map((model) => ({ ...model, price: { ...model.price, ...price } }));
  const miner = createMiner({
    operatorId: BigInt(operatorId),
    signer,
    domain: TEST_DOMAIN,
    profile: 'dev',
    models,
    receiver,
    token,
    now,
    log: silentLogger,
  });
  const identity = await openTransportIdentity(folder);
  const fetch = fetchOf((request) => miner.answer(request));
  const server = await startPeerServer({ port: 0, identity, fetch, connectionsMax: 2048 });
  say({ url: `https://127.0.0.1:${server.port}`, transportKey: identity.transportKey, operatorId });
}

async function startGateway(): Promise<void> {
  const { client, signer, sender, token } = await connect(GATEWAY_ACCOUNTS[argument.name] as number);
  const folder = join(argument.root, `gateway-${argument.name}`);
  const payer = await createPayer({ client, signer, sender, folder: join(folder, 'payer'), depositRequests: 4n });
  const gateway = await startInferenceServer({
    folder: join(folder, 'gateway'),
    port: 0,
    domain: TEST_DOMAIN,
    miners: async () =>
      argument.miners.map(({ url, transportKey, operatorId }) => ({
        uid: operatorId,
        operatorId: BigInt(operatorId),
        endpoint: url,
        transportKey,
        rank: 1,
      })),
    payer,
    token,
    now,
    tabMax: TAB_MAX,
    log: silentLogger,
  });
  const { key } = await gateway.keys.create({ name: 'bench', budget: 10n ** 20n });
  say({ url: `http://127.0.0.1:${gateway.port}`, key });
  await once(process.stdin, 'end');
  await gateway.stop(100);
  const signed = payer.channels().reduce((sum, channel) => sum + channel.signed, 0n);
  process.stdout.write(
    `${gateway.receipts.count} receipts, callers charged ${gateway.keys.list()[0]?.spent} base units, vouchers for ${signed} signed\n`,
  );
}

if (role === 'backend') say({ url: (await startForeignBackend(argument)).url });
else if (role === 'chain') {
  const network = await startChannelsNetwork();
  process.once('SIGTERM', () => void network.stop().then(() => process.exit(0)));
  say({ url: network.chain.rpcUrl, manifest: join(network.folder, 'network.json') });
} else if (role === 'miner') await startMiner();
else await startGateway();
if (role !== 'chain') process.once('SIGTERM', () => process.exit(0));
process.stdin.once('end', () => role !== 'gateway' && role !== 'chain' && process.exit(0));
