import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createCapacity } from '../../src/compute/capacity.ts';
import { type CanaryReport, runCanaries } from '../../src/compute/jobs/canary-agent.ts';
import { PHASE } from '../../src/compute/jobs/job-chain.ts';
import { type JobProvider, startJobProvider } from '../../src/compute/jobs/job-provider.ts';
import { MillraceError } from '../../src/errors.ts';
import type { CheatJob, CheatNetwork } from './compute-cheats-network.ts';
import { playAuditor } from './compute-cheats-players.ts';
import { MODULE, wordCountSpec } from './compute-cheats-specs.ts';

const POLICY = {
  prices: { stable: { cpuSecond: 11n, gibSecond: 2n, job: 1000n } },
  collateral: 2n * 10n ** 18n,
  wallSecondsMax: 60,
  spareSeconds: 500,
  takesCommands: false,
  takesCanaries: true,
  jobsMax: 16,
  keepSeconds: 86_400,
};
const NEEDS = { milliCpus: 100, memoryBytes: 4 << 20, diskBytes: 1 << 20, gpus: 0, gpuModels: [], regions: [], attributes: {} };
const PATIENCE_MS = 240_000;

/** An operator with the product's own provider of jobs, which plays along with canaries and works by itself, in real time. */
export async function startCanaryProvider(network: CheatNetwork): Promise<JobProvider> {
  const operator = await network.addOperator();
  const { client, log, wasm } = network;
  const { signer, sender, operatorId, folder } = operator;
  const given = { client, signer, sender, operatorId, folder, log, executors: [wasm], pollMs: 100, policy: POLICY };
  const capacity = createCapacity({ cpus: 2, memoryBytes: 1 << 30, diskBytes: 1 << 30, processes: 64 });
  const fetchContent = () => Promise.reject(new RangeError('all contents are handed over'));
  const provider = await startJobProvider({ ...given, capacity, fetchContent });
  operator.fetch = (request) => provider.fetch(request) ?? new Response(null, { status: 404 });
  return provider;
}

/** Runs the product's agent of canaries until it ends; everybody else works meanwhile, and the chain's time waits for who works in real time. */
export async function makeCanaries(network: CheatNetwork, limits: { budget: bigint; countMax: number }): Promise<CanaryReport> {
  const { client, renter } = network;
  const text = 'the mill and the race\n';
  const spec = wordCountSpec(text, 2);
  const folder = join(network.folder, 'canaries');
  mkdirSync(folder, { recursive: true });
  const [program, input] = [spec.program.source, spec.inputs[0]?.cid as string];
  const files = { [program]: join(folder, 'module'), [input]: join(folder, 'text') };
  writeFileSync(files[program] as string, MODULE);
  writeFileSync(files[input] as string, text);
  const sending: Parameters<typeof runCanaries>[0]['sending'] = (use) => use(renter.sender);
  const base = { client, signer: renter.signer, sending, folder, name: 'canary', spec, needs: NEEDS, files, token: 'stable' as const };
  let isOver = false;
  const making = runCanaries({ ...base, lowerable: false, auditors: 2, samples: 1, meanSeconds: 0.01, ...limits }).finally(() => {
    isOver = true;
  });
  making.catch(() => {});
  const known = new Set((await client.events({ name: 'computeJobs', event: 'JobOpened' })).map(({ args }) => args.jobId));
  const also = async () => {
    for (const { args } of await client.events({ name: 'computeJobs', event: 'JobOpened' })) {
      const { jobId, terms } = args;
      if (known.has(jobId)) continue;
      for (const watcher of network.watchers) {
        const { play } = watcher;
        if (play !== 'honest') await playAuditor(network, watcher, { job: { jobId, terms: { ...terms } } as CheatJob, play });
      }
      await until(async () => {
        const [phase] = await client.read('computeJobs', 'phaseOf', [jobId]);
        const { canary } = await client.read('computeJobs', 'job', [jobId]);
        return isOver || !(phase === PHASE.running || (phase === PHASE.window && !canary));
      });
    }
  };
  await network.work(async () => isOver, { also });
  return await making;
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (const deadline = performance.now() + PATIENCE_MS; !(await isSo()); ) {
    if (performance.now() > deadline) throw new MillraceError('test-timeout', { actor: 'host', message: 'It did not come to that' });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
