// A storage provider as a process of its own, honest or not; commanded and killed by the test that starts it.
import { connectChain, createSender, developmentSigner, readManifest, type Sender } from '../src/chain/index.ts';
import { openTransportIdentity, startPeerServer } from '../src/connect/index.ts';
import { createLogger } from '../src/log.ts';
import { TEST_POLICY } from '../src/storage/market/market-fixture.ts';
import { type DutyName, type StorageProvider, startStorageProvider } from '../src/storage/provider/provider.ts';

/** How a provider is started. `attack` makes its proofs late, or those of the period before. */
export interface ProviderChildOptions {
  rpcUrl: string;
  manifestPath: string;
  folder: string;
  keys: string;
  logFile: string;
  keyIndex: number;
  port: number;
  operatorId: string;
  duties?: DutyName[];
  keepsOthers?: boolean;
  attack?: 'late' | 'replay' | 'wrong-leaves';
  minPrice?: string;
}

type ProveCall = { contract: string; functionName: string; args: readonly unknown[]; key?: string };

const options = JSON.parse(process.argv[2] as string) as ProviderChildOptions;
const manifest = readManifest(options.manifestPath);
const client = await connectChain({ rpcUrl: options.rpcUrl, manifest });
const signer = developmentSigner(options.keyIndex, 'dev');
const log = createLogger({ role: `node-${options.operatorId}`, level: 'debug', file: options.logFile });
const honest = createSender({ client, signer, journalFolder: options.keys, log });
const identity = await openTransportIdentity(options.folder);
let provider: StorageProvider | undefined;
const server = await startPeerServer({
  port: options.port,
  identity,
  fetch: (request) => provider?.fetch(request) ?? new Response(null, { status: 503 }),
});

if (options.operatorId !== '0') {
  const { ask } = TEST_POLICY;
  provider = await startStorageProvider({
    folder: options.folder,
    client,
    signer,
    sender: options.attack === undefined ? honest : attackingSender(honest),
    operatorId: BigInt(options.operatorId),
    policy: {
      ...TEST_POLICY,
      openDealsMax: 4096,
      openDealsPerClientMax: 4096,
      ask: { ...ask, minPricePerPeriod: BigInt(options.minPrice ?? ask.minPricePerPeriod) },
    },
    log,
    duties: options.duties,
    keepsOthers: options.keepsOthers,
    pollMs: 100,
  });
}

process.on('message', async (message: { id: number; delete?: `0x${string}` }) => {
  try {
    if (message.delete !== undefined) await provider?.store.delete(message.delete);
    process.send?.({ id: message.id });
  } catch (error) {
    process.send?.({ id: message.id, error: (error as Error).message });
  }
});
process.on('SIGTERM', async () => {
  await server.stop(100);
  await provider?.stop();
  process.exit(0);
});
process.send?.({ ready: true, port: server.port, transportKey: identity.transportKey, pid: process.pid });

/** Lets all calls through as they are, except proofs. */
function attackingSender(sender: Sender): Sender {
  let first: readonly unknown[] | undefined;
  const send = async (call: ProveCall) => {
    if (call.functionName !== 'prove') return sender.send(call as never);
    const [operatorId, period, openings, ...seed] = call.args as [bigint, bigint, string, ...string[]];
    if (first === undefined) {
      // The first proof is honest, so that there is one to replay.
      first = call.args;
      return sender.send(call as never);
    }
    if (options.attack === 'late') {
      log.info('proof-held-back', { period });
      await client.waitForTime(await client.read('possession', 'periodStart', [period + 1n]));
    }
    const replayed = options.attack === 'replay' ? first[2] : options.attack === 'wrong-leaves' ? corrupted(openings) : openings;
    return sender.send({ ...call, args: [operatorId, period, replayed, ...seed], key: undefined } as never);
  };
  return { ...sender, send: send as Sender['send'] };
}

/** The same proof with the last byte of the last leaf's path flipped. */
function corrupted(openings: string): string {
  return `${openings.slice(0, -1)}${openings.endsWith('0') ? '1' : '0'}`;
}
