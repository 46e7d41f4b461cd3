import type { DeviceScores } from './benchmark.ts';
import type { DeviceFacts } from './device-facts.ts';

/** One class of the table, for people. */
export interface DeviceClassRow {
  deviceClass: string;
  cores: number;
  memoryGib: number;
  singleCoreMin: number;
}

const GIB = 2 ** 30;
const CORES_MAX = 256;
/**
 * Million steps a second on one core below which a machine is `slow`: a tenth of what a server's core of 2023 has.
 */
export const SINGLE_CORE_MIN = 60;

/** The classes of processors: `cpu-N` has N cores, N GiB of memory, and the least speed; one that lacks the speed is `slow-N`. */
export const DEVICE_CLASSES: readonly DeviceClassRow[] = Array.from({ length: Math.log2(CORES_MAX) + 1 }, (_, power) => ({
  deviceClass: `cpu-${2 ** power}`,
  cores: 2 ** power,
  memoryGib: 2 ** power,
  singleCoreMin: SINGLE_CORE_MIN,
}));

/**
 * The class under which a machine is offered: the largest whose cores, memory and speed it has; with a GPU that its jobs can use,
 * `gpu-<model>-<how many>`. A class is what renters ask for and what the network's challenges are drawn by, so it says no more than is there.
 */
export function classOf(
  facts: Pick<DeviceFacts, 'cores' | 'memoryBytes'>,
  scores: Pick<DeviceScores, 'singleCore'>,
  gpu?: { model: string; count: number },
): string {
  if (gpu !== undefined && gpu.count > 0) return `gpu-${gpu.model.replace(/[^a-z0-9]/g, '').slice(0, 20)}-${gpu.count}`;
  // A machine of 2 GiB shows a little less: the kernel has its part.
  const gib = Math.max(1, Math.ceil(facts.memoryBytes / GIB - 0.25));
  const size = 2 ** Math.floor(Math.log2(Math.max(1, Math.min(facts.cores, gib, CORES_MAX))));
  return scores.singleCore >= SINGLE_CORE_MIN ? `cpu-${size}` : `slow-${size}`;
}
