import { MillraceError } from '../errors.ts';

/**
 * The system calls that a job may not make, by their numbers on x86-64 and on arm64 (undefined: not there). Linux, `asm/unistd_64.h` and
 * `asm-generic/unistd.h`. Whatever is newer than the newest that this table was checked against does not exist for a job.
 */
const DENIED: Record<string, readonly [number | undefined, number | undefined]> = {
  // Other processes' memory and state.
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  process_madvise: [440, 440],
  kcmp: [312, 272],
  pidfd_getfd: [438, 438],
  // Keys belong to a user, not to a namespace.
  add_key: [248, 217],
  request_key: [249, 218],
  keyctl: [250, 219],
  // Mounts, roots, namespaces.
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  setns: [308, 268],
  unshare: [272, 97],
  // Handles go around paths.
  name_to_handle_at: [303, 264],
  open_by_handle_at: [304, 265],
  fanotify_init: [300, 262],
  // Large, often attacked parts of the kernel.
  bpf: [321, 280],
  perf_event_open: [298, 241],
  userfaultfd: [323, 282],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  memfd_secret: [447, 447],
  modify_ldt: [154, undefined],
  // The machine itself.
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  create_module: [174, undefined],
  get_kernel_syms: [177, undefined],
  query_module: [178, undefined],
  nfsservctl: [180, 42],
  iopl: [172, undefined],
  ioperm: [173, undefined],
  swapon: [167, 224],
  swapoff: [168, 225],
  reboot: [169, 142],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  acct: [163, 89],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  clock_adjtime: [305, 266],
  adjtimex: [159, 171],
  syslog: [103, 116],
  lookup_dcookie: [212, 18],
  vhangup: [153, 58],
  uselib: [134, undefined],
  ustat: [136, undefined],
  sysfs: [139, undefined],
  _sysctl: [156, undefined],
  personality: [135, 92],
  // Placement of memory over processors of others.
  mbind: [237, 235],
  set_mempolicy: [238, 237],
  set_mempolicy_home_node: [450, 450],
  migrate_pages: [256, 238],
  move_pages: [279, 239],
};

/** A platform's numbers: its name in the kernel (`linux/audit.h`), and the calls whose arguments are looked at. */
const PLATFORMS = {
  x64: { audit: 0xc000003e, column: 0, clone: 56, clone3: 435, socket: 41, socketpair: 53, ioctl: 16, newest: 450 },
  arm64: { audit: 0xc00000b7, column: 1, clone: 220, clone3: 435, socket: 198, socketpair: 199, ioctl: 29, newest: 450 },
} as const;

/** One instruction of classic BPF (`struct sock_filter`). */
export interface FilterStep {
  code: number;
  /** Steps to skip when the comparison holds, and when it does not. */
  jt: number;
  jf: number;
  k: number;
}

const LOAD = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUAL = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GREATER = 0x25;
const ANY_BIT = 0x45; // BPF_JSET
const AND = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN = 0x06;

const ALLOW = 0x7fff0000;
const KILL_PROCESS = 0x80000000;
const REFUSE = 0x00050000; // SECCOMP_RET_ERRNO, with the error number in the low half
const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

const NUMBER_AT = 0;
const ARCH_AT = 4;
const argumentAt = (index: number) => 16 + 8 * index; // the low half, little-endian

/** `CLONE_NEW…`: mount, cgroup, uts, ipc, user, pid, net (the time namespace exists on `clone3` and `unshare` alone). */
const NAMESPACE_FLAGS = [0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000];
const CLONE_NAMESPACES = NAMESPACE_FLAGS.reduce((mask, flag) => mask | flag);
const FAMILIES = { unix: 1, inet: 2, inet6: 10, netlink: 16 };
const SOCK_TYPE_MASK = 0xf;
const SOCK_RAW = 3;
const SOCK_PACKET = 10;
const NETLINK_ROUTE = 0;
/** Puts characters into a terminal's input; `TIOCLINUX` pastes into it. */
const TERMINAL_INJECTIONS = [0x5412, 0x541c];

const load = (k: number): FilterStep => ({ code: LOAD, jt: 0, jf: 0, k });
const end = (k: number): FilterStep => ({ code: RETURN, jt: 0, jf: 0, k });
/** When the loaded value equals `k`, the steps; else go on behind them. */
const when = (k: number, ...steps: FilterStep[]): FilterStep[] => [{ code: EQUAL, jt: 0, jf: steps.length, k }, ...steps];

/**
 * The filter of system calls for jobs, as instructions: the other ABIs of the processor kill the process; the calls of the table above are
 * refused with EPERM, new namespaces and raw or exotic sockets (VSOCK knows no namespaces) too; `clone3`, whose flags no filter can see, and
 * unknown calls answer ENOSYS, whereupon C libraries use `clone`.
 * @throws sandbox-platform
 */
export function jobFilter(arch: string = process.arch): FilterStep[] {
  if (arch !== 'x64' && arch !== 'arm64') throw platformUnknown(arch);
  const platform = PLATFORMS[arch];
  const numbers = Object.values(DENIED).flatMap((pair) => pair[platform.column] ?? []);
  return [
    load(ARCH_AT),
    { code: EQUAL, jt: 1, jf: 0, k: platform.audit },
    end(KILL_PROCESS),
    load(NUMBER_AT),
    // x32 numbers begin at 2^30, so the ceiling refuses that ABI as well.
    { code: GREATER, jt: 0, jf: 1, k: platform.newest },
    end(REFUSE | ENOSYS),
    ...numbers.flatMap((number) => when(number, end(REFUSE | EPERM))),
    ...when(platform.clone3, end(REFUSE | ENOSYS)),
    ...when(platform.clone, load(argumentAt(0)), { code: ANY_BIT, jt: 0, jf: 1, k: CLONE_NAMESPACES }, end(REFUSE | EPERM), end(ALLOW)),
    ...when(
      platform.ioctl,
      load(argumentAt(1)),
      ...TERMINAL_INJECTIONS.flatMap((request) => when(request, end(REFUSE | EPERM))),
      end(ALLOW),
    ),
    ...when(platform.socket, ...socketSteps()),
    ...when(platform.socketpair, load(argumentAt(0)), ...when(FAMILIES.unix, end(ALLOW)), end(REFUSE | EAFNOSUPPORT)),
    end(ALLOW),
  ];
}

function socketSteps(): FilterStep[] {
  const type = [load(argumentAt(1)), { code: AND, jt: 0, jf: 0, k: SOCK_TYPE_MASK }];
  const plain = [...type, ...when(SOCK_RAW, end(REFUSE | EPERM)), ...when(SOCK_PACKET, end(REFUSE | EPERM)), end(ALLOW)];
  return [
    load(argumentAt(0)),
    ...when(FAMILIES.unix, end(ALLOW)),
    ...when(FAMILIES.netlink, load(argumentAt(2)), ...when(NETLINK_ROUTE, end(ALLOW)), end(REFUSE | EAFNOSUPPORT)),
    ...when(FAMILIES.inet, ...plain),
    ...when(FAMILIES.inet6, ...plain),
    end(REFUSE | EAFNOSUPPORT),
  ];
}

/** The filter as the kernel reads it: eight bytes a step, little-endian. */
export function encodeFilter(steps: readonly FilterStep[]): Uint8Array {
  const bytes = Buffer.alloc(steps.length * 8);
  for (const [index, { code, jt, jf, k }] of steps.entries()) {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(jt, index * 8 + 2);
    bytes.writeUInt8(jf, index * 8 + 3);
    bytes.writeUInt32LE(k >>> 0, index * 8 + 4);
  }
  return bytes;
}

/**
 * The number of a system call that the filter refuses, on this processor; for programs that try it.
 * @throws sandbox-platform
 */
export function callNumber(name: string, arch: string = process.arch): number {
  const platform = PLATFORMS[arch === 'arm64' ? 'arm64' : 'x64'];
  const number = name === 'clone' || name === 'clone3' ? platform[name] : DENIED[name]?.[platform.column];
  if (number === undefined) throw platformUnknown(`${arch} (${name})`);
  return number;
}

/** The filter in the form that the Docker Engine takes (its JSON, with the names of libseccomp). */
export function dockerFilter(): object {
  const refuse = { action: 'SCMP_ACT_ERRNO', errnoRet: EPERM };
  const absent = { action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS };
  const noFamily = { action: 'SCMP_ACT_ERRNO', errnoRet: EAFNOSUPPORT };
  const argument = (index: number, value: number, op: string, valueTwo = 0) => ({ index, value, op, valueTwo });
  const families = Object.values(FAMILIES);
  const gaps = Array.from({ length: Math.max(...families) }, (_, family) => family).filter((family) => !families.includes(family));
  return {
    defaultAction: 'SCMP_ACT_ALLOW',
    syscalls: [
      { names: Object.keys(DENIED), ...refuse },
      { names: ['clone3'], ...absent },
      ...NAMESPACE_FLAGS.map((flag) => ({ names: ['clone'], ...refuse, args: [argument(0, flag, 'SCMP_CMP_MASKED_EQ', flag)] })),
      ...TERMINAL_INJECTIONS.map((request) => ({ names: ['ioctl'], ...refuse, args: [argument(1, request, 'SCMP_CMP_EQ')] })),
      { names: ['socket'], ...noFamily, args: [argument(0, Math.max(...families), 'SCMP_CMP_GT')] },
      ...gaps.map((family) => ({ names: ['socket'], ...noFamily, args: [argument(0, family, 'SCMP_CMP_EQ')] })),
      { names: ['socket'], ...noFamily, args: [argument(0, FAMILIES.netlink, 'SCMP_CMP_EQ'), argument(2, NETLINK_ROUTE, 'SCMP_CMP_NE')] },
    ],
  };
}

function platformUnknown(arch: string): MillraceError {
  return new MillraceError('sandbox-platform', {
    actor: 'host',
    message: `There is no system call filter for the processor ${arch}`,
    values: { arch },
    hint: 'Jobs in sandboxes run on x64 and arm64. Use another engine.',
  });
}
