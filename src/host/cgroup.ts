import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { systemClock } from '../clock.ts';
import { sandboxFailed } from './executor.ts';
import { ownerIsGone, ownerTag } from './owner-tag.ts';

/** What a control group holds its processes to. */
export interface CgroupLimits {
  memoryBytes: number;
  cpus: number;
  processes: number;
}

/** What a control group counted. */
export interface CgroupUsage {
  cpuMs: number | undefined;
  memoryBytesPeak: number | undefined;
  /** Processes that the kernel killed for want of memory. */
  memoryKills: number;
  processesRefused: number;
}

/** The control group of one job: it exists from its limits on until `remove`. */
export interface JobCgroup {
  /** Files into which a process writes `0` to enter. */
  entrances: string[];
  usage(): CgroupUsage;
  /** SIGKILL to all that is inside, until nothing is left. */
  kill(): Promise<void>;
  remove(): Promise<void>;
}

/** Control groups that this process may make, with all limits that a job needs. */
export interface CgroupRoot {
  version: 1 | 2;
  create(name: string, limits: CgroupLimits): JobCgroup;
}

/** Where the kernel's interface is; a test gives its own. */
export interface CgroupPlaces {
  /** `/sys/fs/cgroup`. */
  mount: string;
  /** The text of `/proc/self/cgroup`. */
  own: string;
  uid: number;
}

const PERIOD_US = 100_000;
const CONTROLLERS = ['memory', 'pids', 'cpu'] as const;
const KILL_ROUNDS = 2_000;
const KILL_PAUSE_MS = 1;

/**
 * The control groups that this process may make: version 1 (one folder per controller) where memory is bound there, else version 2. As root
 * `millrace` below the top; else `millrace-<uid>`, which root has given to this user, or a delegated group that this process is in
 * (`systemd-run --user --scope -p Delegate=yes`). Undefined when there is none with memory, processes and processors.
 */
export function findCgroups(places: CgroupPlaces = systemPlaces()): CgroupRoot | undefined {
  if (process.platform !== 'linux' && places.mount === '/sys/fs/cgroup') return undefined;
  return findVersion1(places) ?? findVersion2(places);
}

function systemPlaces(): CgroupPlaces {
  return { mount: '/sys/fs/cgroup', own: readText('/proc/self/cgroup'), uid: process.getuid?.() ?? -1 };
}

const folderName = (uid: number) => (uid === 0 ? 'millrace' : `millrace-${uid}`);

function findVersion1({ mount, own, uid }: CgroupPlaces): CgroupRoot | undefined {
  const ownPath = (controller: string) =>
    own
      .split('\n')
      .find((line) => line.split(':')[1]?.split(',').includes(controller))
      ?.split(':')[2];
  const bases = [...CONTROLLERS, 'cpuacct'].map((controller) => {
    const top = join(mount, controller);
    const path = ownPath(controller);
    return firstUsable(
      [top, ...(path === undefined ? [] : [join(top, path)])],
      folderName(uid),
      `${controller === 'cpuacct' ? 'cpuacct.usage' : 'tasks'}`,
    );
  });
  const [memory, pids, cpu, cpuacct] = bases;
  if (memory === undefined || pids === undefined || cpu === undefined) return undefined;
  for (const base of bases) if (base !== undefined) sweep(base);
  return {
    version: 1,
    create: (name, limits) => createVersion1({ memory, pids, cpu, cpuacct: cpuacct ?? cpu }, `${ownerTag()}-${name}`, limits),
  };
}

function findVersion2({ mount, own, uid }: CgroupPlaces): CgroupRoot | undefined {
  const path =
    own
      .split('\n')
      .find((line) => line.startsWith('0::'))
      ?.slice(3) ?? '/';
  const delegated = join(mount, path === '/' ? '' : path);
  for (const parent of new Set([mount, delegated])) {
    if (!hasControllers(parent, 'cgroup.controllers')) continue;
    const base = join(parent, folderName(uid));
    try {
      if (parent !== mount) makeRoom(parent);
      mkdirSync(base, { recursive: true });
      for (const folder of [parent, base]) enable(folder);
      if (!hasControllers(base, 'cgroup.subtree_control')) continue;
      accessSync(join(base, 'cgroup.procs'), constants.W_OK);
    } catch {
      continue;
    }
    sweep(base);
    return { version: 2, create: (name, limits) => createVersion2(join(base, `${ownerTag()}-${name}`), limits) };
  }
  return undefined;
}

const hasControllers = (folder: string, file: string) => {
  const present = readText(join(folder, file)).trim().split(/\s+/);
  return CONTROLLERS.every((controller) => present.includes(controller));
};

function enable(folder: string): void {
  if (!hasControllers(folder, 'cgroup.subtree_control')) writeFileSync(join(folder, 'cgroup.subtree_control'), '+memory +pids +cpu');
}

/** A group with processes in it cannot hand controllers down (the rule of "no internal processes"): they move into a leaf. */
function makeRoom(parent: string): void {
  const leaf = join(parent, 'millrace-node');
  mkdirSync(leaf, { recursive: true });
  for (const pid of readText(join(parent, 'cgroup.procs')).split('\n').filter(Boolean)) writeFileSync(join(leaf, 'cgroup.procs'), pid);
}

function firstUsable(parents: readonly string[], name: string, proof: string): string | undefined {
  return parents
    .map((parent) => join(parent, name))
    .find((folder) => {
      try {
        mkdirSync(folder, { recursive: true });
        accessSync(folder, constants.W_OK);
        return readdirSync(folder).includes(proof);
      } catch {
        return false;
      }
    });
}

function createVersion1(bases: Record<'memory' | 'pids' | 'cpu' | 'cpuacct', string>, name: string, limits: CgroupLimits): JobCgroup {
  const folders = [...new Set(Object.values(bases))].map((base) => join(base, name));
  const at = (controller: keyof typeof bases, file: string) => join(bases[controller], name, file);
  const remove = () => removeGroups(folders);
  try {
    for (const folder of folders) mkdirSync(folder);
    write(at('memory', 'memory.limit_in_bytes'), limits.memoryBytes);
    writeIfThere(at('memory', 'memory.memsw.limit_in_bytes'), limits.memoryBytes);
    writeIfThere(at('memory', 'memory.swappiness'), 0);
    write(at('pids', 'pids.max'), limits.processes);
    write(at('cpu', 'cpu.cfs_period_us'), PERIOD_US);
    write(at('cpu', 'cpu.cfs_quota_us'), Math.max(1000, Math.round(limits.cpus * PERIOD_US)));
  } catch (error) {
    for (const folder of folders) removeQuietly(folder);
    throw sandboxFailed('cgroup', `no control group with limits could be made: ${(error as Error).message}`, error);
  }
  return {
    entrances: folders.map((folder) => join(folder, 'cgroup.procs')),
    usage: () => usageVersion1({ memory: join(bases.memory, name), pids: join(bases.pids, name), cpuacct: join(bases.cpuacct, name) }),
    kill: () => killAll(folders[0] as string),
    remove,
  };
}

function createVersion2(folder: string, limits: CgroupLimits): JobCgroup {
  try {
    mkdirSync(folder);
    write(join(folder, 'memory.max'), limits.memoryBytes);
    writeIfThere(join(folder, 'memory.swap.max'), 0);
    writeIfThere(join(folder, 'memory.oom.group'), 1);
    write(join(folder, 'pids.max'), limits.processes);
    write(join(folder, 'cpu.max'), `${Math.max(1000, Math.round(limits.cpus * PERIOD_US))} ${PERIOD_US}`);
  } catch (error) {
    removeQuietly(folder);
    throw sandboxFailed('cgroup', `no control group with limits could be made: ${(error as Error).message}`, error);
  }
  return {
    entrances: [join(folder, 'cgroup.procs')],
    usage: () => usageVersion2(folder),
    kill: () => killAll(folder),
    remove: () => removeGroups([folder]),
  };
}

function usageVersion1(folders: Record<'memory' | 'pids' | 'cpuacct', string>): CgroupUsage {
  return {
    cpuMs: whole(readText(join(folders.cpuacct, 'cpuacct.usage')), 1e6),
    memoryBytesPeak: whole(readText(join(folders.memory, 'memory.max_usage_in_bytes'))),
    memoryKills: field(readText(join(folders.memory, 'memory.oom_control')), 'oom_kill'),
    processesRefused: field(readText(join(folders.pids, 'pids.events')), 'max'),
  };
}

function usageVersion2(folder: string): CgroupUsage {
  const read = (file: string) => readText(join(folder, file));
  return {
    cpuMs: field(read('cpu.stat'), 'usage_usec') / 1000,
    memoryBytesPeak: whole(read('memory.peak')),
    memoryKills: field(read('memory.events'), 'oom_kill'),
    processesRefused: field(read('pids.events'), 'max'),
  };
}

/** The control groups that another engine put a process into. */
export interface WatchedCgroups {
  /** What they have counted; undefined when they are gone. */
  usage(): CgroupUsage | undefined;
  /** Whether they hold it to no more than these; false where that cannot be seen. */
  holdTo(limits: Pick<CgroupLimits, 'memoryBytes' | 'processes'>): boolean;
}

/** The control groups of a process, as another engine made them. */
export function watchCgroupsOf(pid: number, mount = '/sys/fs/cgroup'): WatchedCgroups {
  const lines = readText(`/proc/${pid}/cgroup`).split('\n');
  const pathOf = (controller: string) => lines.find((line) => line.split(':')[1]?.split(',').includes(controller))?.split(':')[2];
  const [memory, pids, cpuacct] = ['memory', 'pids', 'cpuacct'].map((name) => {
    const path = pathOf(name);
    return path === undefined ? undefined : join(mount, name, path);
  });
  const isHeld = (file: string, most: number) => {
    const text = readText(file).trim();
    return /^\d+$/.test(text) && Number(text) <= most;
  };
  if (memory !== undefined && pids !== undefined && cpuacct !== undefined) {
    return {
      usage: () => (existsSync(memory) ? usageVersion1({ memory, pids, cpuacct }) : undefined),
      holdTo: ({ memoryBytes, processes }) =>
        isHeld(join(memory, 'memory.limit_in_bytes'), memoryBytes) && isHeld(join(pids, 'pids.max'), processes),
    };
  }
  const only = join(mount, lines.find((line) => line.startsWith('0::'))?.slice(3) ?? 'none');
  return {
    usage: () => (existsSync(only) ? usageVersion2(only) : undefined),
    holdTo: ({ memoryBytes, processes }) => isHeld(join(only, 'memory.max'), memoryBytes) && isHeld(join(only, 'pids.max'), processes),
  };
}

/** Linux 5.14 kills a group of version 2 at once; else everything that is listed, until nothing is. */
async function killAll(folder: string): Promise<void> {
  writeIfThere(join(folder, 'cgroup.kill'), 1);
  for (let round = 0; round < KILL_ROUNDS; round += 1) {
    const inside = readText(join(folder, 'cgroup.procs')).split('\n').filter(Boolean);
    if (inside.length === 0) return;
    for (const pid of inside) signalQuietly(Number(pid));
    await systemClock.sleep(KILL_PAUSE_MS);
  }
}

async function removeGroups(folders: readonly string[]): Promise<void> {
  for (const folder of folders) {
    for (let round = 0; round < KILL_ROUNDS && !removeQuietly(folder); round += 1) await systemClock.sleep(KILL_PAUSE_MS);
  }
}

/** What a process left that was killed in the middle: its groups, and whatever still runs in them. */
function sweep(base: string): void {
  for (const name of readdirSync(base).filter((each) => ownerIsGone(each))) {
    const folder = join(base, basename(name));
    for (const pid of readText(join(folder, 'cgroup.procs')).split('\n').filter(Boolean)) signalQuietly(Number(pid));
    removeQuietly(folder);
  }
}

function signalQuietly(pid: number): void {
  try {
    // Zero stands for a process of another namespace; to signal it would be to signal ourselves.
    if (pid > 1) process.kill(pid, 'SIGKILL');
  } catch {
    // It has gone.
  }
}

function removeQuietly(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

const write = (file: string, value: number | string) => writeFileSync(file, String(value), { flag: 'r+' });

function writeIfThere(file: string, value: number): void {
  try {
    write(file, value);
  } catch {
    // An older kernel, or one without swap accounting.
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

const whole = (text: string, divisor = 1) => (text.trim() === '' ? undefined : Number(text) / divisor);
const field = (text: string, name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
