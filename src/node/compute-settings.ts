import type { JobPolicy, Resources } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { parseAmount, parseDuration, parseSize, STABLE_DECIMALS, TOKEN_DECIMALS } from '../units.ts';

/** What the operator of a compute node may set, as texts; what is absent has its default. */
export type ComputeSettings = { [name in keyof typeof COMPUTE_DEFAULTS]?: string };

/** Money in tokens. */
export const COMPUTE_DEFAULTS = {
  /** What the node gives to jobs and leases together; empty: the machine's, less what the node itself needs. */
  computeCpus: '',
  computeMemory: '',
  computeDisk: '',
  computeProcesses: '',
  /**
   * Disk for images, unpacked, that come with jobs, audits and rentals; what is used longest ago goes. Empty: a quarter of what is free or theirs; `0`: none
   * stays that nothing runs in. Modules have as much. All nodes of a network on one machine share it.
   */
  computeImages: '',
  /** Nodes that share this machine. */
  computeNodesHere: '1',
  /** A core and a GiB of memory for an hour, and each job besides; the same number in the stable and the network's compute token. */
  jobPriceCpu: '0.04',
  jobPriceMemory: '0.005',
  jobPriceEach: '0.0001',
  /** Stake behind each job. */
  jobCollateral: '2',
  /** The longest time limit of a job, and what opening, fetching and committing may take beside it. */
  jobTimeMax: '50m',
  jobSpare: '2m',
  /** Jobs that may wait or run at one time, and how long outputs are kept. */
  jobsMax: '64',
  jobKeep: '1d',
  /** `yes`: also runs software of this machine for strangers (jobs with a command and no image). Only where all renters are known. */
  jobCommands: 'no',
  /** `yes`: makes canaries with renters that ask for them; only on a machine that is always awake, for one that is not shown in time is a forgery. */
  jobCanaries: 'no',
  /**
   * What runs images and rentals: `bubblewrap`, or `docker`, `gvisor` (Docker's runtime runsc), `swarm` (a farm of the owner's machines),
   * `kubernetes` (NEVER RUN AGAINST A CLUSTER). Whoever may speak to an engine's socket rules its machine.
   */
  computeEngine: 'bubblewrap',
  /** Paths of engines' sockets with commas between, a manager's of a farm first; empty: Docker's or Podman's usual one. */
  engineSocket: '',
  /** Of a farm or Kubernetes: a folder that its machines share with this one. */
  engineFolder: '',
  /** Of a farm: a program that gives a folder there a hard size (`PROGRAM hold FOLDER BYTES`, `PROGRAM release FOLDER`); empty: none, strangers are refused. */
  engineHold: '',
  kubernetesServer: '',
  /** Files with the server's authority (empty: the system's) and the service account's token. */
  kubernetesAuthority: '',
  kubernetesToken: '',
  kubernetesNamespace: 'millrace',
  kubernetesRepository: '',
  kubernetesClaim: '',
  /** The owner's word that network policies are enforced, and pods held to so many processes; empty: not given, strangers are refused. */
  kubernetesProcesses: '',
  /** Archive of the root file system in which rentals begin; empty: this machine's software, which bubblewrap alone has. */
  leaseImage: '',
  /** `yes`: leases a quarter of the machine out, as one device; `no`: none. */
  leases: 'yes',
  /** Of a device for an hour, in each token; stake behind each lease; the price of one that may be taken back, of the price. */
  leasePriceStable: '0.02',
  leasePriceNative: '0.02',
  leaseCollateral: '1',
  leaseInterruptible: '50',
  /** Name or address without a port under which the machines of a cluster reach this one's UDP ports; empty: takes part in none. */
  clusterHost: '',
  /** Seats that the role `auditor` takes, and seats at the jury that the role `juror` takes. */
  auditorSeats: '4',
  jurorSeats: '2',
} as const;

const HOUR = 3600n;
const PERCENT = 100;

/** All settings, defaults where nothing was set. */
export function computeSettings(given: ComputeSettings = {}): Record<keyof typeof COMPUTE_DEFAULTS, string> {
  return { ...COMPUTE_DEFAULTS, ...given };
}

/** Prices and limits of a provider of jobs. @throws bad-compute-setting, bad-amount, bad-duration */
export function jobPolicyOf(given: ComputeSettings | undefined): JobPolicy {
  const settings = computeSettings(given);
  const prices = (decimals: number) => ({
    cpuSecond: hourly(settings.jobPriceCpu, decimals),
    gibSecond: hourly(settings.jobPriceMemory, decimals),
    job: parseAmount(settings.jobPriceEach, decimals),
  });
  if (settings.jobCommands !== 'yes' && settings.jobCommands !== 'no')
    throw badComputeSetting('jobCommands', settings.jobCommands, 'yes or no');
  if (settings.jobCanaries !== 'yes' && settings.jobCanaries !== 'no')
    throw badComputeSetting('jobCanaries', settings.jobCanaries, 'yes or no');
  return {
    prices: { stable: prices(STABLE_DECIMALS), native: prices(TOKEN_DECIMALS) },
    collateral: parseAmount(settings.jobCollateral, TOKEN_DECIMALS),
    wallSecondsMax: parseDuration(settings.jobTimeMax),
    spareSeconds: parseDuration(settings.jobSpare),
    takesCommands: settings.jobCommands === 'yes',
    takesCanaries: settings.jobCanaries === 'yes',
    jobsMax: wholeOf('jobsMax', given, 10_000),
    keepSeconds: parseDuration(settings.jobKeep),
  };
}

/** What the node's devices cost; undefined where it leases none. @throws bad-compute-setting, bad-amount */
export function leaseTermsOf(
  given: ComputeSettings | undefined,
): { stablePrice: bigint; nativePrice: bigint; collateral: bigint; interruptibleBps: number } | undefined {
  const { leases, leasePriceStable, leasePriceNative, leaseCollateral, leaseInterruptible } = computeSettings(given);
  if (leases !== 'yes' && leases !== 'no') throw badComputeSetting('leases', leases, 'yes or no');
  if (leases === 'no') return undefined;
  const percent = Number(leaseInterruptible);
  if (!Number.isInteger(percent) || percent < 0 || percent > PERCENT) {
    throw badComputeSetting('leaseInterruptible', leaseInterruptible, 'a whole number of hundredths of the price, up to 100');
  }
  return {
    stablePrice: parseAmount(leasePriceStable, STABLE_DECIMALS),
    nativePrice: parseAmount(leasePriceNative, TOKEN_DECIMALS),
    collateral: parseAmount(leaseCollateral, TOKEN_DECIMALS),
    interruptibleBps: percent * PERCENT,
  };
}

/** What the node gives, within what the machine has. @throws bad-compute-setting, bad-size */
export function resourcesOf(measured: Resources, given: ComputeSettings | undefined): Resources {
  const { computeCpus, computeMemory, computeDisk, computeProcesses } = computeSettings(given);
  const cpus = computeCpus === '' ? measured.cpus : Number(computeCpus);
  if (!(cpus > 0 && cpus <= measured.cpus))
    throw badComputeSetting('computeCpus', computeCpus, `a number up to ${measured.cpus}, which the machine has`);
  const size = (name: 'computeMemory' | 'computeDisk', text: string, most: number) => {
    const bytes = text === '' ? most : Number(parseSize(text));
    if (bytes <= most) return bytes;
    throw badComputeSetting(name, text, `at most ${most} bytes, which the machine has to spare`);
  };
  return {
    cpus,
    memoryBytes: size('computeMemory', computeMemory, measured.memoryBytes),
    diskBytes: size('computeDisk', computeDisk, measured.diskBytes),
    processes: computeProcesses === '' ? measured.processes : wholeOf('computeProcesses', given, 1 << 20),
  };
}

/** Bytes for images that come for a time; undefined: their share of the disk. @throws bad-size, bad-compute-setting */
export function imageBytesOf(given: ComputeSettings | undefined): number | undefined {
  const { computeImages } = computeSettings(given);
  if (computeImages === '') return undefined;
  const bytes = Number(parseSize(computeImages));
  if (Number.isSafeInteger(bytes)) return bytes;
  throw badComputeSetting('computeImages', computeImages, 'a size of a disk');
}

/** A whole number from 1 to `max`. @throws bad-compute-setting */
export function wholeOf(name: keyof typeof COMPUTE_DEFAULTS, given: ComputeSettings | undefined, max: number): number {
  const text = computeSettings(given)[name];
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= max) return count;
  throw badComputeSetting(name, text, `a whole number from 1 to ${max}`);
}

/** Base units a second, rounded up. */
function hourly(text: string, decimals: number): bigint {
  return (parseAmount(text, decimals) + HOUR - 1n) / HOUR;
}

/** A setting that cannot be used. */
export function badComputeSetting(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-compute-setting', {
    actor: 'caller',
    message: `Got "${got.slice(0, 80)}" for ${name}, expected ${expected}`,
    values: { name, got: got.slice(0, 80), expected },
  });
}
