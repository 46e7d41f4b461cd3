import type { Attack, AttackProgram, ExecutorSubject } from './executor.cases.ts';

/** Functions of WASI preview 1 that the programs call: parameters and result, `i` for i32 and `I` for i64. */
const CALLS: Record<string, [params: string, result: string]> = {
  fd_write: ['iiii', 'i'],
  fd_read: ['iiii', 'i'],
  fd_pwrite: ['iiiIi', 'i'],
  fd_seek: ['iIii', 'i'],
  fd_allocate: ['iII', 'i'],
  fd_filestat_set_size: ['iI', 'i'],
  path_open: ['iiiiiIIii', 'i'],
  path_create_directory: ['iii', 'i'],
  path_symlink: ['iiiii', 'i'],
  random_get: ['ii', 'i'],
  clock_time_get: ['iIi', 'i'],
  proc_exit: ['i', ''],
};
const NAMES = Object.keys(CALLS);

const VALUE: Record<string, number> = { i: 0x7f, I: 0x7e };
const OUTPUT = 3;
const INPUT = 4;
/** Where programs keep what calls give back, and where text begins. */
const SCRATCH = 64;
const TEXT = 1024;
const CREATE = 1;
const RIGHTS = 0x1fffffff;
const READ = 2;

type Code = readonly number[];

const unsigned = (value: number): number[] => (value < 128 ? [value] : [(value % 128) | 0x80, ...unsigned(Math.floor(value / 128))]);
const signed = (value: bigint): number[] => {
  const low = Number(BigInt.asUintN(7, value));
  const rest = value >> 7n;
  const isLast = (rest === 0n && low < 64) || (rest === -1n && low >= 64);
  return isLast ? [low] : [low | 0x80, ...signed(rest)];
};
const vector = (items: readonly Code[]) => [...unsigned(items.length), ...items.flat()];
const sized = (bytes: Code) => [...unsigned(bytes.length), ...bytes];
const text = (value: string) => sized([...Buffer.from(value)]);
const section = (id: number, content: Code) => [id, ...sized(content)];

const i32 = (value: number): Code => [0x41, ...signed(BigInt(value))];
const i64 = (value: bigint): Code => [0x42, ...signed(value)];
const call = (name: string, ...args: readonly Code[]): Code => [...args.flat(), 0x10, ...unsigned(NAMES.indexOf(name))];
const drop: Code = [0x1a];
const trap: Code = [0x00];
const when = (condition: Code, then: Code): Code => [...condition, 0x04, 0x40, ...then, 0x0b];
const forever = (body: Code): Code => [0x03, 0x40, ...body, 0x0c, 0x00, 0x0b];
const isZero: Code = [0x45];
const local: Code = [0x20, 0x00];
const setLocal: Code = [0x21, 0x00];
const plus = (value: number): Code => [...i32(value), 0x6a];
const load = (at: number): Code => [...i32(at), 0x28, 0x02, 0x00];
const store = (at: number, value: Code): Code => [...i32(at), ...value, 0x36, 0x02, 0x00];
const growByOne: Code = [...i32(1), 0x40, 0x00];

/** A module with one memory and one function `_start`, which has one i32 of its own; `strings` lie one after another from TEXT on. */
export function wasmModule(body: Code, strings: readonly string[] = [], imports: readonly [string, string][] = []): Uint8Array {
  const types = [[0x60, 0, 0], ...NAMES.map((name) => functionType(CALLS[name] as [string, string]))];
  const wanted = NAMES.map((name, index) => [...text('wasi_snapshot_preview1'), ...text(name), 0, ...unsigned(index + 1)]);
  const foreign = imports.map(([from, name]) => [...text(from), ...text(name), 0, 0]);
  const data = strings.length === 0 ? [] : section(11, vector([[0, ...i32(TEXT), 0x0b, ...sized([...Buffer.from(strings.join(''))])]]));
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector(types)),
    ...section(2, vector([...wanted, ...foreign])),
    ...section(3, vector([[0]])),
    ...section(5, vector([[0, 2]])),
    ...section(
      7,
      vector([
        [...text('memory'), 2, 0],
        [...text('_start'), 0, ...unsigned(NAMES.length + imports.length)],
      ]),
    ),
    ...section(10, vector([sized([1, 1, 0x7f, ...body, 0x0b])])),
    ...data,
  ]);
}

function functionType([params, result]: [string, string]): number[] {
  const types = (letters: string) => vector([...letters].map((letter) => [VALUE[letter] as number]));
  return [0x60, ...types(params), ...types(result)];
}

/** Text with its place in memory. */
function layout(...strings: string[]): { strings: string[]; at: (index: number) => [at: Code, length: Code] } {
  const offsets = strings.map((_, index) => TEXT + strings.slice(0, index).reduce((sum, each) => sum + Buffer.byteLength(each), 0));
  return { strings, at: (index) => [i32(offsets[index] as number), i32(Buffer.byteLength(strings[index] as string))] };
}

const write = (fd: Code, at: Code, length: Code): Code => [
  ...store(0, at),
  ...store(4, length),
  ...call('fd_write', fd, i32(0), i32(1), i32(8)),
];
const open = (folder: number, path: [Code, Code], flags: number, rights = RIGHTS): Code =>
  call('path_open', i32(folder), i32(0), ...path, i32(flags), i64(BigInt(rights)), i64(BigInt(rights)), i32(0), i32(SCRATCH));
const opened = load(SCRATCH);

/** What must not succeed: prints ESCAPED when it does (answer 0). */
const mustFail = (attempt: Code, escaped: [Code, Code]): Code => when([...attempt, ...isZero], [...write(i32(1), ...escaped), ...drop]);

function greet(): Uint8Array {
  const { strings, at } = layout('out\n', 'err\n', 'name', 'deep', 'deep/greeting', 'hello ');
  return wasmModule(
    [
      ...[...write(i32(1), ...at(0)), ...drop, ...write(i32(2), ...at(1)), ...drop],
      ...[
        ...open(INPUT, at(2), 0, READ),
        ...drop,
        ...store(0, i32(8192)),
        ...store(4, i32(100)),
        ...call('fd_read', opened, i32(0), i32(1), i32(SCRATCH + 4)),
        ...drop,
      ],
      ...[...call('path_create_directory', i32(OUTPUT), ...at(3)), ...drop, ...open(OUTPUT, at(4), CREATE), ...drop],
      ...[...write(opened, ...at(5)), ...drop, ...write(opened, i32(8192), load(SCRATCH + 4)), ...drop],
    ],
    strings,
  );
}

function tick(): Uint8Array {
  const { strings, at } = layout('tick\n');
  const spin: Code = [...i32(0), ...setLocal, 0x03, 0x40, ...local, ...plus(1), 0x22, 0x00, ...i32(40_000_000), 0x48, 0x0d, 0x00, 0x0b];
  return wasmModule(forever([...write(i32(1), ...at(0)), ...drop, ...spin]), strings);
}

/** Prints sixteen random bytes and the time: the same in every run. */
export function drawRandom(): Uint8Array {
  return wasmModule([
    ...[...call('random_get', i32(512), i32(16)), ...drop, ...call('clock_time_get', i32(0), i64(0n), i32(528)), ...drop],
    ...[...write(i32(1), i32(512), i32(24)), ...drop],
  ]);
}

const { strings: paths, at: pathAt } = layout(
  'ESCAPED',
  '/etc/passwd',
  '../etc/passwd',
  '../../../../etc/shadow',
  'link',
  'new\nline',
  'file',
  '../out',
);
const traversals = [1, 2, 3].flatMap((index) => mustFail(open(OUTPUT, pathAt(index), 0), pathAt(0)));

/** The modules of the suite by attack; a sentence where WebAssembly has nothing to attack with. */
const ATTACKS: Record<Attack, string | { module: Uint8Array; reasons: AttackProgram['reasons']; limits?: AttackProgram['limits'] }> = {
  'fork bomb': 'a module has one thread and no call that makes another',
  'memory hog': { module: wasmModule(forever(when([...growByOne, ...i32(-1), 0x46], trap))), reasons: ['memory-exceeded'] },
  'disk fill': {
    module: wasmModule([...open(OUTPUT, pathAt(6), CREATE), ...drop, ...forever(when(write(opened, i32(0), i32(65_536)), trap))], paths),
    reasons: ['disk-exceeded'],
  },
  'inode fill': {
    module: wasmModule(
      [
        ...i32(1),
        ...setLocal,
        ...forever([...when(call('path_create_directory', i32(OUTPUT), i32(TEXT), local), trap), ...local, ...plus(2), ...setLocal]),
      ],
      ['a/'.repeat(5000)],
    ),
    reasons: ['disk-exceeded'],
  },
  'CPU hog': { module: wasmModule(forever([])), reasons: ['wall-exceeded'], limits: { wallSeconds: 0.5 } },
  'escape by mounts': 'there is no call that mounts; a module that imports anything but WASI is refused (next test)',
  symlinks: {
    module: wasmModule([...mustFail(call('path_symlink', ...pathAt(1), i32(OUTPUT), ...pathAt(4)), pathAt(0)), ...traversals], paths),
    reasons: ['completed'],
  },
  setuid: 'there are no users',
  '/proc': { module: wasmModule(traversals, paths), reasons: ['completed'] },
  ptrace: 'there are no other processes',
  keyring: 'there is no call for keys',
  'raw sockets': 'WASI preview 1 opens no sockets, and none is given',
  'metadata addresses': 'no sockets',
  DNS: 'no sockets',
  'services of the host': 'no sockets',
  'artefact path traversal': {
    module: wasmModule([...mustFail(open(OUTPUT, pathAt(7), CREATE), pathAt(0)), ...open(OUTPUT, pathAt(5), CREATE), ...drop], paths),
    reasons: ['artefacts-refused'],
  },
  'sparse artefact': {
    module: wasmModule(
      [
        ...[...open(OUTPUT, pathAt(6), CREATE), ...drop],
        ...mustFail(call('fd_filestat_set_size', opened, i64(1n << 40n)), pathAt(0)),
        ...mustFail(call('fd_allocate', opened, i64(1n << 40n), i64(1n)), pathAt(0)),
        ...mustFail(call('fd_seek', opened, i64(1n << 40n), i32(0), i32(SCRATCH + 8)), pathAt(0)),
        ...[
          ...store(0, i32(0)),
          ...store(4, i32(8)),
          ...mustFail(call('fd_pwrite', opened, i32(0), i32(1), i64(1n << 40n), i32(8)), pathAt(0)),
        ],
      ],
      paths,
    ),
    reasons: ['completed'],
  },
  'output flood': {
    module: wasmModule(forever([...write(i32(1), i32(0), i32(60_000)), ...drop])),
    reasons: ['output-exceeded'],
    limits: { outputBytes: 100_000 },
  },
  'ignored signals': 'there are no signals; the CPU hog listens to nothing either',
};

/** The programs of the suite as WebAssembly; `keep` imports a module and gives its digest. */
export async function wasmPrograms(
  keep: (name: string, module: Uint8Array) => Promise<string>,
): Promise<Pick<ExecutorSubject, 'greet' | 'exitThree' | 'tick' | 'attack'>> {
  const digests = new Map<string, string>();
  for (const [name, attack] of Object.entries(ATTACKS)) {
    if (typeof attack !== 'string') digests.set(name, await keep(name.replace('/', ''), attack.module));
  }
  const program = async (name: string, module: Uint8Array) => ({ argv: [name], image: await keep(name, module) });
  return {
    greet: await program('greet', greet()),
    exitThree: await program('exit-three', wasmModule(call('proc_exit', i32(3)))),
    tick: await program('tick', tick()),
    attack: (name) => {
      const attack = ATTACKS[name];
      return typeof attack === 'string'
        ? attack
        : { argv: [name], image: digests.get(name), reasons: attack.reasons, limits: attack.limits };
    },
  };
}
