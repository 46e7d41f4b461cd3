import { join } from 'node:path';
import type { ComputeContext, ComputePart, LeaseHost } from '../compute/index.ts';
import { toMillraceError } from '../errors.ts';
import type { Executor } from '../host/index.ts';
import { chosenEngine, dockerOptions, holdsRentals, openEngines } from './compute-engines.ts';
import { type ComputeSettings, computeSettings, jobPolicyOf, leaseTermsOf, resourcesOf, wholeOf } from './compute-settings.ts';
import { contentPort } from './content-port.ts';
import type { Role, RoleContext } from './role.ts';

/** What the compute roles are given besides their context. */
export type ComputeStart = RoleContext & {
  /** The network's folder on this machine: images are kept once for all its nodes. */
  dataFolder: string;
  compute?: ComputeSettings;
};

const NODES_MAX = 64;

/**
 * Starts the role that computes: devices on offer, jobs, health, panels of probers, and clusters where a host name is set; all on one count of what
 * the machine has. Devices come first: what they are promised, jobs do not get.
 * @throws bad-compute-setting, and what its parts throw
 */
export async function startComputeRole(context: ComputeStart): Promise<Role> {
  const compute = await import('../compute/index.ts');
  const { dataFolder, compute: settings, log } = context;
  const nodesHere = wholeOf('computeNodesHere', settings, NODES_MAX);
  const measured = await compute.measureResources({ folder: dataFolder, nodesHere });
  const executors = await openComputeEngines(context);
  const shared: Omit<ComputeContext, 'folder'> = {
    ...context,
    capacity: compute.createCapacity(resourcesOf(measured, settings)),
    executors,
    fetchContent: contentPort(context.client),
  };
  const parts = new Map<string, ComputePart>();
  // Those of clusters among them: whoever speaks with Docker rules the machine, so nothing else is run by it.
  const engines = [...executors];
  const stopAll = async () => {
    for (const part of [...parts.values()].reverse()) await part.stop();
    for (const engine of engines) await engine.close();
  };
  const begin = async <Part extends ComputePart>(name: string, start: (own: ComputeContext) => Promise<Part>): Promise<Part> => {
    const part = await start({ ...shared, folder: join(context.folder, name) });
    parts.set(name, part);
    return part;
  };
  const terms = leaseTermsOf(settings);
  const { clusterHost: publicHost } = computeSettings(settings);
  let leases: LeaseHost | undefined;
  try {
    if (terms !== undefined) {
      const attributes = compute.keptAttributes(dataFolder);
      const place = await openRentalPlace(context, executors[0] as Executor);
      const offered = place === undefined ? [] : compute.defaultDevices(shared.capacity.total, terms);
      const devices = offered.map((device) => ({ ...device, ...place, attributes }));
      leases = await begin('leases', (own) => compute.startLeaseHost(own, { devices }));
      await begin('health', (own) => compute.startHealth(own));
      await begin('prober', (own) => compute.startLeaseProber(own));
    }
    await begin('jobs', (own) => compute.startJobProvider({ ...own, policy: jobPolicyOf(settings) }));
    if (publicHost !== '') {
      const cluster = { publicHost, imageFolder: join(dataFolder, 'images'), leases };
      const { openDockerExecutor } = await import('../host/index.ts');
      const docker = await openDockerExecutor(dockerOptions(settings));
      engines.push(docker);
      await begin('cluster', (own) => compute.startClusterPart({ ...own, executors: [docker] }, cluster)).catch((error) => {
        const { code, message, hint } = toMillraceError(error);
        log.warn('clusters-not-served', { code, reason: message, fix: hint });
      });
    }
  } catch (error) {
    await stopAll();
    throw error;
  }
  return roleOf('compute', parts, stopAll);
}

/** In what rentals begin: the owner's image, else this machine's software. Undefined: nothing here holds rentals, and the log says why. */
async function openRentalPlace({ compute, log }: ComputeStart, executor: Executor): Promise<{ image?: string } | undefined> {
  const { leaseImage } = computeSettings(compute);
  const engine = chosenEngine(compute);
  if (!holdsRentals(compute)) {
    const fix = engine === 'docker' ? 'set leaseImage to an archive of a root file system (docker export)' : 'set leases to no';
    log.warn('rentals-not-offered', { engine, reason: 'rentals need bubblewrap, or docker with an image', fix });
    return undefined;
  }
  try {
    return leaseImage === '' ? {} : { image: await executor.importImage(leaseImage) };
  } catch (error) {
    log.error('rentals-not-offered', {
      engine,
      reason: toMillraceError(error).message,
      fix: 'mend leaseImage or the engine, then start the node again',
    });
    return undefined;
  }
}

/** A role whose parts answer, count and end together. */
export function roleOf(name: string, parts: ReadonlyMap<string, ComputePart>, stop: () => Promise<void>): Role {
  const all = [...parts.values()];
  const each = async (ask: (part: ComputePart) => Promise<Record<string, unknown>>) =>
    Object.fromEntries(await Promise.all([...parts].map(async ([part, one]) => [part, await ask(one)] as const)));
  return {
    name,
    fetch(request) {
      for (const part of all) {
        const answer = part.fetch(request);
        if (answer !== undefined) return answer;
      }
      return undefined;
    },
    metrics: async () => (await Promise.all(all.map((part) => part.metrics()))).join(''),
    status: () => each((part) => part.status()),
    drain: () => all.forEach((part) => void part.drain()),
    resume: () => all.forEach((part) => void part.resume()),
    leave: () => each((part) => part.leave()),
    stop,
  };
}

/** The default engine first. One that cannot be opened is logged with its remedy; its kinds of jobs are not on offer. */
export async function openComputeEngines({
  dataFolder,
  compute,
  log,
}: Pick<ComputeStart, 'dataFolder' | 'compute' | 'log'>): Promise<Executor[]> {
  const engines = await openEngines(compute, dataFolder);
  for (const engine of engines) {
    const report = await engine.inspect().catch((error) => {
      log.warn('engine-not-opened', { engine: engine.engine, reason: toMillraceError(error).message });
    });
    if (report?.takesForeign === false) log.warn('engine-limited', { engine: report.engine, fix: report.missing[0]?.fix });
  }
  return engines;
}
