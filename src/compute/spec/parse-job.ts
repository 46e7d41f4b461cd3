import { Field } from './field.ts';
import {
  CANONICALISERS,
  checkSpec,
  DETERMINISM_CLASSES,
  JOB_FORMAT,
  type JobInput,
  type JobSpec,
  LIMIT_BOUNDS,
  LIST_MAX,
  type ProgramKind,
  readArguments,
  readEnvironment,
  readPath,
  readSeed,
  readSource,
  runtimeOf,
  SEGMENTS_MAX,
  type SpecLimits,
  sortSpec,
  THRESHOLD_PPM_MAX,
} from './job-spec.ts';
import { COUNT_MAX, type DeviceNeeds, type PriceMax, readNeeds, readPrice } from './needs.ts';
import { readCpuMillis, readDuration, readSize } from './quantity.ts';

/** What somebody wants to have done: the work, the devices that would do, and the conditions. */
export interface JobRequest {
  name: string;
  spec: JobSpec;
  needs: DeviceNeeds;
  /** The most that one run may cost; left out: the caller must say it. */
  priceMax?: PriceMax;
  /** Seconds from the order until a run must have ended; left out: the network's own. */
  deadlineSeconds?: number;
  /** How many runs, each a job of its own with seed, seed + 1, … */
  count: number;
  /** Segments that auditors replay of each job; left out: the network's own. */
  auditedSegments?: number;
  /** Whether the job may run as `reputation only` where the jury has too few jurors for its class. */
  acceptsLowerClass: boolean;
}

/** The fields of a job, in the order of docs/job-format.md. */
const JOB_FIELDS = [
  'job',
  'name',
  'module',
  'image',
  'command',
  'args',
  'env',
  'inputs',
  'outputs',
  'seed',
  'runtime',
  'limits',
  'check',
  'price',
  'deadline',
  'count',
  'device',
  'regions',
];
const DEADLINE_SECONDS_MAX = 366 * 86_400;
const DEFAULT_CLASSES = { module: 'wasm-strict', image: 'exact-output', command: 'none' } as const;
const DEFAULT_LIMITS: SpecLimits = {
  memoryBytes: 256 << 20,
  milliCpus: 1000,
  processes: 64,
  diskBytes: 64 << 20,
  wallSeconds: 600,
  outputBytes: 1 << 20,
};

/**
 * A job in our own YAML (docs/job-format.md).
 * @throws bad-spec with field, line and column
 */
export function parseJob(text: string): JobRequest {
  return readJob(Field.read(text));
}

/** As {@link parseJob}, of a document that was read. */
export function readJob(root: Field): JobRequest {
  const fields = root.fields(JOB_FIELDS);
  root.required(fields, 'job').integer({ least: 1, greatest: 1 });
  const check = readCheck(fields.check);
  const { program, argv } = readProgram(root, fields);
  const determinism = check.determinism ?? DEFAULT_CLASSES[program.kind];
  const spec: JobSpec = {
    format: JOB_FORMAT,
    runtime: fields.runtime?.text(64) ?? runtimeOf(program.kind, determinism),
    program,
    argv,
    env: fields.env === undefined ? {} : readEnvironment(fields.env),
    inputs: fields.inputs === undefined ? [] : readInputs(fields.inputs),
    outputs: fields.outputs?.list(LIST_MAX).map(readPath) ?? [],
    seed: fields.seed === undefined ? '0' : readSeed(fields.seed),
    limits: readLimits(fields.limits),
    determinism,
    segments: check.segments,
    canonicaliser: check.canonicaliser,
    thresholdPpm: check.thresholdPpm,
  };
  checkSpec(spec, fields.check ?? root);
  const { name, price, deadline } = fields;
  return {
    name: name?.matching(/^[^\p{Cc}]{1,100}$/u, 'at most 100 characters') ?? 'job',
    spec: sortSpec(spec),
    needs: readNeeds(fields, spec.limits),
    ...(price === undefined ? {} : { priceMax: readPrice(price) }),
    ...(deadline === undefined ? {} : { deadlineSeconds: readDuration(deadline, DEADLINE_SECONDS_MAX) }),
    count: fields.count?.integer({ least: 1, greatest: COUNT_MAX }) ?? 1,
    ...(check.auditedSegments === undefined ? {} : { auditedSegments: check.auditedSegments }),
    acceptsLowerClass: check.acceptsLowerClass,
  };
}

/** What runs, of `module`, `image` and `command`; shared by jobs and deployments. */
export function readProgram(root: Field, fields: Partial<Record<string, Field>>): Pick<JobSpec, 'program' | 'argv'> {
  const { module, image, command } = fields;
  const words = command === undefined ? [] : command.isList ? readArguments(command) : [command.text()];
  const args = fields.args === undefined ? [] : readArguments(fields.args);
  if (module !== undefined && image !== undefined) throw image.refuse('a job has a module or an image, not both');
  if (module !== undefined && command !== undefined) throw command.refuse('a module has no command; its arguments are args');
  if (image !== undefined && words.length === 0) throw image.refuse('an image needs a command: it has none of its own');
  if (module === undefined && words.length === 0) throw root.refuse('it names nothing to run: module, image or command is due');
  const kind: ProgramKind = module !== undefined ? 'module' : image !== undefined ? 'image' : 'command';
  const content = module ?? image;
  const source = content === undefined ? '' : readSource(content);
  return { program: { kind, source }, argv: [...(kind === 'module' ? ['module'] : words), ...args] };
}

function readInputs(field: Field): JobInput[] {
  const entries = field.entries();
  if (entries.length > LIST_MAX) throw field.refuse(`it has ${entries.length} inputs; at most ${LIST_MAX} are taken`);
  return entries.map(([path, cid]) => ({ path: checkedPath(path, cid), cid: readSource(cid) }));
}

function checkedPath(path: string, field: Field): string {
  if (/^(?!.*(?:^|\/)\.{0,2}(?:\/|$))[^\p{Cc}\\]{1,255}$/u.test(path)) return path;
  throw field.refuse('an input stands under a relative path without . and ..');
}

function readLimits(field: Field | undefined): SpecLimits {
  if (field === undefined) return DEFAULT_LIMITS;
  const { memory, cpus, processes, disk, time, output } = field.fields(['memory', 'cpus', 'processes', 'disk', 'time', 'output']);
  const within = (name: keyof SpecLimits, source: Field | undefined, read: (field: Field) => number): number => {
    if (source === undefined) return DEFAULT_LIMITS[name];
    const value = read(source);
    const { least, greatest } = LIMIT_BOUNDS[name];
    if (value < least || value > greatest) throw source.refuse(`it means ${value}; due is from ${least} to ${greatest}`);
    return value;
  };
  return {
    memoryBytes: within('memoryBytes', memory, readSize),
    milliCpus: within('milliCpus', cpus, readCpuMillis),
    processes: within('processes', processes, (each) => each.integer(LIMIT_BOUNDS.processes)),
    diskBytes: within('diskBytes', disk, readSize),
    wallSeconds: within('wallSeconds', time, (each) => readDuration(each, LIMIT_BOUNDS.wallSeconds.greatest)),
    outputBytes: within('outputBytes', output, readSize),
  };
}

interface Check extends Pick<JobSpec, 'segments' | 'canonicaliser' | 'thresholdPpm'> {
  determinism: JobSpec['determinism'] | undefined;
  auditedSegments: number | undefined;
  acceptsLowerClass: boolean;
}

function readCheck(field: Field | undefined): Check {
  const fields = field?.fields(['class', 'segments', 'audited', 'canonical', 'threshold', 'lower']) ?? {};
  const segments = fields.segments?.integer({ least: 1, greatest: SEGMENTS_MAX }) ?? 1;
  return {
    determinism: fields.class?.oneOf(DETERMINISM_CLASSES),
    segments,
    canonicaliser: fields.canonical?.oneOf(CANONICALISERS) ?? 'bytes',
    thresholdPpm: fields.threshold?.integer({ least: 1, greatest: THRESHOLD_PPM_MAX }) ?? 0,
    auditedSegments: fields.audited?.integer({ least: 1, greatest: segments }),
    acceptsLowerClass: fields.lower?.boolean() ?? false,
  };
}
