/** A whole network of one's own for a journey: real processes, started and spoken to by the command line as a person would. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ChainClient, connectChain, readManifest } from '../../src/chain/index.ts';

/** What a command printed and how it ended. */
export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs commands on a network in a folder of its own. */
export interface LocalNetwork {
  home: string;
  /** The text of a command that must succeed. */
  text(...args: string[]): Promise<string>;
  /** The JSON object of a command that must succeed. */
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what the command promises
  json(...args: string[]): Promise<any>;
  /** Any command, whatever its end. */
  run(...args: string[]): Promise<CommandResult>;
  /** Any command with further environment variables, and interrupted (once) as soon as something is so. */
  runWith(given: { env?: Record<string, string>; interruptWhen?: () => boolean }, ...args: string[]): Promise<CommandResult>;
  /** The chain of the network that runs, as a program sees it. */
  client(): Promise<ChainClient>;
  /** Stops everything and deletes the folder. */
  remove(): Promise<void>;
}

/** Node as `tools/node.sh` starts it. */
export const NODE: readonly [string, ...string[]] = [process.execPath, '--min-semi-space-size=16'];
/** The command line's program. */
export const MAIN: string = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const COMMAND_TIMEOUT_MS = 300_000;
const WATCH_MS = 20;
/** Away from the ports that a person's own network takes. */
const PORTS = ['--rpc-port', '0', '--node-port', '0'];

/** An empty data folder with the command line for it; nothing runs yet. */
export function localNetwork(): LocalNetwork {
  const home = mkdtempSync(join(tmpdir(), 'millrace-journey-'));
  const runWith: LocalNetwork['runWith'] = (given, ...args) =>
    new Promise((resolve) => {
      const command = args.includes('up') ? [...args, ...PORTS] : args;
      const env = {
        PATH: process.env.PATH,
        NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
        HOME: home,
        MILLRACE_HOME: join(home, 'data'),
        ...given.env,
      };
      const options = { env, timeout: COMMAND_TIMEOUT_MS, maxBuffer: 64 << 20 };
      const [program, ...first] = NODE;
      const child = execFile(program, [...first, MAIN, ...command], options, (error, stdout, stderr) => {
        clearInterval(watch);
        resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, stdout, stderr });
      });
      const { interruptWhen } = given;
      const interrupt = () => {
        if (interruptWhen?.() !== true) return;
        clearInterval(watch);
        child.kill('SIGINT');
      };
      const watch = interruptWhen === undefined ? undefined : setInterval(interrupt, WATCH_MS);
    });
  const run = (...args: string[]) => runWith({}, ...args);
  const text = async (...args: string[]) => {
    const result = await run(...args);
    if (result.code !== 0) throw new TypeError(`millrace ${args.join(' ')} ended with ${result.code}:\n${result.stdout}\n${result.stderr}`);
    return result.stdout;
  };
  return {
    home,
    run,
    runWith,
    text,
    json: async (...args) => JSON.parse(await text('--json', ...args)),
    client() {
      const folder = join(home, 'data', 'dev');
      const { rpcUrl } = JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')) as { rpcUrl: string };
      return connectChain({ rpcUrl, manifest: readManifest(join(folder, 'network.json')) });
    },
    async remove() {
      await run('down');
      rmSync(home, { recursive: true, force: true });
    },
  };
}
