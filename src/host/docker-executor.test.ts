import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import Docker from 'dockerode';
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

  test('images that came with the work of others go beyond the bound, but not from a container, and none that their owner imported', async () => {
    const executor = new DockerExecutor({ socketPath, imageFolder: join(folder, 'list'), imageBytesMax: 0 });
    const docker = new Docker({ socketPath });
    const names = async () => (await docker.listImages()).flatMap(({ RepoTags }) => RepoTags ?? []).sort();
    const before = await names();
    const [one, two] = [1, 2].map((number) => {
      const archive = makeRootArchive(folder);
      writeFileSync(join(folder, `mark-${number}`), '');
      execFileSync('tar', ['-C', folder, '-rf', archive, `mark-${number}`]);
      renameSync(archive, join(folder, `own-${number}.tar`));
      return join(folder, `own-${number}.tar`);
    }) as [string, string];
    const holds = await Promise.all([executor.holdImage(one), executor.holdImage(one)]);
    const [name, ...others] = (await names()).filter((each) => !before.includes(each)) as [string];
    assert.deepEqual([others.length, (await executor.temporaryImages()).images], [0, 1]);
    const inputFolder = join(folder, 'input');
    mkdirSync(inputFolder);
    const up = Promise.withResolvers<void>();
    const limits = { memoryBytes: 64 << 20, cpus: 1, processes: 16, diskBytes: 1 << 20, wallSeconds: 300, outputBytes: 1000 };
    const argv = ['/bin/sh', '-c', 'echo up; until [ -e /input/go ]; do sleep 0.05; done'];
    const job = { image: (holds[0] as { digest: string }).digest, argv, inputFolder, limits, trust: 'foreign' as const };
    const running = executor.run(job, { onLog: () => up.resolve() });
    await Promise.race([up.promise, running]);
    for (const { release } of holds) await release();
    assert.ok((await names()).includes(name), 'a job runs in it');
    const foreign = await docker.createContainer({ Image: name, Cmd: ['/bin/true'] });
    writeFileSync(join(inputFolder, 'go'), '');
    assert.equal((await running).reason, 'completed');
    assert.ok((await names()).includes(name), 'a container of somebody else is made of it');
    await foreign.remove();
    const other = await executor.holdImage(two);
    assert.equal(await executor.hasImage(other.digest), false);
    assert.equal(await executor.importImage(two), other.digest);
    await other.release();
    const kept = `localhost/millrace:${other.digest.slice(7)}`;
    assert.deepEqual(
      (await names()).filter((each) => !before.includes(each)),
      [kept],
    );
    await executor.close();
    await docker.getImage(kept).remove();
  });
}
