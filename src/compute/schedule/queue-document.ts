import { createHash } from 'node:crypto';
import { Field } from '../spec/field.ts';
import { canonicalJson, readArguments, readEnvironment } from '../spec/job-spec.ts';
import { COUNT_MAX, readLabel } from '../spec/needs.ts';
import { readCpuMillis, readDuration, readSize } from '../spec/quantity.ts';
import type { Load } from './node-load.ts';

/** A command that is to run to its end once, on one machine or on several at the same time. */
export interface QueuedCommand {
  /** Unique in its queue; a name of a folder. */
  id: string;
  argv: readonly string[];
  env: Readonly<Record<string, string>>;
  /** What each machine must have to spare for it. */
  load: Load;
  /** So many, all at once. */
  machines: number;
  /** It is stopped then, and has failed. */
  wallSeconds: number;
  isInterruptible: boolean;
  /** Whether what it leaves in its output folder is brought back. */
  hasOutputs: boolean;
  /** SHA-256 of all of this: what was done is not done again, what was changed is. */
  digest: string;
}

/** A queue as its document says it. */
export interface QueueDocument {
  name: string;
  /** A file or folder that every machine is given, relative to the document. */
  input?: string;
  work: QueuedCommand[];
}

const WORK_MAX = 5_000;
const ENTRIES_MAX = 2_000;
const DAY = 86_400;
const WALL_SECONDS_MAX = 20 * DAY;
const FIELDS = ['name', 'command', 'env', 'cpus', 'memory', 'disk', 'time', 'machines', 'repeat', 'interruptible', 'outputs'];

/**
 * Reads a queue of work for rented machines (`queue: 1`, docs/job-format.md).
 * @throws bad-spec with field, line and column
 */
export function parseQueue(text: string): QueueDocument {
  const root = Field.read(text);
  const fields = root.fields(['queue', 'name', 'input', 'work']);
  root.required(fields, 'queue').integer({ least: 1, greatest: 1 });
  const work: QueuedCommand[] = [];
  const names = new Set<string>();
  for (const field of root.required(fields, 'work').list(ENTRIES_MAX)) {
    for (const each of readWork(field)) {
      if (names.has(each.id)) throw field.refuse(`two pieces of work are called ${each.id}`);
      names.add(each.id);
      work.push(each);
    }
    if (work.length > WORK_MAX) throw field.refuse(`more than ${WORK_MAX} pieces of work`);
  }
  if (work.length === 0) throw root.refuse('it has no work');
  const { name, input } = fields;
  return {
    name: name === undefined ? 'queue' : readLabel(name),
    ...(input === undefined ? {} : { input: input.matching(/^[^\p{Cc}]{1,1000}$/u, 'a path') }),
    work,
  };
}

/** One entry: one piece of work, or as many as `repeat` says, each told its number. */
function readWork(field: Field): QueuedCommand[] {
  const fields = field.fields(FIELDS);
  const name = readLabel(field.required(fields, 'name'));
  const argv = readArguments(field.required(fields, 'command'));
  if (argv.length === 0) throw field.refuse('its command is empty');
  const { env, cpus, memory, disk, time, machines, repeat, interruptible, outputs } = fields;
  const shared = {
    argv,
    env: env === undefined ? {} : readEnvironment(env),
    load: {
      milliCpus: cpus === undefined ? 1000 : readCpuMillis(cpus),
      memoryBytes: memory === undefined ? 64 << 20 : readSize(memory),
      diskBytes: disk === undefined ? 0 : readSize(disk),
      gpus: 0,
    },
    machines: machines?.integer({ least: 1, greatest: COUNT_MAX }) ?? 1,
    wallSeconds: time === undefined ? DAY : readDuration(time, WALL_SECONDS_MAX),
    isInterruptible: interruptible?.boolean() ?? false,
    hasOutputs: outputs?.boolean() ?? false,
  };
  const count = repeat?.integer({ least: 1, greatest: WORK_MAX });
  if (count === undefined) return [withDigest({ id: name, ...shared })];
  return Array.from({ length: count }, (_, index) =>
    withDigest({ id: `${name}-${index + 1}`, ...shared, env: { ...shared.env, QUEUE_INDEX: String(index + 1) } }),
  );
}

function withDigest(work: Omit<QueuedCommand, 'digest'>): QueuedCommand {
  return { ...work, digest: createHash('sha256').update(canonicalJson(work)).digest('hex') };
}
