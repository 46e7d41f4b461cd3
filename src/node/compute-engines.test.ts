import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { MillraceError } from '../errors.ts';
import type { Executor } from '../host/index.ts';
import { startTestApiServer, TEST_CERTIFICATE } from '../host/kubernetes-server.cases.ts';
import { chosenEngine, holdsRentals, openEngines } from './compute-engines.ts';
import type { ComputeSettings } from './compute-settings.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-engines-'));
chmodSync(folder, 0o755);
const opened: Executor[] = [];
after(async () => {
  for (const engine of opened) await engine.close();
  rmSync(folder, { recursive: true, force: true });
});

async function open(settings: ComputeSettings): Promise<Executor> {
  const engines = await openEngines(settings, folder);
  opened.push(...engines);
  assert.deepEqual(engines.map(({ engine }) => engine).slice(1), ['wasm'], 'modules run beside any engine');
  return engines[0] as Executor;
}

async function refusalOf(settings: ComputeSettings): Promise<string> {
  try {
    await open(settings);
  } catch (error) {
    const { code, values } = error as MillraceError;
    return `${code} ${values.name}: ${values.expected}`;
  }
  return assert.fail('it was opened');
}

test('an owner who says nothing has bubblewrap, and one who chooses has that engine alone', async () => {
  assert.deepEqual([chosenEngine(undefined), holdsRentals(undefined)], ['bubblewrap', true]);
  assert.equal((await open({})).engine, 'bubblewrap');
  const nowhere = { engineSocket: join(folder, 'nothing.sock') };
  for (const computeEngine of ['docker', 'gvisor', 'swarm']) {
    const engine = await open({ computeEngine, ...nowhere, engineFolder: folder });
    assert.equal(engine.engine, computeEngine);
    const { takesForeign, missing } = await engine.inspect();
    assert.equal(takesForeign, false);
    assert.match(missing[0]?.what ?? '', /no engine answers/);
    const limits = { memoryBytes: 64 << 20, cpus: 1, processes: 8, diskBytes: 1 << 20, wallSeconds: 5, outputBytes: 100 };
    const job = { image: `sha256:${'ab'.repeat(32)}`, argv: ['/bin/true'], limits, trust: 'foreign' as const };
    await assert.rejects(engine.run(job), { code: 'foreign-job-refused', actor: 'host' });
  }
  assert.equal(holdsRentals({ computeEngine: 'docker' }), false, 'a container needs an image to begin in');
  assert.equal(holdsRentals({ computeEngine: 'docker', leaseImage: '/image.tar' }), true);
  assert.equal(holdsRentals({ computeEngine: 'swarm' }), false);
});

test('a setting that an engine needs, or that does not go with it, is refused by its name', async () => {
  assert.match(await refusalOf({ computeEngine: 'podman' }), /^bad-compute-setting computeEngine: one of bubblewrap, docker/);
  assert.match(await refusalOf({ computeEngine: 'docker', jobCommands: 'yes' }), /^bad-compute-setting jobCommands: no: the engine docker/);
  assert.match(await refusalOf({ computeEngine: 'docker', engineSocket: '/a,/b' }), /^bad-compute-setting engineSocket: one path/);
  await assert.rejects(open({ computeImages: 'some' }), { code: 'bad-size', actor: 'caller' });
  assert.equal((await open({ computeImages: '4GiB' })).engine, 'bubblewrap');
  assert.match(await refusalOf({ computeEngine: 'swarm' }), /^bad-compute-setting engineSocket: the paths of the farm/);
  assert.match(await refusalOf({ computeEngine: 'swarm', engineSocket: '/a' }), /^bad-compute-setting engineFolder: /);
  assert.match(await refusalOf({ computeEngine: 'kubernetes' }), /^bad-compute-setting kubernetesServer: /);
  const missing = { computeEngine: 'kubernetes', kubernetesServer: 'https://127.0.0.1:1', kubernetesToken: join(folder, 'none') };
  assert.match(await refusalOf(missing), /^bad-compute-setting kubernetesToken: a file that can be read/);
});

/** NO CLUSTER IS RUN: a server that takes what the API's documented contract allows. */
test('a node with a Kubernetes API makes jobs there by the settings, and refuses strangers until its owner declares what the API cannot show', async () => {
  const server = await startTestApiServer();
  try {
    const [token, authority, shared] = ['token', 'authority.pem', 'shared'].map((name) => join(folder, name)) as [string, string, string];
    mkdirSync(shared);
    writeFileSync(token, `${server.token}\n`);
    writeFileSync(authority, TEST_CERTIFICATE);
    const settings = {
      ...{ computeEngine: 'kubernetes', kubernetesServer: server.url, kubernetesToken: token, kubernetesAuthority: authority },
      ...{
        kubernetesRepository: 'registry.example/millrace',
        kubernetesClaim: 'exchange',
        kubernetesNamespace: 'rented',
        engineFolder: shared,
      },
    };
    const undeclared = await (await open(settings)).inspect();
    assert.deepEqual([undeclared.takesForeign, /nobody declared/.test(undeclared.missing[0]?.what ?? '')], [false, true]);
    const engine = await open({ ...settings, kubernetesProcesses: '64' });
    assert.equal((await engine.inspect()).takesForeign, true);
    server.next = {
      statuses: [{ phase: 'Succeeded', containerStatuses: [{ state: { terminated: { exitCode: 0 } } }] }],
      log: 'done\n',
      onStart: (sent) => {
        assert.equal(sent.spec.template.spec.containers[0].image, `registry.example/millrace:${'ab'.repeat(32)}`);
        assert.ok(existsSync(join(shared, sent.spec.template.spec.containers[0].volumeMounts[0].subPath)));
      },
    };
    const limits = { memoryBytes: 64 << 20, cpus: 0.5, processes: 16, diskBytes: 4 << 20, wallSeconds: 20, outputBytes: 1000 };
    const result = await engine.run({ image: `sha256:${'ab'.repeat(32)}`, argv: ['/bin/prog'], limits, trust: 'foreign' });
    assert.deepEqual([result.reason, server.breaches], ['completed', []]);
  } finally {
    await server.close();
  }
});

test('strangers are refused on a farm whose folder nobody holds to a size; with the owner’s program that is no reason', async () => {
  const settings = { computeEngine: 'swarm', engineSocket: join(folder, 'nothing.sock'), engineFolder: folder };
  const isRefusedForFolder = async (more: ComputeSettings) =>
    (await (await open({ ...settings, ...more })).inspect()).missing.some(({ what }) => /measured only/.test(what));
  assert.equal(await isRefusedForFolder({}), true);
  assert.equal(await isRefusedForFolder({ engineHold: '/usr/local/bin/hold' }), false);
});
