/**
 * Jobs through the whole market on one machine: agreed, opened, run in a sandbox (`true`), committed, settled and paid, 64 at a time; what a
 * CPU-second of all processes together does (renter, node, sandboxes, chain). Gas of each step by job. Memory of a node that has nothing to do.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import type { Hex } from 'viem';
import { surveyProviders } from '../src/compute/jobs/choose-provider.ts';
import { sendOrder } from '../src/compute/jobs/job-api.ts';
import { PHASE, phaseOf } from '../src/compute/jobs/job-chain.ts';
import { costOf, orderToJson } from '../src/compute/jobs/job-desk.ts';
import { startJobProvider } from '../src/compute/jobs/job-provider.ts';
import { type JobTerms, jobDomainOf, jobIdOf, termsToJson } from '../src/compute/jobs/job-terms.ts';
import { composeTerms } from '../src/compute/jobs/run-terms.ts';
import { boxKeyOf } from '../src/compute/jobs/sealed-box.ts';
import { startTestLeases, until } from '../src/compute/leases/lease-fixture.ts';
import { encodeJobSpec } from '../src/compute/spec/job-spec.ts';
import { parseJob } from '../src/compute/spec/parse-job.ts';
import { approveMeter, depositToRails } from '../src/token/index.ts';

const JOBS = 64;
const TICKS = 100;
const NODE_PROCESS = fileURLToPath(new URL('../src/node/node-process.ts', import.meta.url));
const IDLE_MS = 30_000;
const NODE_INDEX = 2;

const network = await startTestLeases();
const { client, renter } = network;

/** Seconds of processor time of this process, of its children that have ended, and of the chain. */
function cpuSeconds(): number {
  const own = statOf('self');
  const chain = statOf(String(network.chain.pids().anvil));
  return (own.slice(11, 15).reduce((sum, ticks) => sum + ticks, 0) + (chain[11] ?? 0) + (chain[12] ?? 0)) / TICKS;
}

/** The fields of /proc/PID/stat from the third on, as numbers. */
function statOf(pid: string): number[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return text
    .slice(text.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
}

async function measureJobs(): Promise<void> {
  const node = await network.startNode(1);
  const policy = {
    prices: { stable: { cpuSecond: 11n, gibSecond: 2n, job: 100n } },
    collateral: 0n,
    wallSecondsMax: 600,
    spareSeconds: 600,
    takesCommands: true,
    takesCanaries: false,
    jobsMax: 2 * JOBS,
    keepSeconds: 86_400,
  };
  await node.start((context) => startJobProvider({ ...context, policy, pollMs: 200 }));
  const { spec } = parseJob('{job: 1, command: ["true"], limits: {time: 10s, memory: 16MiB, disk: 1MiB, cpus: 0.5, processes: 8}}');
  const [candidate] = await surveyProviders(client, { log: network.log });
  if (candidate === undefined) throw new TypeError('the node offers no jobs');
  const { offer, peer } = candidate;
  const wish = {
    spec,
    offer,
    renter: renter.signer.address,
    token: 'stable' as const,
    price: 1000n,
    lowerable: true,
    auditors: 1,
    samples: 1,
  };
  const key = await boxKeyOf(renter.signer);
  const terms: JobTerms[] = await Promise.all(Array.from({ length: JOBS }, () => composeTerms(client, wish)));
  const cost = terms.reduce((sum, one) => sum + costOf(client, one), 0n);
  await depositToRails(client, { sender: renter.sender, token: 'stable', amount: cost });
  await approveMeter(client, { sender: renter.sender, meter: 'computeJobs', token: 'stable', allowance: cost });
  const [startCpu, startMs] = [cpuSeconds(), performance.now()];
  const jobIds: Hex[] = await Promise.all(
    terms.map(async (one) => {
      const jobId = jobIdOf(jobDomainOf(client), one);
      const signature = await renter.signer.signDigest(jobId);
      const order = { terms: termsToJson(one), signature, spec: encodeJobSpec(spec), renterBox: key.publicKey, handed: [] };
      await sendOrder(peer, orderToJson(order), { boxKey: offer.boxKey });
      return jobId;
    }),
  );
  await until('all jobs are settled', async () =>
    (await Promise.all(jobIds.map((jobId) => phaseOf(client, jobId)))).every(({ phase }) => phase === PHASE.settled),
  );
  const [cpu, seconds] = [cpuSeconds() - startCpu, (performance.now() - startMs) / 1000];
  const paid = await client.events({ name: 'computeJobs', event: 'JobSettled' });
  if (new Set(paid.map(({ args }) => args.jobId)).size !== JOBS || paid.some(({ args }) => args.paid === 0n))
    throw new TypeError('not all were paid');
  print(`${JOBS} jobs through the whole market`, `${(JOBS / cpu).toFixed(2)} per CPU-second, ${seconds.toFixed(1)} s in all`);
  for (const event of ['JobOpened', 'ResultCommitted', 'JobSettled'] as const) await printGas(event);
}

async function printGas(event: 'JobOpened' | 'ResultCommitted' | 'JobSettled'): Promise<void> {
  const seen = await client.events({ name: 'computeJobs', event });
  const hashes = [...new Set(seen.map(({ transactionHash }) => transactionHash))];
  const receipts = await Promise.all(hashes.map((hash) => client.public.getTransactionReceipt({ hash })));
  const gas = receipts.reduce((sum, { gasUsed }) => sum + gasUsed, 0n);
  print(`gas of ${event}`, `${gas / BigInt(seen.length)} a job, ${hashes.length} transactions`);
}

/** A node process of its own, left alone. */
async function measureMemory(roles: string[]): Promise<void> {
  const options = {
    name: 'idle',
    folder: join(network.folder, `idle-${roles.join('-')}`),
    manifestPath: join(network.folder, 'network.json'),
    rpcUrl: client.rpcUrl,
    roles,
    port: 0,
    quotaBytes: '1073741824',
    key: { developmentIndex: 5 + 2 * NODE_INDEX },
    logLevel: 'error',
  };
  const child = spawn(process.execPath, [NODE_PROCESS, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
  const before = statOf(String(child.pid));
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  const after = statOf(String(child.pid));
  const ticks = (after[11] ?? 0) + (after[12] ?? 0) - (before[11] ?? 0) - (before[12] ?? 0);
  print(
    `an idle node: ${roles.join(', ')}`,
    `${Math.round(kib('VmRSS') / 1024)} MiB (peak ${Math.round(kib('VmHWM') / 1024)}), ${ticks / 10} % of a core`,
  );
  child.kill('SIGTERM');
  await new Promise((resolve) => child.once('exit', resolve));
}

function print(label: string, value: string): void {
  process.stdout.write(`${label.padEnd(58)} ${value}\n`);
}

try {
  await measureJobs();
  const idle = await network.startNode(NODE_INDEX);
  await idle.stop();
  await measureMemory(['compute']);
  await measureMemory(['compute', 'auditor', 'juror']);
} finally {
  await network.stop();
}
