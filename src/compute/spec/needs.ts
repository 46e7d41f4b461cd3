import { type Field, shown } from './field.ts';
import { readCpuMillis, readSize } from './quantity.ts';

/** A graphics processor that would do. */
export interface GpuModel {
  /** Lower case: `nvidia`, `amd`, `intel`. */
  vendor: string;
  /** Lower case; left out: any model. */
  model?: string;
  /** Least memory. */
  memoryBytesMin?: number;
  /** `pcie` or `sxm`; left out: any. */
  bus?: string;
}

/** What a device must have, whatever it costs. */
export interface DeviceNeeds {
  milliCpus: number;
  memoryBytes: number;
  diskBytes: number;
  gpus: number;
  /** Any of these; empty: any at all. */
  gpuModels: GpuModel[];
  /** Class of the market (`docs/decisions/0033-specs-and-scheduling.md`); left out: any. */
  deviceClass?: string;
  /** Regions, any of them; empty: any at all. */
  regions: string[];
  /** Attributes that the device's document must have with these very values. */
  attributes: Record<string, string>;
}

/** The most that is paid, in whole tokens as a decimal: for a job as a whole, for a deployment an hour and device. */
export interface PriceMax {
  amount: string;
  token: 'stable' | 'native';
}

/** Most regions, and most models of GPUs, that a document names. */
export const REGIONS_MAX = 32;
/** Most GPUs of one device. */
export const GPUS_MAX = 64;
/** Most devices of a unit, and most runs of a job. */
export const COUNT_MAX = 64;
const ATTRIBUTES_MAX = 64;

/** A class of devices, a region: a short label. */
export function readLabel(field: Field): string {
  return field.matching(/^[a-z0-9][a-z0-9._-]{0,31}$/, 'at most 32 of a-z, 0-9, . _ -');
}

/** Attributes by name. */
export function readAttributes(field: Field): Record<string, string> {
  const entries = field.entries();
  if (entries.length > ATTRIBUTES_MAX) throw field.refuse(`it has ${entries.length} attributes; at most ${ATTRIBUTES_MAX} are taken`);
  return Object.fromEntries(
    entries.map(([name, value]) => {
      if (!/^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/.test(name))
        throw value.refuse(`got the name ${shown(name)}; due are letters, digits, . _ / -`);
      return [name, value.text(256)];
    }),
  );
}

/** `2.5 stable` or `2.5 native`. */
export function readPrice(field: Field): PriceMax {
  const text = field.matching(/^\d{1,18}(?:\.\d{1,18})? (?:stable|native)$/, 'an amount and its token, such as 2.5 stable');
  const [amount, token] = text.split(' ') as [string, PriceMax['token']];
  return { amount: plainDecimal(amount), token };
}

/** A decimal without zeros that mean nothing: `007.50` is `7.5`. */
export function plainDecimal(text: string): string {
  const [whole = '0', fraction = ''] = text.split('.');
  const rest = fraction.replace(/0+$/, '');
  return `${whole.replace(/^0+(?=\d)/, '')}${rest === '' ? '' : `.${rest}`}`;
}

/** A price of a document in base units. It may have more decimals than the token; what is below its least unit cannot be paid. */
export function priceUnits(amount: string, decimals: number): bigint {
  const [whole = '0', fraction = ''] = amount.split('.');
  return BigInt(whole) * 10n ** BigInt(decimals) + BigInt(fraction.slice(0, decimals).padEnd(decimals, '0') || '0');
}

/** The part of a document of our own that says which devices would do; `limits` are those of what runs there. */
export function readNeeds(
  fields: Partial<Record<string, Field>>,
  limits: Pick<DeviceNeeds, 'milliCpus' | 'memoryBytes' | 'diskBytes'>,
): DeviceNeeds {
  const device = fields.device?.fields(['class', 'cpus', 'memory', 'disk', 'gpus', 'gpu', 'attributes']) ?? {};
  const gpuModels = device.gpu === undefined ? [] : readGpuModels(device.gpu);
  const { regions } = fields;
  return {
    milliCpus: Math.max(limits.milliCpus, device.cpus === undefined ? 0 : readCpuMillis(device.cpus)),
    memoryBytes: Math.max(limits.memoryBytes, device.memory === undefined ? 0 : readSize(device.memory)),
    diskBytes: Math.max(limits.diskBytes, device.disk === undefined ? 0 : readSize(device.disk)),
    gpus: device.gpus?.integer({ least: 0, greatest: GPUS_MAX }) ?? (gpuModels.length > 0 ? 1 : 0),
    gpuModels,
    ...(device.class === undefined ? {} : { deviceClass: readLabel(device.class) }),
    regions: regions === undefined ? [] : [...new Set(regions.list(REGIONS_MAX).map(readLabel))].sort(),
    attributes: device.attributes === undefined ? {} : readAttributes(device.attributes),
  };
}

/** A list of graphics processors that would do: `[{vendor: nvidia, model: a100, memory: 80Gi, bus: sxm}]`. */
function readGpuModels(field: Field): GpuModel[] {
  return field.list(REGIONS_MAX).map((each) => {
    const { vendor, model, memory, bus } = each.fields(['vendor', 'model', 'memory', 'bus']);
    if (vendor === undefined) throw each.refuse('vendor is missing');
    return {
      vendor: readLabel(vendor),
      ...(model === undefined ? {} : { model: readLabel(model) }),
      ...(memory === undefined ? {} : { memoryBytesMin: readSize(memory) }),
      ...(bus === undefined ? {} : { bus: bus.oneOf(['pcie', 'sxm']) }),
    };
  });
}
