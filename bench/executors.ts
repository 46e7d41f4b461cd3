/**
 * Executors: how long a job takes from its request to its result, beside the bare engine called directly with the same program; jobs per second
 * of processor time; memory. The machine's other load is in the wall times, so the best is given beside the median; the ratio is of the bests.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import Docker from 'dockerode';
import { linuxPrograms } from '../src/host/abuse.cases.ts';
import { type Executor, findDockerSocket, type Job, openDockerExecutor, SandboxExecutor, WasmExecutor } from '../src/host/index.ts';
import { makeRootArchive } from '../src/host/root-file-system.cases.ts';
import { wasmModule } from '../src/host/wasm-programs.cases.ts';
import { missingForHosts, startHosts } from '../test/journeys/cluster-hosts.ts';

const ROUNDS = 25;
const CLOCK_TICKS = 100;
const LIMITS = { memoryBytes: 64 << 20, cpus: 1, processes: 16, diskBytes: 1 << 20, wallSeconds: 60, outputBytes: 10_000 };
const folder = mkdtempSync(join(tmpdir(), 'millrace-bench-executors-'));
const print = (line: string) => process.stdout.write(`${line}\n`);

/** Processor time of this process and of the children that it has waited for, in ms. */
function cpuMs(pid: number | 'self' = 'self'): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) * 1000) / CLOCK_TICKS;
}

interface Measured {
  bestMs: number;
  medianMs: number;
  cpuMs: number;
}

async function measure(work: () => Promise<unknown>): Promise<Measured> {
  for (let round = 0; round < 3; round += 1) await work();
  const times: number[] = [];
  const before = cpuMs();
  for (let round = 0; round < ROUNDS; round += 1) {
    const start = performance.now();
    await work();
    times.push(performance.now() - start);
  }
  times.sort((one, other) => one - other);
  return { bestMs: times[0] as number, medianMs: times[ROUNDS >> 1] as number, cpuMs: (cpuMs() - before) / ROUNDS };
}

function tell(name: string, ours: Measured, bare: Measured, note = ''): void {
  const one = ({ bestMs, medianMs, cpuMs: cpu }: Measured) =>
    `best ${bestMs.toFixed(1)}, median ${medianMs.toFixed(1)} ms, ${cpu.toFixed(1)} ms of CPU`;
  print(
    `${name}: ${one(ours)}; bare engine ${one(bare)}; ratio ${(ours.bestMs / bare.bestMs).toFixed(2)}; ${(1000 / ours.cpuMs).toFixed(0)} jobs per CPU-second${note}`,
  );
}

const runBare = (command: string, args: readonly string[]) =>
  new Promise<void>((resolve, reject) => {
    spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }).once('close', (code) => (code === 0 ? resolve() : reject(code)));
  });

const runJob = (executor: Executor, job: Pick<Job, 'argv' | 'image'>) => async () => {
  const result = await executor.run({ ...job, limits: LIMITS, trust: 'foreign', artefactFolder: join(folder, 'artefacts') });
  if (result.reason !== 'completed') throw result;
};

async function bubblewrap(): Promise<void> {
  const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
  const bare = [
    '--unshare-all',
    '--die-with-parent',
    '--new-session',
    '--cap-drop',
    'ALL',
    '--ro-bind',
    '/usr',
    '/usr',
    '--symlink',
    'usr/lib',
    '/lib',
  ];
  const options = [
    ...bare,
    '--symlink',
    'usr/lib64',
    '/lib64',
    '--symlink',
    'usr/bin',
    '/bin',
    '--proc',
    '/proc',
    '--dev',
    '/dev',
    '--tmpfs',
    '/tmp',
  ];
  const direct = await measure(() => runBare('bwrap', [...options, '/bin/true']));
  tell('bubblewrap', await measure(runJob(executor, { argv: ['/bin/true'] })), direct);
  const before = process.memoryUsage().rss;
  const start = performance.now();
  const startCpu = cpuMs();
  let left = 100;
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (left-- > 0) await runJob(executor, { argv: ['/bin/true'] })();
    }),
  );
  const seconds = (performance.now() - start) / 1000;
  print(
    `  100 jobs, eight at once: ${seconds.toFixed(2)} s, ${(100_000 / (cpuMs() - startCpu)).toFixed(0)} per CPU-second; this process grew by ${((process.memoryUsage().rss - before) / 2 ** 20).toFixed(1)} MiB`,
  );
  const idle = await executor.run({ ...linuxPrograms().exitThree, limits: LIMITS, trust: 'foreign' });
  print(`  memory of a job that does nothing: ${((idle.usage.memoryBytesPeak ?? 0) / 2 ** 20).toFixed(1)} MiB`);
  await executor.close();
}

async function wasm(): Promise<void> {
  const executor = new WasmExecutor({ imageFolder: join(folder, 'modules') });
  const path = join(folder, 'nothing.wasm');
  writeFileSync(path, wasmModule([]));
  const image = await executor.importImage(path);
  const bare = await measure(() => new Promise((resolve) => new Worker('', { eval: true }).once('exit', () => resolve(undefined))));
  tell('wasm', await measure(runJob(executor, { image, argv: ['nothing'] })), bare, ' (bare: an empty worker)');
  await executor.close();
}

/** Of the engine that answers here, or of one that is started for this, in a network of its own. */
async function docker(): Promise<void> {
  const answering = findDockerSocket();
  const missing = missingForHosts(['dockerd', 'ip', 'nsenter']);
  if (answering === undefined && missing !== undefined) {
    print(`docker: no engine answers on this machine, and none can be started: ${missing}`);
    return;
  }
  const hosts = answering === undefined ? await startHosts(folder, 1, '10.77.8') : undefined;
  try {
    const [host] = hosts?.hosts ?? [];
    await host?.startEngine();
    await measureDocker(answering ?? (host?.socketPath as string));
  } finally {
    await hosts?.close();
  }
}

async function measureDocker(socketPath: string): Promise<void> {
  const executor = await openDockerExecutor({ socketPath });
  const image = await executor.importImage(makeRootArchive(folder));
  const engine = new Docker({ socketPath });
  const bare = await measure(async () => {
    const container = await engine.createContainer({
      Image: `localhost/millrace:${image.slice(7)}`,
      Cmd: ['/bin/sh', '-c', ':'],
      HostConfig: { NetworkMode: 'none' },
    });
    await container.start();
    await container.wait();
    await container.remove();
  });
  tell(
    'docker',
    await measure(runJob(executor, { image, argv: ['/bin/sh', '-c', ':'] })),
    bare,
    ' (CPU of this process alone, not of the engine)',
  );
  await executor.close();
}

const load = () => loadavg()[0]?.toFixed(1);
print(`load of this machine: ${load()}`);
await bubblewrap();
await wasm();
await docker();
print(`load of this machine: ${load()}`);
rmSync(folder, { recursive: true, force: true });
