import type { Resources } from '../capacity.ts';
import type { LeasedDevice } from './device-offers.ts';

const SHARE = 0.25;
const MEMORY_MIN_BYTES = 64 << 20;
const CPUS_MIN = 0.1;
const MIB = 1 << 20;
const PROCESSES_MAX = 512;

/**
 * The device that a machine leases out when its owner says nothing else: a quarter of what it gives to all work, the rest stays for jobs. None when
 * that would be less than a tenth of a core or 64 MiB. Its class is `cpu-N` for N whole cores, or `cpu-small`.
 * @param terms prices an hour and stake behind each lease, base units
 */
export function defaultDevices(
  total: Resources,
  terms: Pick<LeasedDevice, 'stablePrice' | 'nativePrice' | 'collateral' | 'interruptibleBps'>,
): LeasedDevice[] {
  const cpus = Math.floor(total.cpus * SHARE * 100) / 100;
  const memoryBytes = Math.floor((total.memoryBytes * SHARE) / MIB) * MIB;
  if (cpus < CPUS_MIN || memoryBytes < MEMORY_MIN_BYTES) return [];
  const deviceClass = cpus >= 1 ? `cpu-${Math.floor(cpus)}` : 'cpu-small';
  const processes = Math.min(PROCESSES_MAX, Math.floor(total.processes * SHARE));
  // What the default engine writes lies in memory.
  const diskBytes = Math.min(Math.floor(total.diskBytes * SHARE), memoryBytes);
  return [{ name: 'quarter', deviceClass, resources: { cpus, memoryBytes, diskBytes, processes }, ...terms }];
}
