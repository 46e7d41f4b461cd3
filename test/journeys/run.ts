/**
 * `npm run journeys -- [--full] [name ...]`: retells the named stories of this folder (all without a name) on real
 * processes; `--full` runs their campaigns at full length instead of a tenth.
 */
import { basename } from 'node:path';
import { announceSeed } from '../campaign.ts';
import { findTestFiles, nodeMismatch, report, runFiles, withServer } from '../suite.ts';

const args = process.argv.slice(2);
const names = args.filter((arg) => arg !== '--full');
const journeys = new Map(findTestFiles('test/journeys').map((file) => [basename(file, '.test.ts'), file]));
const unknown = names.filter((name) => !journeys.has(name));
if (unknown.length > 0) {
  process.stderr.write(`No journey ${unknown.join(', ')}. There are: ${[...journeys.keys()].join(', ')}\n`);
  process.exit(2);
}
const mismatch = nodeMismatch();
if (mismatch !== undefined) {
  process.stderr.write(`${mismatch}\n`);
  process.exit(5);
}
if (args.includes('--full')) process.env.MILLRACE_FULL = '1';
announceSeed();
const files = [...journeys].filter(([name]) => names.length === 0 || names.includes(name)).map(([, file]) => file);
process.exit(report(await withServer(() => runFiles(files))) ? 0 : 1);
