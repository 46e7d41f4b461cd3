/** `npm run bench -- [name ...]`: what this machine is, then every measurement of this folder, or those named, one after another. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { basename, join } from 'node:path';
import { formatSize } from '../src/units.ts';

const names = process.argv.slice(2);
const all = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith('.ts') && name !== 'run.ts')
  .map((name) => basename(name, '.ts'))
  .sort();
const unknown = names.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`No measurement ${unknown.join(', ')}. There are: ${all.join(', ')}\n`);
  process.exit(2);
}
process.stdout.write(
  `machine: ${availableParallelism()} x ${cpus()[0]?.model ?? 'unknown processor'}, ${formatSize(totalmem())} of memory, ` +
    `${process.platform} ${release()} ${process.arch}, Node ${process.versions.node}\n`,
);
const failed = (names.length > 0 ? names : all).filter((name) => {
  process.stdout.write(`\n== ${name}\n`);
  // A process each, so that one measurement's memory and warm code are not the next one's.
  return spawnSync(process.execPath, ['--expose-gc', join(import.meta.dirname, `${name}.ts`)], { stdio: 'inherit' }).status !== 0;
});
if (failed.length > 0) process.stderr.write(`\nfailed: ${failed.join(', ')}\n`);
process.exit(failed.length === 0 ? 0 : 1);
