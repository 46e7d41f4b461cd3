/** NO CLUSTER IS RUN HERE: what is tested is what the executor sends to an API server by the documented contract, and how it reads the answers. */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Job } from './executor.ts';
import { KubernetesExecutor } from './kubernetes-executor.ts';
import { breachesOf, type Recorded, startTestApiServer, TEST_CERTIFICATE, type TestApiServer } from './kubernetes-server.cases.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-kubernetes-'));
const image = `sha256:${'ab'.repeat(32)}`;
const limits = { memoryBytes: 64 << 20, cpus: 0.5, processes: 16, diskBytes: 4 << 20, wallSeconds: 20, outputBytes: 1000 };
const job: Job = { image, argv: ['/bin/prog', 'one'], env: { A: 'b' }, limits, trust: 'foreign' };
let server: TestApiServer;

before(async () => {
  chmodSync(folder, 0o755);
  server = await startTestApiServer();
});
after(async () => {
  await server.close();
  rmSync(folder, { recursive: true, force: true });
});

function open(change: object = {}): KubernetesExecutor {
  return new KubernetesExecutor({
    server: server.url,
    certificateAuthority: TEST_CERTIFICATE,
    token: server.token,
    namespace: 'rented',
    repository: 'registry.example/millrace',
    claim: 'exchange',
    sharedFolder: folder,
    enforced: { networkPolicies: true, processesMax: 64 },
    ...change,
  });
}

const pending = { phase: 'Pending' };
const running = { phase: 'Running', containerStatuses: [{ state: { running: {} } }] };
const ended = (phase: string, terminated: object, reason?: string) => ({ phase, reason, containerStatuses: [{ state: { terminated } }] });

test('a job is made by the contract, held to its limits and shut off; its log, exit and artefacts come back, and it is deleted', async () => {
  const executor = open();
  server.next = {
    statuses: [pending, running, ended('Succeeded', { exitCode: 0 })],
    log: 'hello\n',
    onStart: (sent: Recorded) => {
      const { subPath } = sent.spec.template.spec.containers[0].volumeMounts[0];
      writeFileSync(join(folder, subPath, 'greeting'), 'artefact');
    },
  };
  const inputFolder = join(folder, 'given');
  mkdirSync(inputFolder);
  const said: string[] = [];
  const artefactFolder = join(folder, 'artefacts');
  const result = await executor.run(
    { ...job, inputFolder, artefactFolder },
    { onLog: ({ bytes }) => said.push(Buffer.from(bytes).toString()) },
  );
  assert.deepEqual([result.reason, result.exitCode, said.join('')], ['completed', 0, 'hello\n']);
  assert.deepEqual(
    result.artefacts.map(({ path, sizeBytes }) => [path, sizeBytes]),
    [['greeting', 8]],
  );
  const sent = server.jobs.at(-1);
  const pod = sent.spec.template.spec;
  const [container] = pod.containers;
  assert.deepEqual(
    [container.command, container.args, container.image],
    [['/bin/prog'], ['one'], `registry.example/millrace:${'ab'.repeat(32)}`],
  );
  assert.deepEqual(container.resources.limits, { cpu: '0.5', memory: String(64 << 20), 'ephemeral-storage': String(4 << 20) });
  assert.deepEqual(container.securityContext.capabilities, { drop: ['ALL'] });
  assert.deepEqual(
    [
      container.securityContext.allowPrivilegeEscalation,
      container.securityContext.readOnlyRootFilesystem,
      pod.securityContext.runAsNonRoot,
    ],
    [false, true, true],
  );
  assert.deepEqual(
    [pod.restartPolicy, pod.automountServiceAccountToken, pod.hostUsers, sent.spec.backoffLimit],
    ['Never', false, false, 0],
  );
  assert.deepEqual([sent.spec.activeDeadlineSeconds, pod.securityContext.seccompProfile.type], [20, 'RuntimeDefault']);
  assert.ok(container.volumeMounts.some((mount: Recorded) => mount.mountPath === '/input' && mount.readOnly === true));
  assert.deepEqual([server.breaches, server.deleted], [[], [sent.metadata.name]]);
  await executor.close();
});

test('two jobs side by side have names and folders of their own', async () => {
  const executor = open();
  server.next = { statuses: [running, ended('Succeeded', { exitCode: 0 })], log: '' };
  const from = server.jobs.length;
  const results = await Promise.all([executor.run(job), executor.run(job)]);
  assert.deepEqual(
    results.map(({ reason }) => reason),
    ['completed', 'completed'],
  );
  const made = server.jobs.slice(from);
  assert.equal(new Set(made.map(({ metadata }: Recorded) => metadata.name)).size, 2);
  assert.equal(new Set(made.map(({ spec }: Recorded) => spec.template.spec.containers[0].volumeMounts[0].subPath)).size, 2);
  await executor.close();
});

test('how a pod ended becomes the reason: exit codes, memory, eviction, deadline, a program that is not there', async () => {
  const executor = open();
  const reasonOf = async (status: object) => {
    server.next = { statuses: [running, status], log: '' };
    const { reason, exitCode } = await executor.run(job);
    return [reason, exitCode];
  };
  assert.deepEqual(await reasonOf(ended('Failed', { exitCode: 3, reason: 'Error' })), ['failed', 3]);
  assert.deepEqual(await reasonOf(ended('Failed', { exitCode: 137, reason: 'OOMKilled' })), ['memory-exceeded', undefined]);
  assert.deepEqual(await reasonOf(ended('Failed', { exitCode: 137 }, 'Evicted')), ['disk-exceeded', undefined]);
  assert.deepEqual(await reasonOf(ended('Failed', { exitCode: 137 }, 'DeadlineExceeded')), ['wall-exceeded', undefined]);
  assert.deepEqual(await reasonOf(ended('Failed', { exitCode: 128, reason: 'StartError' })), ['failed', 127]);
  await executor.close();
});

test('an image that the registry does not have, and a flood of output, are named', async () => {
  const executor = open();
  const waiting = { phase: 'Pending', containerStatuses: [{ state: { waiting: { reason: 'ImagePullBackOff' } } }] };
  server.next = { statuses: [pending, waiting], log: '' };
  await assert.rejects(executor.run(job), { code: 'image-unknown' });
  server.next = { statuses: [running], log: 'x'.repeat(5_000) };
  const result = await executor.run(job);
  assert.deepEqual([result.reason, result.usage.outputBytes], ['output-exceeded', 1000]);
  await executor.close();
});

test('a job that nobody wants any more is deleted', async () => {
  const executor = open();
  server.next = { statuses: [running], log: '' };
  const abort = new AbortController();
  const count = server.jobs.length;
  const going = executor.run(job, { signal: abort.signal });
  while (server.jobs.length === count) await new Promise((resolve) => setTimeout(resolve, 10));
  setTimeout(() => abort.abort(), 100);
  assert.equal((await going).reason, 'cancelled');
  assert.ok(server.deleted.includes(server.jobs.at(-1).metadata.name));
  await executor.close();
});

test('jobs of strangers are refused where the namespace is open, or nobody declared what the API cannot show', async () => {
  const undeclared = open({ enforced: undefined });
  await assert.rejects(
    undeclared.run(job),
    (error: { code?: string; message: string }) => error.code === 'foreign-job-refused' && /declared/.test(error.message),
  );
  const [closed] = server.policies;
  server.policies = [];
  await assert.rejects(open().run(job), /no policy that denies all traffic/);
  server.policies = [closed as object, { spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{}] } }];
  await assert.rejects(open().run(job), /one that allows some/);
  server.policies = [closed as object];
  assert.equal((await open().inspect()).takesForeign, true);
});

test('a wrong token, a stranger’s certificate and an answer of 422 come out as what they are', async () => {
  const wrong = await open({ token: 'other' }).inspect();
  assert.match(wrong.missing[0]?.what ?? '', /401 Unauthorized/);
  const strange = await open({ certificateAuthority: undefined }).inspect();
  assert.match(strange.missing[0]?.what ?? '', /self-signed certificate/);
  assert.deepEqual(breachesOf({ apiVersion: 'batch/v1', kind: 'Job', metadata: {}, spec: { templates: {} } }, 'Job'), [
    'Job.spec.templates is unknown',
    'Job.spec.template is missing',
  ]);
});
