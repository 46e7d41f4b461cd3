import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FOREIGN } from '../../test/suite.ts';
import { linuxPrograms } from './abuse.cases.ts';
import { findDockerSocket } from './docker.ts';
import { DockerExecutor } from './docker-executor.ts';
import { executorCases } from './executor.cases.ts';
import { ownerTag } from './owner-tag.ts';
import { makeRootArchive } from './root-file-system.cases.ts';

const socketPath = findDockerSocket();
const folder = mkdtempSync(join(tmpdir(), 'millrace-docker-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const leftovers = () => [
  ...readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`millrace-docker-${ownerTag()}`)),
  ...readdirSync(tmpdir()).filter((name) => name.startsWith(`millrace-docker-${ownerTag()}`)),
];

if (socketPath === undefined) {
  test('containers of Docker or Podman', (context) => context.skip(`${FOREIGN}no Docker Engine answers on this machine`));
} else {
  executorCases(`docker at ${socketPath}`, async () => {
    const executor = new DockerExecutor({ socketPath });
    const image = await executor.importImage(makeRootArchive(folder));
    return { executor, ...linuxPrograms(image), leftovers };
  });

  test('an image is built out of a context without any registry, and runs by the digest of the context', async () => {
    const executor = new DockerExecutor({ socketPath });
    const base = await executor.importImage(makeRootArchive(folder));
    const context = join(folder, 'context');
    mkdirSync(context);
    writeFileSync(join(context, 'Dockerfile'), `FROM localhost/millrace:${base.slice(7)}\nCOPY word /word\nENTRYPOINT ["/bin/false"]\n`);
    writeFileSync(join(context, 'word'), 'built');
    const archive = join(folder, 'context.tar');
    execFileSync('tar', ['-C', context, '-cf', archive, '.']);
    const image = await executor.buildImage(archive);
    const said: string[] = [];
    const limits = { memoryBytes: 64 << 20, cpus: 1, processes: 8, diskBytes: 1 << 20, wallSeconds: 30, outputBytes: 1000 };
    const job = { image, argv: ['/bin/cat', '/word'], limits, trust: 'foreign' as const };
    const result = await executor.run(job, { onLog: ({ bytes }) => said.push(Buffer.from(bytes).toString()) });
    assert.deepEqual([result.reason, said.join('')], ['completed', 'built']);
    const missing = await executor.run({ ...job, argv: ['/no/such'] });
    assert.deepEqual([missing.reason, missing.exitCode], ['failed', 127]);
    await executor.close();
  });
}
