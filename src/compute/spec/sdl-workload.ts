import { type ExposedPort, readImage, readPortNumber, type Workload, type WorkloadPlaces } from './deployment-spec.ts';
import type { Field } from './field.ts';
import { checkName, LIST_MAX, readArguments } from './job-spec.ts';
import type { Mount } from './sdl-resources.ts';

/** `services.<name>` of an SDL. */
export interface SdlWorkload {
  field: Field;
  workload: Workload;
  mounts: Mount[];
  places: WorkloadPlaces;
  /** Names of `endpoints` that it wants. */
  addresses: { name: string; field: Field }[];
}

/** What a service is read with. */
export interface SdlContext {
  name: string;
  /** All services. */
  names: readonly string[];
  version: '2.0' | '2.1';
}

const FIELDS = ['image', 'command', 'args', 'env', 'expose', 'dependencies', 'depends-on', 'params', 'credentials'];
const HTTP_CASES = ['error', 'timeout', '500', '502', '503', '504', '403', '404', '429', 'off'] as const;
const HTTP_NUMBERS: Readonly<Record<string, number>> = {
  max_body_size: 104_857_600,
  read_timeout: 60_000,
  send_timeout: 60_000,
  next_tries: 2 ** 32 - 1,
  next_timeout: 2 ** 32 - 1,
  proxy_buffer_size: 1_048_576,
};

/** Reads `services.<name>`. */
export function readWorkload(field: Field, context: SdlContext): SdlWorkload {
  const fields = field.fields(FIELDS);
  const addresses: SdlWorkload['addresses'] = [];
  if (fields.credentials !== undefined) refuseCredentials(fields.credentials);
  const { storage, tee, permissions } = fields.params?.fields(['storage', 'tee', 'permissions']) ?? {};
  if (permissions !== undefined) {
    throw permissions.unsupported(
      'a workload cannot read its own lease’s records',
      'Leave it out; the renter reads logs with millrace logs.',
    );
  }
  const eachPort = fields.expose?.list(LIST_MAX) ?? [];
  const workload: Workload = {
    name: context.name,
    image: readImage(field.required(fields, 'image')),
    command: fields.command === undefined ? [] : readArguments(fields.command),
    args: fields.args === undefined ? [] : readArguments(fields.args),
    env: fields.env === undefined ? {} : readEnvironmentList(fields.env),
    ports: eachPort.map((each) => readExpose(each, context, addresses)),
    startsAfter: readDependencies(fields, context),
    ...(tee === undefined ? {} : { enclave: readEnclave(tee, context) }),
  };
  const { image, command, args, expose: ports } = fields;
  const places = { whole: field, image, command, args, ports, eachPort, volumes: storage };
  return { field, workload, mounts: storage?.entries().map(readMount) ?? [], places, addresses };
}

/**
 * Refuses endpoints that are wrong, unknown or not used, and, where all is right, says that there are none here.
 * @throws bad-spec, spec-unsupported
 */
export function checkEndpoints(field: Field | undefined, workloads: readonly SdlWorkload[]): void {
  const declared = new Map(field?.entries() ?? []);
  for (const [name, each] of declared) {
    if (!/^[a-z]+[-_0-9a-z]+$/.test(name)) throw each.refuse('the name of an endpoint has a-z first, then also 0-9, - and _, two at least');
    each.required(each.fields(['kind']), 'kind').oneOf(['ip']);
  }
  const wanted = workloads.flatMap(({ addresses }) => addresses);
  for (const { name, field: at } of wanted)
    if (!declared.has(name)) throw at.refuse(`there is no endpoint ${JSON.stringify(name)} under endpoints`);
  for (const [name, each] of declared) {
    if (!wanted.some((address) => address.name === name)) throw each.refuse('the endpoint is declared but never used');
  }
  const first = wanted[0];
  if (first !== undefined) {
    throw first.field.unsupported(
      'devices are not rented with addresses of their own',
      'Reach the workload with millrace forward, or through the mesh of its cluster.',
    );
  }
}

function refuseCredentials(field: Field): never {
  const fields = field.fields(['host', 'email', 'username', 'password']);
  for (const name of ['host', 'username', 'password']) field.required(fields, name).matching(/\S/, 'a text', 4096);
  throw field.unsupported('no node logs in at a registry', 'Put the image into the storage network and name it by its CID.');
}

/** `KEY=value`. */
function readEnvironmentList(field: Field): Record<string, string> {
  const pairs = field.list(LIST_MAX).map((each): [string, string] => {
    const text = each.text(32 << 10);
    const at = text.indexOf('=');
    if (at < 1) throw each.refuse('due is NAME=value');
    return [checkName(text.slice(0, at), each), text.slice(at + 1)];
  });
  return Object.fromEntries(pairs);
}

function readDependencies(fields: Partial<Record<string, Field>>, { names }: SdlContext): string[] {
  const listed = [
    ...(fields['depends-on']?.list(LIST_MAX) ?? []),
    ...(fields.dependencies?.list(LIST_MAX).map((each) => each.required(each.fields(['service']), 'service')) ?? []),
  ];
  return [...new Set(listed.map((each) => knownName(each, names)))].sort();
}

function knownName(field: Field, names: readonly string[]): string {
  const name = field.text(64);
  if (!names.includes(name)) throw field.refuse(`there is no service ${JSON.stringify(name)}`);
  return name;
}

function readEnclave(field: Field, { version }: SdlContext): 'cpu' | 'cpu-gpu' {
  if (version === '2.0') throw field.refuse('tee belongs to version "2.1"');
  return field.oneOf(['cpu', 'cpu-gpu']);
}

function readMount([volume, field]: [string, Field]): Mount {
  const { mount, readOnly } = field.fields(['mount', 'readOnly']);
  const path = field
    .required({ mount }, 'mount')
    .matching(/^\/(?!.*(?:^|\/)\.\.?(?:\/|$))[^\p{Cc}]{0,254}$/u, 'an absolute path without . and ..');
  return { field, volume, path, isReadOnly: readOnly?.boolean() ?? false };
}

function readExpose(field: Field, context: SdlContext, addresses: SdlWorkload['addresses']): ExposedPort {
  const { port, as, proto, to, accept, http_options: options } = field.fields(['port', 'as', 'proto', 'to', 'accept', 'http_options']);
  const number = readPortNumber(field.required({ port }, 'port'));
  const targets = to?.list(LIST_MAX).map((each) => readTarget(each, context, addresses)) ?? [];
  if (options !== undefined) checkHttpOptions(options);
  if (accept !== undefined && accept.list(LIST_MAX).map((each) => each.text(253)).length > 0) {
    accept.warn('there is no entry by host name here; it is left out');
  }
  const isOpen = targets.some((target) => target.isGlobal);
  if (isOpen)
    field.warn('global means reached by the renter (millrace forward; in a cluster its mesh); there is no entry from the public internet');
  return {
    port: number,
    as: as === undefined ? number : readPortNumber(as),
    protocol: (proto?.matching(/^(?:tcp|udp)$/i, 'tcp or udp').toLowerCase() ?? 'tcp') as 'tcp' | 'udp',
    isOpen,
    workloads: [...new Set(targets.flatMap((target) => target.workload ?? []))].sort(),
  };
}

function readTarget(
  field: Field,
  { names }: SdlContext,
  addresses: SdlWorkload['addresses'],
): { isGlobal: boolean; workload: string | undefined } {
  const { global, service: workload, ip } = field.fields(['global', 'service', 'ip']);
  const isGlobal = global?.boolean() ?? false;
  if (ip !== undefined && !isGlobal) throw ip.refuse('an ip belongs to global: true');
  if (ip !== undefined) addresses.push({ name: ip.text(64), field: ip });
  if (!isGlobal && workload === undefined) throw field.refuse('due is global: true or service');
  return { isGlobal, workload: workload === undefined ? undefined : knownName(workload, names) };
}

function checkHttpOptions(field: Field): void {
  const { next_cases: cases, ...numbers } = field.fields(['next_cases', ...Object.keys(HTTP_NUMBERS)]);
  for (const [name, each] of Object.entries(numbers)) each?.integer({ least: 0, greatest: HTTP_NUMBERS[name] as number });
  const words = cases?.list(HTTP_CASES.length).map((each) => each.oneOf(HTTP_CASES)) ?? [];
  if (words.includes('off') && words.length > 1) throw (cases as Field).refuse('off stands alone');
  field.warn('there is no proxy in front of a workload here; it is left out');
}
