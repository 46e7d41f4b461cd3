import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { FOREIGN } from '../../test/suite.ts';
import { findDockerSocket } from './docker.ts';
import { DockerExecutor } from './docker-executor.ts';
import type { Executor, Job, JobLoopback, JobResult } from './executor.ts';
import { ECHO } from './loopback.cases.ts';
import { Loopback } from './loopback.ts';
import { makeRootArchive } from './root-file-system.cases.ts';
import { SandboxExecutor } from './sandbox-executor.ts';

const LIMITS = { memoryBytes: 64 << 20, cpus: 1, processes: 16, diskBytes: 1 << 20, wallSeconds: 300, outputBytes: 10_000 };
const PORT = 7001;
const folder = mkdtempSync(join(tmpdir(), 'millrace-loopback-'));
const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
const socketPath = findDockerSocket();
after(async () => {
  await executor.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Listening {
  loopback: JobLoopback;
  end: () => Promise<JobResult>;
}

/** Runs a job that echoes at the port, and waits until it listens. */
async function listening(engine: Executor, image: Partial<Pick<Job, 'image'>> = {}): Promise<Listening> {
  const given = Promise.withResolvers<JobLoopback>();
  const ready = Promise.withResolvers<void>();
  const stop = new AbortController();
  const job: Job = { ...image, argv: ['/usr/bin/perl', '-e', ECHO, String(PORT)], limits: LIMITS, trust: 'own' };
  const running = engine.run(job, { signal: stop.signal, onLog: () => ready.resolve(), onLoopback: given.resolve });
  await Promise.race([Promise.all([ready.promise, given.promise]), running.then((result) => assert.fail(`it ended: ${result.detail}`))]);
  const end = () => {
    stop.abort();
    return running;
  };
  return { loopback: await given.promise, end };
}

async function echo(socket: Socket, text: string): Promise<string> {
  socket.end(text);
  let heard = '';
  for await (const bytes of socket) heard += String(bytes);
  return heard;
}

/** Processes of ours in networks of jobs. */
function helpers(): { status: string; network: string }[] {
  const of = (pid: string) => {
    try {
      const isOne = readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('loopback-process.ts');
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      const isOurs = isOne && status.includes(`PPid:\t${process.pid}\n`);
      return isOurs ? [{ status, network: readlinkSync(`/proc/${pid}/ns/net`) }] : [];
    } catch {
      return [];
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap(of);
}

async function reachesPorts(engine: Executor, image: Partial<Pick<Job, 'image'>> = {}): Promise<void> {
  const { loopback, end } = await listening(engine, image);
  assert.equal(await echo(await loopback.connect(PORT), 'over and back'), 'over and back');
  await assert.rejects(loopback.connect(PORT + 1), { code: 'port-refused', actor: 'caller' });
  const open = await loopback.connect(PORT);
  const closed = once(open, 'close');
  await end();
  await closed;
  await assert.rejects(loopback.connect(PORT), { code: 'loopback-closed' });
}

test('what listens in a sandbox is reached from outside, nothing else answers there, and all of it ends with the sandbox', async () => {
  await reachesPorts(executor);
});

test('what listens in a container is reached as well', async (context) => {
  if (socketPath === undefined) return context.skip(`${FOREIGN}no Docker Engine answers on this machine`);
  if (process.getuid?.() !== 0) return context.diagnostic('only root enters the network of a container');
  const docker = new DockerExecutor({ socketPath });
  try {
    await reachesPorts(docker, { image: await docker.importImage(makeRootArchive(folder)) });
  } finally {
    await docker.close();
  }
});

test('the process that connects is in the sandbox’s network with no right over anything', async () => {
  const { loopback, end } = await listening(executor);
  (await loopback.connect(PORT)).destroy();
  const [helper, ...others] = helpers();
  assert.deepEqual(others, []);
  assert.notEqual(helper?.network, readlinkSync('/proc/self/ns/net'));
  const fieldOf = (name: string) => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(helper?.status ?? '')?.[1];
  for (const name of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb']) assert.equal(fieldOf(name), '0000000000000000');
  assert.equal(fieldOf('NoNewPrivs'), '1');
  if (process.getuid?.() === 0) assert.equal(fieldOf('Uid'), '65534\t65534\t65534\t65534');
  await end();
});

test('a network that is this machine’s own, or another process’s by now, is never entered', async () => {
  const own = new Loopback(async () => ({ network: '/proc/self/ns/net', user: undefined, isStill: () => true }));
  await assert.rejects(own.connect(PORT), { code: 'loopback-failed', message: /this machine’s own network/ });
  const late = new Loopback(async () => ({ network: '/proc/self/ns/net', user: undefined, isStill: () => false }));
  await assert.rejects(late.connect(PORT), { code: 'loopback-failed', message: /another one by now/ });
  const gone = new Loopback(async () => undefined);
  await assert.rejects(gone.connect(PORT), { code: 'loopback-failed', actor: 'host' });
});
