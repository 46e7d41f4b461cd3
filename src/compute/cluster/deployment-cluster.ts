import type { DeploymentUnit, SpecPlaces, Workload, WorkloadPlaces } from '../spec/deployment-spec.ts';
import type { PriceMax } from '../spec/needs.ts';
import type { ParsedDeployment } from '../spec/parse-deployment.ts';
import { type ClusterSpec, isClusterImage } from './cluster-spec.ts';

/** A deployment as one cluster: what runs, and what the document says of the machines. */
export interface DeploymentCluster {
  spec: ClusterSpec;
  /** Of the market; undefined: the document does not say it. */
  deviceClass: string | undefined;
  priceMax: PriceMax | undefined;
  seconds: number | undefined;
}

const PROCESSES_MAX = 512;
const OUTPUT_BYTES_MAX = 16 << 20;
const RESTARTS_MAX = 3;
const DAY = 86_400;
/** A timer holds less than 25 days. */
const LONGEST_SECONDS = 24 * DAY;

/**
 * The cluster that a deployment of one workload means: `count` machines of different owners with one process each, joined by a mesh. A quarter of the
 * device's memory is for checkpoints. What a cluster cannot do is refused where the document says it.
 * @throws spec-unsupported with field, line and column
 */
export function clusterOfDeployment({ spec, places }: Pick<ParsedDeployment, 'spec' | 'places'>): DeploymentCluster {
  const [workload, second] = spec.workloads;
  const [unit, another] = spec.groups.flatMap(({ units }) => units);
  const place = (named: Workload | undefined) => places.get(named?.name ?? '') as WorkloadPlaces;
  if (workload === undefined || unit === undefined || second !== undefined || another !== undefined) {
    throw place(second ?? workload).whole.unsupported(
      'a cluster runs one program on machines of one kind',
      'Make a cluster of each, or rent them as machines that know nothing of one another: millrace rent FILE.',
    );
  }
  checkRunnable(workload, unit, places);
  if (spec.isInterruptible) {
    throw place(workload).whole.unsupported(
      'the machines of a cluster are leased firmly, and lost ones replaced',
      'Leave interruptible (reclamation) out.',
    );
  }
  const { needs, count } = unit;
  const checkpointBytesMax = Math.floor(needs.memoryBytes / 4);
  const limits = {
    memoryBytes: needs.memoryBytes - checkpointBytesMax,
    cpus: needs.milliCpus / 1000,
    processes: PROCESSES_MAX,
    diskBytes: needs.diskBytes,
    wallSeconds: Math.min(LONGEST_SECONDS, spec.seconds ?? LONGEST_SECONDS),
    outputBytes: OUTPUT_BYTES_MAX,
  };
  const { image, command, args, env } = workload;
  return {
    spec: {
      version: 1,
      image,
      argv: [...command, ...args],
      env,
      processes: count,
      machines: count,
      limits,
      checkpointBytesMax,
      restartsMax: RESTARTS_MAX,
    },
    deviceClass: needs.deviceClass,
    priceMax: unit.priceMax,
    seconds: spec.seconds,
  };
}

function checkRunnable(workload: Workload, unit: DeploymentUnit, places: SpecPlaces): void {
  const { whole, image = whole, ports = whole, volumes = whole, args = image } = places.get(workload.name) as WorkloadPlaces;
  if (!isClusterImage(workload.image)) {
    throw image.unsupported(
      workload.image === '' ? 'the machines of a cluster run an image, not their own software' : 'no machine pulls from a registry',
      'Make an archive (docker export CONTAINER > image.tar), put it in (millrace put --public image.tar), and name it by its CID; sha256:… is for archives that the machines have.',
    );
  }
  if (workload.command.length === 0) {
    throw args.unsupported(
      'an image here is an archive of files, without an entry point of its own',
      'Say the command: the program with its path, and its arguments.',
    );
  }
  if (workload.ports.some(({ port, as }) => port !== as)) {
    throw ports.unsupported('in a mesh a process is reached at the port on which it listens', 'Leave as out, or give it the same port.');
  }
  if (unit.volumes.length > 0) {
    throw volumes.unsupported(
      'a cluster has no volumes but /checkpoints',
      'Leave them out, and keep what is to outlive a machine in /checkpoints.',
    );
  }
  const { gpus, regions, attributes } = unit.needs;
  if (gpus > 0 || regions.length > 0 || Object.keys(attributes).length > 0) {
    throw whole.unsupported(
      'the machines of a cluster are found by their class and price alone; it wants GPUs, regions or attributes besides',
      'Leave them out, and name a class whose machines have what is wanted (millrace offers).',
    );
  }
}
