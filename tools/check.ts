/** `npm run check`: everything that can be judged without running the product. All steps run; any that fails fails the whole. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
const node = process.execPath;

const STEPS: readonly [name: string, command: string, ...args: string[]][] = [
  ['Biome', 'node_modules/.bin/biome', 'check', '--error-on-warnings'],
  ['types', 'node_modules/.bin/tsc', '-p', 'tsconfig.json'],
  ['knip', 'node_modules/.bin/knip', '--no-progress'],
  ['architecture', node, '--test', '--test-reporter=dot', 'test/architecture.test.ts'],
  ['docs/errors.md', node, 'tools/errors.ts', '--check'],
  ['docs/architecture.md', node, 'tools/graph.ts', '--check'],
  ['package-lock.json', node, 'tools/lock.ts', '--check'],
];

const failed = STEPS.filter(([name, command, ...args]) => {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 64 << 20 });
  const isFine = status === 0;
  process.stdout.write(`${isFine ? 'ok    ' : 'FAILED'} ${name}\n`);
  if (!isFine) process.stdout.write(`${stdout}${stderr}${error?.message ?? ''}\n`);
  return !isFine;
});
process.exit(failed.length === 0 ? 0 : 1);
