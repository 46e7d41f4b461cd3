import { MillraceError } from '../../errors.ts';
import type { JobLimits } from '../../host/index.ts';
import { isCid } from '../spec/deployment-spec.ts';

/** What a renter wants to run on several machines at once: one program, as many processes of it as it asks for, on a network of their own. */
export interface ClusterSpec {
  version: 1;
  /** Image of every process: digest of an archive that the machines have (`sha256:…`), or the CID of one in the storage network. */
  image: string;
  argv: string[];
  /** Beside what every process is told (see `rankEnvironment`). */
  env: Record<string, string>;
  /** How many processes there are in all: the world size. They are numbered by rank, from 0. */
  processes: number;
  /** On how many machines; ranks are spread evenly, in blocks. */
  machines: number;
  /** Of each process. */
  limits: JobLimits;
  /** Most bytes that lie in `/checkpoints` of one machine. */
  checkpointBytesMax: number;
  /** How often all processes are started anew because one failed on a machine that lives. Machines that are lost do not count. */
  restartsMax: number;
}

const TEXT_BYTES_MAX = 64 << 10;
const WORDS_MAX = 1024;
const LIMIT_NAMES: (keyof JobLimits)[] = ['memoryBytes', 'cpus', 'processes', 'diskBytes', 'wallSeconds', 'outputBytes'];
const FIELDS = ['version', 'image', 'argv', 'env', 'processes', 'machines', 'limits', 'checkpointBytesMax', 'restartsMax'];

const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Most machines of one cluster: every one knows every other. */
export const MACHINES_MAX = 128;
/** Most processes of one cluster. */
const PROCESSES_MAX = 4096;

/**
 * Reads the specification of a cluster from untrusted JSON; unknown fields are refused.
 * @throws bad-cluster-spec with the field
 */
export function parseClusterSpec(value: unknown): ClusterSpec {
  const spec = recordOf(value, 'the specification');
  const unknown = Object.keys(spec).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) throw badSpec(unknown.slice(0, 80), 'is no field of a cluster');
  if (spec.version !== 1) throw badSpec('version', 'is not 1');
  if (typeof spec.image !== 'string' || !isClusterImage(spec.image)) throw badSpec('image', 'is neither a digest sha256:… nor a CID');
  const argv = spec.argv;
  if (!Array.isArray(argv) || argv.length === 0 || argv.length > WORDS_MAX || argv.some((word) => typeof word !== 'string')) {
    throw badSpec('argv', `is no list of 1 to ${WORDS_MAX} texts`);
  }
  const env = recordOf(spec.env ?? {}, 'env');
  if (Object.entries(env).some(([name, text]) => typeof text !== 'string' || !/^[A-Za-z_][A-Za-z0-9_]{0,127}$/.test(name))) {
    throw badSpec('env', 'does not give texts to names of variables');
  }
  if (Buffer.byteLength(JSON.stringify([argv, env])) > TEXT_BYTES_MAX)
    throw badSpec('argv', `and env have more than ${TEXT_BYTES_MAX} bytes`);
  const machines = integerOf(spec, 'machines', 1, MACHINES_MAX);
  return {
    version: 1,
    image: spec.image,
    argv: argv as string[],
    env: env as Record<string, string>,
    processes: integerOf(spec, 'processes', machines, PROCESSES_MAX),
    machines,
    limits: limitsOf(spec.limits),
    checkpointBytesMax: integerOf(spec, 'checkpointBytesMax', 0, 2 ** 44),
    restartsMax: integerOf({ restartsMax: 3, ...spec }, 'restartsMax', 0, 1000),
  };
}

/** Whether machines can have an image by this name. */
export function isClusterImage(image: string): boolean {
  return DIGEST.test(image) || isCid(image);
}

/** Most ranks that one machine is given; it has room for so many and takes no list with more. */
export function ranksMaxOf({ processes, machines }: Pick<ClusterSpec, 'processes' | 'machines'>): number {
  return Math.ceil(processes / machines);
}

/** Which ranks run on each of the machines: blocks in order, the first ones longer by one where it does not divide evenly. */
export function spreadRanks(processes: number, machines: number): number[][] {
  const [least, longer] = [Math.floor(processes / machines), processes % machines];
  let next = 0;
  return Array.from({ length: machines }, (_, machine) =>
    Array.from({ length: least + (machine < longer ? 1 : 0) }, () => {
      next += 1;
      return next - 1;
    }),
  );
}

function limitsOf(value: unknown): JobLimits {
  const limits = recordOf(value, 'limits');
  for (const name of LIMIT_NAMES) {
    if (typeof limits[name] !== 'number' || !Number.isFinite(limits[name])) throw badSpec(`limits.${name}`, 'is no number');
  }
  return Object.fromEntries(LIMIT_NAMES.map((name) => [name, limits[name]])) as unknown as JobLimits;
}

function recordOf(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badSpec(name, 'is no object');
  return value as Record<string, unknown>;
}

function integerOf(from: Record<string, unknown>, name: string, least: number, greatest: number): number {
  const value = from[name];
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least && value <= greatest) return value;
  throw badSpec(name, `is ${JSON.stringify(value)?.slice(0, 40)}, allowed are whole numbers from ${least} to ${greatest}`);
}

function badSpec(field: string, reason: string): MillraceError {
  return new MillraceError('bad-cluster-spec', {
    actor: 'caller',
    message: `The specification of the cluster cannot be used: ${field} ${reason}`,
    values: { field },
    hint: 'millrace cluster up --help shows a whole specification.',
  });
}
