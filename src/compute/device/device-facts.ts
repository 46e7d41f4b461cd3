import { readFile } from 'node:fs/promises';
import { arch, availableParallelism, cpus, release, totalmem } from 'node:os';
import { type Executor, type ExecutorReport, freeDiskBytes } from '../../host/index.ts';
import { findGraphics, type GraphicsProcessor } from './graphics.ts';

/** What a machine is, as its owner's node found it; nobody else has checked it. */
export interface DeviceFacts {
  /** As Akash and images name it. */
  architecture: string;
  processor: string;
  /** Of its instruction sets those that programs ask for, sorted. */
  instructions: string[];
  /** Cores that this process may use. */
  cores: number;
  /** Memory that this process may use. */
  memoryBytes: number;
  /** Free on the disk of the data folder. */
  diskBytes: number;
  graphics: GraphicsProcessor[];
  /** `none`, or what the machine runs in: `kvm`, `docker`, `vm` where no more can be told. */
  virtualisation: string;
  kernel: string;
  /** What each engine can hold to here. */
  engines: ExecutorReport[];
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
const INSTRUCTIONS = new Set(
  ['sse4_2', 'avx', 'avx2', 'fma', 'aes', 'sha_ni', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_tile'].concat([
    'neon',
    'asimd',
    'asimddp',
    'sve',
    'sve2',
    'sha2',
    'i8mm',
    'bf16',
  ]),
);
const HYPERVISORS: [word: RegExp, name: string][] = [
  [/firecracker/i, 'firecracker'],
  [/kvm|qemu/i, 'kvm'],
  [/vmware/i, 'vmware'],
  [/virtualbox|innotek/i, 'virtualbox'],
  [/microsoft/i, 'hyper-v'],
  [/xen/i, 'xen'],
  [/amazon|google/i, 'kvm'],
];

/** Looks at this machine; asks the engines what they can hold to. Takes at most some seconds: each program that it asks has a time limit. */
export async function detectDevice(options: { folder: string; executors: readonly Executor[] }): Promise<DeviceFacts> {
  const [graphics, diskBytes, virtualisation, information, engines] = await Promise.all([
    findGraphics(),
    freeDiskBytes(options.folder),
    findVirtualisation(),
    readText('/proc/cpuinfo'),
    Promise.all(options.executors.map(async (executor) => await executor.inspect())),
  ]);
  const constrained = process.constrainedMemory();
  return {
    architecture: ARCHITECTURES[arch()] ?? arch(),
    processor: cpus()[0]?.model.trim().replace(/\s+/g, ' ').slice(0, 100) ?? 'unknown',
    instructions: readInstructions(information),
    cores: availableParallelism(),
    memoryBytes: constrained > 0 ? Math.min(constrained, totalmem()) : totalmem(),
    diskBytes: Number(diskBytes),
    graphics,
    virtualisation,
    kernel: release(),
    engines,
  };
}

/** The instruction sets that `/proc/cpuinfo` tells of, as far as programs ask for them. */
export function readInstructions(information: string): string[] {
  const words = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(information)?.[1]?.split(/\s+/) ?? [];
  return [...new Set(words.filter((word) => INSTRUCTIONS.has(word)))].sort();
}

async function findVirtualisation(): Promise<string> {
  const [information, vendor, product, init] = await Promise.all(
    ['/proc/cpuinfo', '/sys/class/dmi/id/sys_vendor', '/sys/class/dmi/id/product_name', '/proc/1/environ'].map(
      async (path) => await readText(path),
    ),
  );
  if ((await readText('/.dockerenv', true)) !== '' || /\bcontainer=/.test(init ?? '')) return 'container';
  const names = `${vendor} ${product}`;
  const found = HYPERVISORS.find(([word]) => word.test(names))?.[1];
  return found ?? (/^flags\s*:.*\bhypervisor\b/m.test(information ?? '') ? 'vm' : 'none');
}

async function readText(path: string, isMark = false): Promise<string> {
  return await readFile(path, 'utf8').then(
    (text) => (isMark ? 'there' : text),
    () => '',
  );
}
