/**
 * The beacon of a development network as a process of its own: gives the signature of each round once the chain's time has reached it, at
 * `http://127.0.0.1:{port}/public/{round}` as drand does. One argument `-`: its options as JSON on standard input. SIGTERM and SIGINT stop it.
 */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connectChain, readManifest } from '../chain/index.ts';
import { writeFileDurably } from '../durable-file.ts';
import { exitCodeOf, toMillraceError } from '../errors.ts';
import { createLogger } from '../log.ts';
import { beaconUrlPath, openNetworkBeacon } from './network-beacon.ts';

/** The options of the beacon's process. */
export interface BeaconProcessOptions {
  networkRoot: string;
  manifestPath: string;
  rpcUrl: string;
  logFile?: string;
}

const SERVER_LIMITS = { headersTimeout: 5_000, requestTimeout: 10_000, maxHeaderSize: 4_096 };
const CONNECTIONS_MAX = 64;

async function main(): Promise<void> {
  const options = JSON.parse(readFileSync(0, 'utf8')) as BeaconProcessOptions;
  const { networkRoot } = options;
  const log = createLogger({ role: 'beacon', file: options.logFile });
  const client = await connectChain({ rpcUrl: options.rpcUrl, manifest: readManifest(options.manifestPath) });
  const beacon = await openNetworkBeacon({ networkRoot, profile: client.manifest.profile, now: () => client.now() });
  const server = createServer(SERVER_LIMITS, async (incoming, outgoing) => {
    try {
      const answer = await beacon.answer(new Request(new URL(incoming.url ?? '/', 'http://beacon'), { method: incoming.method }));
      outgoing.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text());
    } catch (error) {
      log.warn('pulse-failed', { reason: toMillraceError(error).message.slice(0, 200) });
      outgoing.writeHead(503).end();
    }
  });
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  writeFileDurably(beaconUrlPath(networkRoot), `http://127.0.0.1:${port}/\n`);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => process.exit(0));
  log.info('beacon-serves', { port, label: beacon.declaration.label });
  process.stdout.write(`${JSON.stringify({ ready: true, pid: process.pid, port })}\n`);
}

main().catch((error) => {
  process.stderr.write(`${JSON.stringify(toMillraceError(error))}\n`);
  process.exit(exitCodeOf(error));
});
