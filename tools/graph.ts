/** `sh tools/node.sh tools/graph.ts [--check]`: draws who imports whom among the folders of src/ into docs/architecture.md, from the code. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { LADDER, readSources } from '../test/architecture.ts';

const root = join(import.meta.dirname, '..');
const page = join(root, 'docs', 'architecture.md');
const [START, END] = ['<!-- graph: written by tools/graph.ts -->', '<!-- end of graph -->'];

const order = LADDER.flat();
const edges = new Set<string>();
for (const { path, text } of readSources(root, 'src')) {
  const from = path.split('/')[1] as string;
  if (/\.(test|cases)\.ts$/.test(path) || from.endsWith('.ts')) continue;
  for (const [, target] of text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
    const to = posix.join(posix.dirname(path), target as string).split('/')[1] ?? '';
    if (order.includes(to) && to !== from) edges.add(`${from} --> ${to}`);
  }
}
const lines = [...edges].sort(
  (one, other) => order.indexOf(one.split(' ')[0] as string) - order.indexOf(other.split(' ')[0] as string) || (one < other ? -1 : 1),
);
const drawing = ['```mermaid', 'graph TD', ...lines.map((edge) => `  ${edge}`), '```'].join('\n');

const text = readFileSync(page, 'utf8');
const wanted = `${text.slice(0, text.indexOf(START))}${START}\n${drawing}\n${text.slice(text.indexOf(END))}`;
if (process.argv.includes('--check')) {
  if (wanted !== text) {
    process.stdout.write("docs/architecture.md differs from the code. Run 'sh tools/node.sh tools/graph.ts'.\n");
    process.exit(1);
  }
} else writeFileSync(page, wanted);
