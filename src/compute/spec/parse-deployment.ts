import { DEPLOYMENT_FORMAT, type DeploymentSpec, type ExposedPort, readImage, readPortNumber, type SpecPlaces } from './deployment-spec.ts';
import { Field, type SpecWarning } from './field.ts';
import { LIST_MAX, readArguments, readEnvironment } from './job-spec.ts';
import { COUNT_MAX, readLabel, readNeeds, readPrice } from './needs.ts';
import { type JobRequest, readJob } from './parse-job.ts';
import { readDuration } from './quantity.ts';
import { readSdl } from './sdl.ts';

/** A deployment that was read, and what in the document means less here than it may seem. */
export interface ParsedDeployment {
  spec: DeploymentSpec;
  warnings: readonly SpecWarning[];
  places: SpecPlaces;
}

/** A document of either kind. */
export type ParsedSpec = ({ kind: 'job' } & JobRequest) | ({ kind: 'deployment' } & ParsedDeployment);

const DEPLOYMENT_FIELDS = [
  'deployment',
  'name',
  'image',
  'command',
  'args',
  'env',
  'ports',
  'price',
  'time',
  'count',
  'device',
  'regions',
  'interruptible',
  'notice',
];
const LEASE_SECONDS_MAX = 366 * 86_400;
const NOTICE_SECONDS_MAX = 30 * 86_400;

/**
 * Reads a job or a deployment, whichever the document says it is: `job: 1` or `deployment: 1` (docs/job-format.md), or an Akash SDL
 * (`version: "2.0"` or `"2.1"`).
 * @throws bad-spec, spec-unsupported with field, line and column
 */
export function parseSpec(text: string): ParsedSpec {
  const root = Field.read(text);
  const keys = root.entries().map(([key]) => key);
  if (keys.includes('job')) return { kind: 'job', ...readJob(root) };
  return { kind: 'deployment', ...readDeployment(root, keys) };
}

/**
 * Reads a deployment, in our own YAML or an Akash SDL.
 * @throws bad-spec, spec-unsupported with field, line and column
 */
export function parseDeployment(text: string): ParsedDeployment {
  const root = Field.read(text);
  return readDeployment(
    root,
    root.entries().map(([key]) => key),
  );
}

function readDeployment(root: Field, keys: readonly string[]): ParsedDeployment {
  const isOurs = keys.includes('deployment') && !keys.includes('version') && !keys.includes('services');
  if (!isOurs && !keys.some((key) => ['version', 'services', 'profiles'].includes(key))) {
    throw root.refuse('it is no specification: its first line is job: 1, deployment: 1 or version: "2.0"');
  }
  const read = isOurs ? readOwn(root) : readSdl(root);
  return { ...read, warnings: [...root.warnings].sort((one, other) => one.line - other.line || one.column - other.column) };
}

function readOwn(root: Field): { spec: DeploymentSpec; places: SpecPlaces } {
  const fields = root.fields(DEPLOYMENT_FIELDS);
  root.required(fields, 'deployment').integer({ least: 1, greatest: 1 });
  const name = fields.name === undefined ? 'main' : readLabel(fields.name);
  const { image, command, args, ports, price, time } = fields;
  if (image === undefined && command === undefined) throw root.refuse('it names nothing to run: image or command is due');
  const eachPort = ports?.list(LIST_MAX) ?? [];
  const count = fields.count?.integer({ least: 1, greatest: COUNT_MAX }) ?? 1;
  const needs = readNeeds(fields, { milliCpus: 100, memoryBytes: 64 << 20, diskBytes: 64 << 20 });
  const spec: DeploymentSpec = {
    format: DEPLOYMENT_FORMAT,
    workloads: [
      {
        name,
        image: image === undefined ? '' : readImage(image),
        command: command === undefined ? [] : readArguments(command),
        args: args === undefined ? [] : readArguments(args),
        env: fields.env === undefined ? {} : readEnvironment(fields.env),
        ports: eachPort.map(readPort),
        startsAfter: [],
      },
    ],
    groups: [
      { name, units: [{ workload: name, count, needs, volumes: [], ...(price === undefined ? {} : { priceMax: readPrice(price) }) }] },
    ],
    ...(time === undefined ? {} : { seconds: readDuration(time, LEASE_SECONDS_MAX) }),
    isInterruptible: fields.interruptible?.boolean() ?? false,
    noticeSeconds: fields.notice === undefined ? 0 : readDuration(fields.notice, NOTICE_SECONDS_MAX),
  };
  return { spec, places: new Map([[name, { whole: root, image, command, args, ports, eachPort }]]) };
}

function readPort(field: Field): ExposedPort {
  if (!field.isMap) return { port: readPortNumber(field), as: readPortNumber(field), protocol: 'tcp', isOpen: true, workloads: [] };
  const { port, as, protocol } = field.fields(['port', 'as', 'protocol']);
  if (port === undefined) throw field.refuse('port is missing');
  return {
    port: readPortNumber(port),
    as: readPortNumber(as ?? port),
    protocol: protocol?.oneOf(['tcp', 'udp']) ?? 'tcp',
    isOpen: true,
    workloads: [],
  };
}
