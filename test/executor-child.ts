/**
 * Opens the default executor and runs one job: `once` prints what came of it as JSON; `forever` prints a line and waits to be killed; `connect` prints
 * what answered at port 7001 of the job, which is ended then.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { toMillraceError } from '../src/errors.ts';
import { type JobLoopback, SandboxExecutor } from '../src/host/index.ts';

const [mode = 'once', script = 'id -u', trust = 'foreign'] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'millrace-images-'));
const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
const limits = {
  memoryBytes: 32 << 20,
  cpus: 1,
  processes: 16,
  diskBytes: 1 << 20,
  wallSeconds: mode === 'forever' ? 600 : 20,
  outputBytes: 10_000,
};
const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);
let said = '';
const stop = new AbortController();
const loopback = Promise.withResolvers<JobLoopback>();

/** Hears what the job says to a connection that says `user`. */
async function hear(): Promise<string> {
  const socket = await (await loopback.promise).connect(7001);
  socket.end('user');
  let heard = '';
  for await (const bytes of socket) heard += String(bytes);
  stop.abort();
  return heard;
}

try {
  const report = await executor.inspect();
  let heard: Promise<string> | undefined;
  const onLog = ({ bytes }: { bytes: Uint8Array }) => {
    said += Buffer.from(bytes).toString();
    if (mode === 'forever') print({ said });
    if (mode === 'connect') heard ??= hear();
  };
  const options = { onLog, signal: stop.signal, onLoopback: loopback.resolve };
  const result = await executor.run({ argv: ['/bin/sh', '-c', script], limits, trust: trust === 'own' ? 'own' : 'foreign' }, options);
  print({ report, result, said: (await heard) ?? said });
} catch (error) {
  print({ error: toMillraceError(error) });
}
await executor.close();
rmSync(folder, { recursive: true });
