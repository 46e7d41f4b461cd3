import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { environmentOf, type Job } from './executor.ts';

/** Descriptors of the process that holds a sandbox, besides the three standard ones. */
export const STATUS_FD = 3;
/** The filter of system calls. */
export const FILTER_FD = 4;
/** Options of bubblewrap, which other users of the machine must not read in a list of processes. */
export const OPTIONS_FD = 5;

/** Folders of one job on this machine. */
export interface SandboxFolders {
  /** Where the memory file system of the job is mounted: `output`, `tmp`, `shm`. */
  disk: string;
  /** Its root file system; undefined for the software of this machine. */
  root: string | undefined;
  input: string | undefined;
  /** `passwd`, `group`, `hosts`, `nsswitch.conf` of every sandbox. */
  etc: string;
}

const CLOSE_ON_EXEC = 0o2000000;
/** The user and group that a job sees itself as. */
const JOB_ID = 1000;
const SYSTEM_FOLDERS = ['bin', 'sbin', 'lib', 'lib64', 'lib32', 'libx32'];
const SYSTEM_FILES = ['/etc/ld.so.cache', '/etc/alternatives', '/etc/ssl/certs'];
/** What the kernel shows in /proc that is none of a job's business. */
const HIDDEN_FILES = [
  'kcore',
  'keys',
  'key-users',
  'timer_list',
  'sched_debug',
  'kallsyms',
  'kmsg',
  'sysrq-trigger',
  'config.gz',
  'modules',
];
const HIDDEN_FOLDERS = ['acpi', 'scsi', 'bus', 'fs', 'irq', 'asound', 'driver', 'sys/kernel', 'sys/vm', 'sys/fs'];

/**
 * What keeps the mounts of one job and waits for it: in a mount namespace of its own it makes the memory file system with its hard size,
 * makes the folders reachable, enters the control groups, starts bubblewrap, tells how it ended, and keeps the mounts until its input ends,
 * so that the artefacts can be read. It dies with its starter, and the job with it.
 */
export const HOLDER_SCRIPT = `set -e
for fd in $1; do eval "exec $fd>&-"; done
disk=$2 options=$3 files=$4 data=$5 binds=$6
shift 6
mount -t tmpfs -o "$options" millrace "$disk"
mkdir -m 1777 "$disk/output" "$disk/tmp" "$disk/shm"
while [ "$binds" -gt 0 ]; do mount --bind "$1" "$2"; shift 2; binds=$((binds - 1)); done
groups=$1
shift
set +e
(
  while [ "$groups" -gt 0 ]; do echo 0 >"$1" || exit 125; shift; groups=$((groups - 1)); done
  echo 1000 >/proc/self/oom_score_adj
  ulimit -c 0
  ulimit -n 4096 2>/dev/null
  ulimit -f "$files" || exit 125
  [ "$data" = 0 ] || ulimit -d "$data" || exit 125
  read -r pid rest </proc/self/stat
  echo "started $pid" >&${STATUS_FD}
  exec "$@" </dev/null ${STATUS_FD}>&-
)
code=$?
exec >&- 2>&-
echo "ended $code" >&${STATUS_FD}
read -r done
exit 0
`;

/**
 * Descriptors that this process was started with and that its children would inherit: not marked close-on-exec (fcntl(2), proc(5)). A job
 * must not have them.
 */
export function inheritedDescriptors(): number[] {
  const flags = (fd: string) => {
    try {
      return Number.parseInt(/^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '', 8);
    } catch {
      return CLOSE_ON_EXEC;
    }
  };
  return readdirSync('/proc/self/fd')
    .filter((fd) => Number(fd) > OPTIONS_FD && (flags(fd) & CLOSE_ON_EXEC) === 0)
    .map(Number);
}

/** The options of bubblewrap for one job. Whatever is not named here does not exist for it. */
export function sandboxOptions(job: Job, folders: SandboxFolders): string[] {
  const { disk, root, input, etc } = folders;
  return [
    ...['--unshare-all', '--unshare-user', '--disable-userns', '--die-with-parent', '--new-session', '--cap-drop', 'ALL'],
    ...['--uid', String(JOB_ID), '--gid', String(JOB_ID), '--hostname', 'job', '--clearenv'],
    ...Object.entries(environmentOf(job)).flatMap(([name, value]) => ['--setenv', name, value]),
    ...(root === undefined ? systemMounts() : ['--ro-bind', root, '/']),
    ...['--proc', '/proc', '--dev', '/dev', '--bind', `${disk}/shm`, '/dev/shm', '--remount-ro', '/dev'],
    ...HIDDEN_FILES.filter((name) => existsSync(`/proc/${name}`)).flatMap((name) => ['--ro-bind', '/dev/null', `/proc/${name}`]),
    ...HIDDEN_FOLDERS.filter((name) => existsSync(`/proc/${name}`)).flatMap((name) => [
      '--tmpfs',
      `/proc/${name}`,
      '--remount-ro',
      `/proc/${name}`,
    ]),
    ...['passwd', 'group', 'hosts', 'nsswitch.conf'].flatMap((name) =>
      root === undefined ? ['--ro-bind', `${etc}/${name}`, `/etc/${name}`] : [],
    ),
    ...['--bind', `${disk}/tmp`, '/tmp', '--bind', `${disk}/output`, '/output'],
    ...(input === undefined ? [] : ['--ro-bind', input, '/input']),
    ...(root === undefined ? ['--remount-ro', '/'] : []),
    ...['--chdir', '/tmp', '--seccomp', String(FILTER_FD)],
  ];
}

/** Programs and libraries of this machine, without its settings, users, or data. */
function systemMounts(): string[] {
  const folders = SYSTEM_FOLDERS.map((name) => `/${name}`).filter((path) => existsSync(path));
  return [
    ...['--ro-bind', '/usr', '/usr'],
    ...folders.flatMap((path) => (lstatSync(path).isSymbolicLink() ? ['--symlink', readlinkSync(path), path] : ['--ro-bind', path, path])),
    ...SYSTEM_FILES.flatMap((path) => ['--ro-bind-try', path, path]),
  ];
}
