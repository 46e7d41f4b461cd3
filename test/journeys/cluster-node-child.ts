/** A compute node of a journey that takes part in clusters, in a process and a network of its own: prints one line of JSON when it serves. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectChain, createSender, createSigner, parseManifest } from '../../src/chain/index.ts';
import { createCapacity, startClusterPart } from '../../src/compute/index.ts';
import { openTransportIdentity, startPeerServer } from '../../src/connect/index.ts';
import { openDockerExecutor } from '../../src/host/index.ts';
import { createLogger } from '../../src/log.ts';

/** What the journey tells its node; the key by a file, as a secret. */
export interface ClusterNodeSettings {
  rpcUrl: string;
  manifestPath: string;
  keyPath: string;
  operatorId: string;
  folder: string;
  host: string;
  port: number;
  socketPath: string;
  imageFolder: string;
  /** An archive that the engine takes before the node serves, as a machine does that keeps what its renters use. */
  warmImage: string;
}

const settings = JSON.parse(process.argv[2] ?? '{}') as ClusterNodeSettings;
const log = createLogger({ role: `node-${settings.operatorId}`, file: join(settings.folder, 'node.log') });
const manifest = parseManifest(JSON.parse(readFileSync(settings.manifestPath, 'utf8')));
const client = await connectChain({ rpcUrl: settings.rpcUrl, manifest });
const signer = createSigner(readFileSync(settings.keyPath, 'utf8').trim() as `0x${string}`);
const sender = createSender({ client, signer, journalFolder: join(settings.folder, 'keys'), log });
const executor = await openDockerExecutor({ socketPath: settings.socketPath });
const image = await executor.importImage(settings.warmImage);
const part = await startClusterPart(
  {
    client,
    signer,
    sender,
    operatorId: BigInt(settings.operatorId),
    folder: join(settings.folder, 'clusters'),
    log,
    capacity: createCapacity({ cpus: 64, memoryBytes: 2 ** 36, diskBytes: 2 ** 36, processes: 4096 }),
    executors: [executor],
    fetchContent: () => Promise.reject(new TypeError('this node fetches nothing')),
  },
  { publicHost: settings.host, imageFolder: settings.imageFolder },
);
const server = await startPeerServer({
  host: settings.host,
  port: settings.port,
  identity: await openTransportIdentity(settings.folder),
  fetch: (request) => part.fetch(request) ?? new Response(null, { status: 404 }),
});
process.stdout.write(`${JSON.stringify({ port: server.port, image, status: await part.status() })}\n`);
process.once('SIGTERM', () => {
  void Promise.allSettled([server.stop(100), part.stop()])
    .then(() => executor.close())
    .then(() => process.exit(0));
});
