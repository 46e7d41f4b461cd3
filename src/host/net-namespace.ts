import { readFileSync } from 'node:fs';
import { runProgram } from './run-program.ts';

/** A network namespace of this machine by its name: what is in it sees the interfaces that were put there, and nothing else. */
export interface NetNamespace {
  /** As `ip netns` has it. */
  name: string;
  /** The file by which a process enters it. */
  path: string;
  /** Gives the name up; the namespace itself goes with its last process. */
  remove(): Promise<void>;
}

const NAME = /^[a-z0-9][a-z0-9-]{0,39}$/;

/**
 * Makes a namespace with a loopback and nothing else in it. As root only.
 * @throws program-missing, program-failed
 */
export async function createNetNamespace(name: string): Promise<NetNamespace> {
  await removeNetNamespace(name);
  await runProgram('ip', ['netns', 'add', name]);
  await runProgram('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
  return namespaceOf(name);
}

/**
 * Gives the namespace of a running process a name, so that interfaces can be moved there.
 * @throws program-missing, program-failed
 */
export async function attachNetNamespace(name: string, pid: number): Promise<NetNamespace> {
  await removeNetNamespace(name);
  await runProgram('ip', ['netns', 'attach', name, String(pid)]);
  return namespaceOf(name);
}

/** The command that runs another one in a namespace; only the network is another. */
export function enterNamespace(path: string, command: readonly string[]): [string, ...string[]] {
  return ['nsenter', `--net=${path}`, '--', ...command];
}

function namespaceOf(name: string): NetNamespace {
  return { name, path: `/run/netns/${name}`, remove: () => removeNetNamespace(name) };
}

async function removeNetNamespace(name: string): Promise<void> {
  if (!NAME.test(name)) throw new TypeError(`${name} is no name of a namespace`);
  if (isNamed(name)) await runProgram('ip', ['netns', 'delete', name]);
}

/** A file that lies in /run/netns without a namespace behind it counts too: a killed process may have left one. */
function isNamed(name: string): boolean {
  try {
    readFileSync(`/run/netns/${name}`);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT';
  }
  return true;
}
