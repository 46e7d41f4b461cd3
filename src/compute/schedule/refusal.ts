import type { GpuModel } from '../spec/needs.ts';
import type { DeviceView, DeviceWish, GpuFacts } from './device-view.ts';

/** Why a device does not get a piece of work; kebab-case, as `millrace explain` shows it. */
export type RefusalCode =
  | 'ineligible'
  | 'excluded'
  | 'wrong-class'
  | 'wrong-region'
  | 'attribute-differs'
  | 'too-few-processors'
  | 'too-little-memory'
  | 'too-little-disk'
  | 'too-few-gpus'
  | 'wrong-gpu'
  | 'evidence-class-not-taken'
  | 'may-be-taken-back'
  | 'notice-too-short'
  | 'not-for-this-token'
  | 'too-dear'
  | 'not-on-offer-then'
  | 'taken-then'
  | 'operator-has-enough'
  | 'others-are-better';

/** A device that does not get the work, and why, for people. */
export interface Refusal {
  code: RefusalCode;
  why: string;
}

/**
 * Why a device cannot do what is wanted: the first reason, in a fixed order that begins with the device and ends with its time; undefined when
 * it can. Two of the codes are never given here: those that depend on the other devices.
 */
export function refusalOf(device: DeviceView, wish: DeviceWish): Refusal | undefined {
  return standingRefusal(device, wish) ?? equipmentRefusal(device, wish) ?? termsRefusal(device, wish) ?? timeRefusal(device, wish);
}

function standingRefusal(device: DeviceView, wish: DeviceWish): Refusal | undefined {
  const { needs } = wish;
  if (device.ineligible !== undefined) return refuse('ineligible', () => `it gets no work: ${device.ineligible}`);
  if (wish.excluded.has(device.deviceId)) return refuse('excluded', () => 'it failed at this work before');
  if (needs.deviceClass !== undefined && device.deviceClass !== needs.deviceClass) {
    return refuse('wrong-class', () => `its class is ${device.deviceClass}, wanted is ${needs.deviceClass}`);
  }
  if (needs.regions.length > 0 && !needs.regions.includes(device.region)) {
    return refuse('wrong-region', () => `it stands in ${device.region || 'no known region'}, wanted is ${needs.regions.join(' or ')}`);
  }
  return undefined;
}

function equipmentRefusal(device: DeviceView, { needs }: DeviceWish): Refusal | undefined {
  if (device.milliCpus < needs.milliCpus)
    return refuse('too-few-processors', () => `${device.milliCpus} thousandths of a core, wanted are ${needs.milliCpus}`);
  if (device.memoryBytes < needs.memoryBytes)
    return refuse('too-little-memory', () => `${device.memoryBytes} bytes, wanted are ${needs.memoryBytes}`);
  if (device.diskBytes < needs.diskBytes)
    return refuse('too-little-disk', () => `${device.diskBytes} bytes, wanted are ${needs.diskBytes}`);
  const { gpu } = device;
  if ((gpu?.count ?? 0) < needs.gpus) return refuse('too-few-gpus', () => `${gpu?.count ?? 0} GPUs, wanted are ${needs.gpus}`);
  if (needs.gpus > 0 && gpu !== undefined && needs.gpuModels.length > 0 && !needs.gpuModels.some((model) => isSuch(gpu, model))) {
    return refuse('wrong-gpu', () => `its GPU is ${gpu.vendor} ${gpu.model} (${gpu.bus}, ${gpu.memoryBytes} bytes)`);
  }
  for (const name in needs.attributes) {
    if (device.attributes[name] !== needs.attributes[name]) {
      return refuse('attribute-differs', () => `${name} is ${device.attributes[name] ?? 'not said'}, wanted is ${needs.attributes[name]}`);
    }
  }
  return undefined;
}

function isSuch(gpu: GpuFacts, { vendor, model, memoryBytesMin, bus }: GpuModel): boolean {
  if (gpu.vendor !== vendor || (model !== undefined && gpu.model !== model)) return false;
  return gpu.memoryBytes >= (memoryBytesMin ?? 0) && (bus === undefined || gpu.bus === bus);
}

function termsRefusal(device: DeviceView, wish: DeviceWish): Refusal | undefined {
  const price = device.prices[wish.token];
  if (!device.takes.includes(wish.determinism))
    return refuse('evidence-class-not-taken', () => `it takes ${device.takes.join(', ')}, not ${wish.determinism}`);
  if (device.noticeSeconds !== Number.POSITIVE_INFINITY) {
    if (!wish.isInterruptible) return refuse('may-be-taken-back', () => 'it may be taken back');
    if (device.noticeSeconds < wish.noticeSecondsMin)
      return refuse('notice-too-short', () => `${device.noticeSeconds} s of notice, wanted are ${wish.noticeSecondsMin}`);
  }
  if (price === 0n) return refuse('not-for-this-token', () => `it is not for the ${wish.token} token`);
  if (price > wish.priceMax) return refuse('too-dear', () => `${price} an hour, wanted is at most ${wish.priceMax}`);
  return undefined;
}

function timeRefusal(device: DeviceView, { from, until }: DeviceWish): Refusal | undefined {
  if (device.from > from || device.until < until)
    return refuse('not-on-offer-then', () => `it is on offer from ${device.from} to ${device.until}`);
  const next = device.busy[slotAfter(device, from)];
  if (next !== undefined && next.from < until) return refuse('taken-then', () => `it is taken from ${next.from} to ${next.until}`);
  return undefined;
}

/** Index of the first slot that ends after a time: those before it are over by then. */
export function slotAfter({ busy }: DeviceView, time: number): number {
  let low = 0;
  let high = busy.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((busy[middle]?.until ?? 0) <= time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The sentence is made only when somebody reads it: a choice among thousands looks at the codes. */
function refuse(code: RefusalCode, say: () => string): Refusal {
  return {
    code,
    get why() {
      return say();
    },
  };
}
