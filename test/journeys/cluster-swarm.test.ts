/** A farm: two engines of Docker in two networks, joined by Swarm, seen as one executor. The whole suite of executors, and a machine that is lost. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { linuxPrograms } from '../../src/host/abuse.cases.ts';
import { executorCases } from '../../src/host/executor.cases.ts';
import { mountMemory, unmountMemory } from '../../src/host/memory-mount.ts';
import { makeRootArchive } from '../../src/host/root-file-system.cases.ts';
import { dockerFilter } from '../../src/host/seccomp-filter.ts';
import { openSwarmExecutor } from '../../src/host/swarm.ts';
import { FOREIGN } from '../suite.ts';
import { missingForHosts, startHosts, type TestHosts } from './cluster-hosts.ts';

const missing = missingForHosts(['dockerd', 'docker', 'ip', 'nsenter']);
if (missing !== undefined) process.stdout.write(`cluster-swarm is skipped: ${missing}\n`);

if (missing !== undefined) {
  test('a farm of Docker Swarm', (context) => context.skip(`${FOREIGN}${missing}`));
} else {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-swarm-'));
  const sharedFolder = join(folder, 'exchange');
  let hosts: TestHosts;

  const ready = (async () => {
    execFileSync('chmod', ['755', folder]);
    mkdirSync(sharedFolder, { mode: 0o711 });
    const profile = join(folder, 'filter.json');
    writeFileSync(profile, JSON.stringify(dockerFilter()));
    hosts = await startHosts(folder, 2, '10.77.4');
    for (const host of hosts.hosts) await host.startEngine(['--seccomp-profile', profile, '--no-new-privileges']);
    const [manager, worker] = hosts.hosts as [TestHosts['hosts'][0], TestHosts['hosts'][0]];
    const docker = (socketPath: string, ...args: string[]) =>
      execFileSync('docker', ['-H', `unix://${socketPath}`, ...args], { encoding: 'utf8' }).trim();
    docker(manager.socketPath, 'swarm', 'init', '--advertise-addr', manager.address);
    const token = docker(manager.socketPath, 'swarm', 'join-token', '-q', 'worker');
    docker(worker.socketPath, 'swarm', 'join', '--token', token, '--advertise-addr', worker.address, `${manager.address}:2377`);
  })();
  after(async () => {
    await hosts.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 200 });
  });

  const sockets = () => hosts.hosts.map(({ socketPath }) => socketPath);
  const openFarm = async () => {
    await ready;
    const holdFolder = async (path: string, sizeBytes: number) => {
      await mountMemory(path, sizeBytes);
      return () => unmountMemory(path);
    };
    return await openSwarmExecutor({ sockets: sockets(), sharedFolder, holdFolder });
  };

  executorCases('a farm of two machines under Docker Swarm', async () => {
    const executor = await openFarm();
    const image = await executor.importImage(makeRootArchive(folder));
    const programs = linuxPrograms(image);
    return {
      executor,
      ...programs,
      attack: (attack, port) => {
        const program = programs.attack(attack, port);
        // A farm does not tell its manager how often a process was refused: the bomb is seen to last until its time is over.
        return attack === 'fork bomb' && typeof program !== 'string'
          ? { ...program, reasons: [...program.reasons, 'wall-exceeded'] }
          : program;
      },
      leftovers: () => [],
    };
  });

  test('a job whose machine is lost runs on the other one', async (context) => {
    const executor = await openFarm();
    const image = await executor.importImage(makeRootArchive(folder));
    const limits = { memoryBytes: 64 << 20, cpus: 1, processes: 16, diskBytes: 1 << 20, wallSeconds: 240, outputBytes: 100_000 };
    const said: string[] = [];
    const worker = hosts.hosts[1] as TestHosts['hosts'][0];
    // Of these two alone: containers of jobs before them may still be on their way out.
    const containersOf = (socketPath: string) =>
      execFileSync('docker', ['-H', `unix://${socketPath}`, 'ps', '--no-trunc', '--format', '{{.Command}}'], { encoding: 'utf8' })
        .split('\n')
        .filter((command) => command.includes('echo started; sleep 25'));
    // Two jobs: Swarm gives one to each machine.
    const argv = ['/bin/sh', '-c', 'echo started; sleep 25; echo done'];
    const runs = [0, 1].map(() =>
      executor.run({ image, argv, limits, trust: 'foreign' }, { onLog: ({ bytes }) => said.push(Buffer.from(bytes).toString()) }),
    );
    while (said.join('').split('started').length < 3) await new Promise((resolve) => setTimeout(resolve, 100));
    const before = containersOf(worker.socketPath).length;
    assert.ok(before > 0, 'the second machine runs one of them');
    worker.pullPlug();
    const lostMs = performance.now();
    const results = await Promise.all(runs);
    context.diagnostic(
      `${before} of 2 jobs ran on the machine that was lost; both had ended ${((performance.now() - lostMs) / 1000).toFixed(1)} s after`,
    );
    assert.deepEqual(
      results.map(({ reason }) => reason),
      ['completed', 'completed'],
    );
    await executor.close();
  });
}
