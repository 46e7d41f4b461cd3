/** A person with a machine of one's own for a journey: a data folder and a password, spoken for by the command line. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CommandResult, NODE } from './local-network.ts';

/** Runs commands as one person on one machine. */
export interface Person {
  /** The data folder. */
  home: string;
  /** The text of a command that must succeed. */
  text(...args: string[]): Promise<string>;
  /** The JSON object of a command that must succeed. */
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what the command promises
  json(...args: string[]): Promise<any>;
  /** Any command, whatever its end. */
  run(...args: string[]): Promise<CommandResult>;
  /** The same person with other environment variables. */
  with(variables: Record<string, string>): Person;
  /** The error code of a command that must fail. */
  codeOf(...args: string[]): Promise<string>;
  /** Starts a command that stays. */
  start(...args: string[]): ChildProcess;
  /** Waits for the JSON object with which a command that stays says that it is ready. */
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what the command promises
  ready(child: ChildProcess): Promise<any>;
}

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const COMMAND_TIMEOUT_MS = 240_000;

/**
 * A person whose data folder is `root/name`; the network is called `friends` there. Commands run behind `prefix`, as on a machine of their own:
 * `nsenter --net=…`.
 */
export function person(
  root: string,
  name: string,
  password = `password of ${name}`,
  variables: Record<string, string> = {},
  prefix: readonly string[] = [],
): Person {
  const home = join(root, name);
  const passwordFile = join(root, `${name}.password`);
  mkdirSync(home, { recursive: true });
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  const env = {
    PATH: process.env.PATH,
    NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
    HOME: root,
    MILLRACE_HOME: home,
    MILLRACE_PASSWORD_FILE: passwordFile,
    ...variables,
  };
  const [program, ...first] = [...prefix, ...NODE] as unknown as [string, ...string[]];
  const command = (args: string[]) => [...first, MAIN, '--network', 'friends', ...args];
  const run = (...args: string[]): Promise<CommandResult> =>
    new Promise((resolve) => {
      const options = { env, timeout: COMMAND_TIMEOUT_MS, maxBuffer: 64 << 20 };
      execFile(program, command(args), options, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, stdout, stderr });
      });
    });
  const text = async (...args: string[]) => {
    const { code, stdout, stderr } = await run(...args);
    if (code !== 0) throw new TypeError(`${name}: millrace ${args.join(' ')} ended with ${code}:\n${stdout}\n${stderr}`);
    return stdout;
  };
  return {
    home,
    run,
    text,
    json: async (...args) => JSON.parse(await text('--json', ...args)),
    with: (others) => person(root, name, password, { ...variables, ...others }, prefix),
    async codeOf(...args) {
      const { code, stdout, stderr } = await run('--json', ...args);
      if (code === 0) throw new TypeError(`${name}: millrace ${args.join(' ')} should have failed:\n${stdout}`);
      // A command that stays logs to standard error; its error is the last line.
      return JSON.parse(stderr.trim().split('\n').at(-1) as string).code;
    },
    start: (...args) => spawn(program, command(['--json', ...args]), { env, stdio: ['ignore', 'pipe', 'pipe'] }),
    ready: (child) => firstLine(child, name),
  };
}

function firstLine(child: ChildProcess, name: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    let printed = '';
    let complained = '';
    child.stderr?.on('data', (chunk) => {
      complained = (complained + chunk).slice(-20_000);
    });
    child.stdout?.on('data', (chunk) => {
      printed += chunk;
      if (printed.includes('\n')) resolve(JSON.parse(printed.slice(0, printed.indexOf('\n'))));
    });
    child.once('exit', (code) => reject(new TypeError(`${name}: ended with ${code}: ${complained}`)));
  });
}

/** A port of this machine that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
