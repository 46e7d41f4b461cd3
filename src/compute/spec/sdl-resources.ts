import type { Volume } from './deployment-spec.ts';
import type { Field } from './field.ts';
import { GPUS_MAX, type GpuModel } from './needs.ts';
import { readCpuMillis, readSize } from './quantity.ts';

/** `profiles.compute.<name>` of an SDL. */
export interface ComputeProfile {
  milliCpus: number;
  /** With what lies in volumes of memory. */
  memoryBytes: number;
  diskBytes: number;
  gpus: number;
  gpuModels: GpuModel[];
  architecture: 'amd64' | 'arm64' | undefined;
  storage: Storage[];
}

interface Storage {
  field: Field;
  name: string;
  sizeBytes: number;
  isPersistent: boolean;
  isMemory: boolean;
}

/** Where a workload wants a volume: `services.<name>.params.storage.<volume>`. */
export interface Mount {
  field: Field;
  volume: string;
  path: string;
  isReadOnly: boolean;
}

const VOLUMES_MAX = 16;
const MODELS_MAX = 32;
const DEFAULT_VOLUME = 'default';
const STORAGE_CLASSES = ['beta1', 'beta2', 'beta3', 'default', 'ram'] as const;

/** Reads `profiles.compute.<name>`. */
export function readComputeProfile(field: Field): ComputeProfile {
  const resources = field.required(field.fields(['resources']), 'resources');
  const fields = resources.fields(['cpu', 'memory', 'storage', 'gpu']);
  const cpuField = resources.required(fields, 'cpu');
  const cpu = cpuField.fields(['units', 'attributes']);
  const memoryField = resources.required(fields, 'memory');
  const memory = memoryField.fields(['size']);
  const storage = readStorage(resources.required(fields, 'storage'));
  const sum = (isMemory: boolean) =>
    storage.filter((each) => each.isMemory === isMemory).reduce((total, each) => total + each.sizeBytes, 0);
  return {
    milliCpus: readCpuMillis(cpuField.required(cpu, 'units')),
    architecture: cpu.attributes === undefined ? undefined : readArchitecture(cpu.attributes),
    memoryBytes: readSize(memoryField.required(memory, 'size')) + sum(true),
    diskBytes: sum(false),
    ...readGpu(fields.gpu),
    storage,
  };
}

function readArchitecture(field: Field): 'amd64' | 'arm64' | undefined {
  return field.fields(['arch']).arch?.oneOf(['amd64', 'arm64']);
}

function readStorage(field: Field): Storage[] {
  const storage = (field.isList ? field.list(VOLUMES_MAX) : [field]).map(readVolume);
  for (const [index, { name, field: at }] of storage.entries()) {
    if (storage.findIndex((other) => other.name === name) < index) throw at.refuse(`there are two volumes named ${name}`);
  }
  return storage;
}

function readVolume(field: Field): Storage {
  const { size, name, attributes } = field.fields(['size', 'name', 'attributes']);
  const { class: storageClass, persistent } = attributes?.fields(['class', 'persistent']) ?? {};
  const isPersistent = persistent?.boolean() ?? false;
  const kind = storageClass?.oneOf(STORAGE_CLASSES);
  if (kind === 'ram' && isPersistent) throw (persistent as Field).refuse('a volume of the class ram cannot be persistent');
  if (kind !== undefined && kind !== 'ram' && !isPersistent) {
    throw (attributes as Field).refuse(`a volume of the class ${kind} has persistent: true`);
  }
  return {
    field,
    name: name?.matching(/^[a-z][a-z0-9_-]{0,62}$/, 'a name of a-z, 0-9, - and _') ?? DEFAULT_VOLUME,
    sizeBytes: readSize(field.required({ size }, 'size')),
    isPersistent,
    isMemory: kind === 'ram',
  };
}

function readGpu(field: Field | undefined): Pick<ComputeProfile, 'gpus' | 'gpuModels'> {
  if (field === undefined) return { gpus: 0, gpuModels: [] };
  const { units, attributes } = field.fields(['units', 'attributes']);
  const gpus = units?.integer({ least: 0, greatest: GPUS_MAX }) ?? 0;
  if (gpus > 0 && attributes === undefined) throw field.refuse('attributes.vendor is missing');
  if (gpus === 0 && attributes !== undefined) throw (units ?? field).refuse('attributes without units: due is at least 1');
  if (attributes === undefined) return { gpus, gpuModels: [] };
  const { vendor, interconnect, rdma } = attributes.fields(['vendor', 'interconnect', 'rdma']);
  for (const fabric of [interconnect, rdma]) {
    if (fabric !== undefined)
      throw fabric.unsupported('devices of a group are joined by a mesh, not by a fabric of their own', 'Leave it out.');
  }
  const vendors = attributes.required({ vendor }, 'vendor').entries();
  if (vendors.length === 0) throw (vendor as Field).refuse('it names no vendor');
  return { gpus, gpuModels: vendors.flatMap(([name, models]) => readModels(name, models)) };
}

function readModels(vendor: string, field: Field): GpuModel[] {
  if (!['nvidia', 'amd', 'intel'].includes(vendor)) throw field.refuse('due is nvidia, amd or intel');
  if (field.isNull) return [{ vendor }];
  return field.list(MODELS_MAX).map((each) => {
    const { model, ram, interface: bus } = each.fields(['model', 'ram', 'interface']);
    const word = bus?.text(16).toLowerCase();
    if (word !== undefined && !/^(?:pcie|sxm\d?)$/.test(word)) throw (bus as Field).refuse('due is pcie or sxm');
    return {
      vendor,
      ...(model === undefined ? {} : { model: model.matching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/, 'a model such as a100').toLowerCase() }),
      ...(ram === undefined ? {} : { memoryBytesMin: readSize(ram) }),
      ...(word === undefined ? {} : { bus: word.slice(0, word === 'pcie' ? 4 : 3) }),
    };
  });
}

/**
 * The volumes of a workload on a profile: those that it mounts.
 * @throws bad-spec where a volume is not in the profile, two have one place, or a persistent one has none
 */
export function volumesOf(profile: ComputeProfile, mounts: readonly Mount[], at: Field): Volume[] {
  const places = new Set<string>();
  const volumes = mounts.map(({ field, volume, path, isReadOnly }): Volume => {
    const storage = profile.storage.find(({ name }) => name === volume);
    if (storage === undefined) throw field.refuse('there is no such volume in the compute profile');
    if (places.has(path)) throw field.refuse(`another volume is mounted at ${path} already`);
    places.add(path);
    return { name: volume, sizeBytes: storage.sizeBytes, mount: path, isReadOnly, medium: storage.isMemory ? 'memory' : 'disk' };
  });
  const homeless = profile.storage.find(({ name, isPersistent }) => isPersistent && !mounts.some((mount) => mount.volume === name));
  if (homeless !== undefined)
    throw at.refuse(`the persistent volume ${homeless.name} needs a mount: params.storage.${homeless.name}.mount`);
  return volumes.sort((one, other) => (one.name < other.name ? -1 : 1));
}
