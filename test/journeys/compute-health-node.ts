/**
 * A node of the journey of health, in a process and a network of its own: prints one line of JSON when it serves. Told `benchmark` it prints what its
 * machine is able to do, and ends. The chain is on another machine for it: it looks at it more seldom than at its own.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectChain, createSender, createSigner, parseManifest } from '../../src/chain/index.ts';
import { benchmark, startChallengeEngine } from '../../src/compute/health/challenge-engine.ts';
import { type HealthSettings, startHealth } from '../../src/compute/health/health-part.ts';
import { openTransportIdentity, startPeerServer } from '../../src/connect/index.ts';
import { createLogger } from '../../src/log.ts';

/** What the journey tells its node; the key by a file, as a secret. */
export interface HealthNodeSettings {
  rpcUrl: string;
  manifestPath: string;
  keyPath: string;
  operatorId: string;
  folder: string;
  host: string;
  port: number;
  health: HealthSettings;
}

if (process.argv[2] === 'benchmark') {
  process.stdout.write(`${JSON.stringify(await benchmark(startChallengeEngine()))}\n`);
  process.exit(0);
}
// It ends with the journey, however that ends.
process.stdin.once('end', () => process.exit(0)).resume();
const settings = JSON.parse(process.argv[2] ?? '{}') as HealthNodeSettings;
const log = createLogger({ role: `node-${settings.operatorId}`, level: 'debug', file: join(settings.folder, 'node.log') });
const client = await connectChain({
  rpcUrl: settings.rpcUrl,
  manifest: parseManifest(JSON.parse(readFileSync(settings.manifestPath, 'utf8'))),
});
const signer = createSigner(readFileSync(settings.keyPath, 'utf8').trim() as `0x${string}`);
const sender = createSender({ client, signer, journalFolder: join(settings.folder, 'keys'), log });
const operatorId = BigInt(settings.operatorId);
const part = await startHealth({ client, signer, sender, operatorId, folder: join(settings.folder, 'health'), log }, settings.health);
const server = await startPeerServer({
  host: settings.host,
  port: settings.port,
  identity: await openTransportIdentity(settings.folder),
  // Its own numbers, for the journey alone.
  fetch: async (request) => {
    if (new URL(request.url).pathname === '/status') {
      return new Response(JSON.stringify(await part.status(), (_, value) => (typeof value === 'bigint' ? String(value) : value)));
    }
    return part.fetch(request) ?? new Response(null, { status: 404 });
  },
});
process.once('SIGTERM', async () => {
  await server.stop(100);
  await part.stop();
  process.exit(0);
});
process.stdout.write(`${JSON.stringify({ port: server.port })}\n`);
