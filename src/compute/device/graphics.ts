import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** A graphics processor as this machine shows it. */
export interface GraphicsProcessor {
  /** `nvidia`, `amd`, `intel`, or the vendor's number. */
  vendor: string;
  /** As vendors and Akash write models in one word, small letters: `h100`, `rtx4090`, `a100`; else what the machine says of it. */
  model: string;
  /** Its own memory; 0: not known. */
  memoryBytes: number;
  /** `sxm`, `pcie`, or empty where that is not known. */
  bus: string;
  /** Version of its driver; empty: no driver answers. */
  driver: string;
}

const TIMEOUT_MS = 10_000;
const GPUS_MAX = 64;
const MIB = 1 << 20;
const VENDORS: Readonly<Record<string, string>> = { '0x10de': 'nvidia', '0x1002': 'amd', '0x8086': 'intel' };
/** What is no part of a model's name. */
const NOISE =
  /\b(?:NVIDIA|GeForce|Tesla|Quadro|AMD|Radeon|Instinct|Intel|Graphics|Corporation|Generation|Ada|PCIe?|SXM\d?|NVL|HBM\d\w?|\d+ ?GB)\b/gi;

const run = promisify(execFile);

/**
 * The graphics processors of this machine: those that `nvidia-smi` tells of, and those of other vendors, or without a driver, that the kernel
 * shows. None is tried out: what one is worth, the network's challenges say.
 */
export async function findGraphics(places: { drm?: string; path?: string } = {}): Promise<GraphicsProcessor[]> {
  const shown = await fromKernel(places.drm ?? '/sys/class/drm');
  const told = shown.length > 0 && shown.every(({ vendor }) => vendor !== 'nvidia') ? [] : await fromNvidia(places.path);
  return [...told, ...shown.filter(({ vendor }) => vendor !== 'nvidia' || told.length === 0)].slice(0, GPUS_MAX);
}

/** One word for a model: `NVIDIA A100-SXM4-80GB` is `a100`, `NVIDIA GeForce RTX 4090` is `rtx4090`. */
export function modelWord(name: string): string {
  const word = name
    .replace(/[-_]/g, ' ')
    .replace(NOISE, ' ')
    .replace(/[^A-Za-z0-9]+/g, '')
    .toLowerCase();
  return word.slice(0, 24) || 'unknown';
}

/** Output of `nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader,nounits`: a line for each. */
export function readNvidia(output: string): GraphicsProcessor[] {
  const lines = output.split('\n').filter((line) => line.trim() !== '');
  return lines.flatMap((line) => {
    const [name = '', mebibytes = '', driver = ''] = line.split(',').map((part) => part.trim());
    if (name === '' || !/^\d{1,9}$/.test(mebibytes)) return [];
    const bus = /SXM|HBM3\b(?!.*PCIe)/i.test(name) ? 'sxm' : 'pcie';
    return [{ vendor: 'nvidia', model: modelWord(name), memoryBytes: Number(mebibytes) * MIB, bus, driver }];
  });
}

async function fromNvidia(path: string | undefined): Promise<GraphicsProcessor[]> {
  const query = ['--query-gpu=name,memory.total,driver_version', '--format=csv,noheader,nounits'];
  try {
    const env = path === undefined ? process.env : { ...process.env, PATH: path };
    const { stdout } = await run('nvidia-smi', query, { timeout: TIMEOUT_MS, killSignal: 'SIGKILL', maxBuffer: MIB, env });
    return readNvidia(stdout);
  } catch {
    return [];
  }
}

async function fromKernel(folder: string): Promise<GraphicsProcessor[]> {
  const names = await readdir(folder).catch((): string[] => []);
  const cards = await Promise.all(
    names
      .filter((name) => /^card\d+$/.test(name))
      .sort()
      .map(async (name) => await readCard(join(folder, name, 'device'))),
  );
  return cards.filter((card) => card !== undefined);
}

async function readCard(folder: string): Promise<GraphicsProcessor | undefined> {
  const read = async (name: string) => (await readFile(join(folder, name), 'utf8').catch(() => '')).trim();
  const [vendor, device, product, memory] = await Promise.all(['vendor', 'device', 'product_name', 'mem_info_vram_total'].map(read));
  const name = VENDORS[vendor ?? ''];
  // Virtual screens of hypervisors are cards too, of vendors that sell no such processors.
  if (name === undefined || !/^0x[0-9a-f]{4}$/.test(device ?? '')) return undefined;
  const memoryBytes = /^\d{1,15}$/.test(memory ?? '') ? Number(memory) : 0;
  return { vendor: name, model: product ? modelWord(product) : `pci${(device as string).slice(2)}`, memoryBytes, bus: '', driver: '' };
}
