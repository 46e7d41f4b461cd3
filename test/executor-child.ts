/** Opens the default executor and runs one job: `once` prints what came of it as JSON; `forever` prints a line and waits to be killed. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { toMillraceError } from '../src/errors.ts';
import { SandboxExecutor } from '../src/host/index.ts';

const [mode = 'once', script = 'id -u', trust = 'foreign'] = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), 'millrace-images-'));
const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
const limits = {
  memoryBytes: 32 << 20,
  cpus: 1,
  processes: 16,
  diskBytes: 1 << 20,
  wallSeconds: mode === 'once' ? 20 : 600,
  outputBytes: 10_000,
};
const print = (value: unknown) => process.stdout.write(`${JSON.stringify(value)}\n`);
let said = '';
try {
  const report = await executor.inspect();
  const onLog = ({ bytes }: { bytes: Uint8Array }) => {
    said += Buffer.from(bytes).toString();
    if (mode === 'forever') print({ said });
  };
  const result = await executor.run({ argv: ['/bin/sh', '-c', script], limits, trust: trust === 'own' ? 'own' : 'foreign' }, { onLog });
  print({ report, result, said });
} catch (error) {
  print({ error: toMillraceError(error) });
}
await executor.close();
rmSync(folder, { recursive: true });
