import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { BUNDLED, packageOf } from './bundle.ts';

const root = join(import.meta.dirname, '..');
const place = realpathSync(mkdtempSync(join(tmpdir(), 'millrace-bundle-')));
after(() => rmSync(place, { recursive: true, force: true }));

/** A clone in miniature: what npm installed here, the real `tools/node.sh`, and a program that tells where it finds each bundled library. */
const WHERE = `console.log(JSON.stringify(${JSON.stringify(BUNDLED)}.map((specifier) => [specifier, import.meta.resolve(specifier)])));`;
for (const folder of ['node_modules', 'src', 'tools']) mkdirSync(join(place, folder));
for (const name of readdirSync(join(root, 'node_modules')).filter((entry) => !entry.startsWith('.'))) {
  symlinkSync(join(root, 'node_modules', name), join(place, 'node_modules', name));
}
for (const name of ['node.sh', 'bundle.ts']) cpSync(join(root, 'tools', name), join(place, 'tools', name));
writeFileSync(join(place, 'package.json'), '{"type":"module"}');
writeFileSync(join(place, 'src/where.ts'), WHERE);
const installed = (what: string) => writeFileSync(join(place, 'node_modules/.package-lock.json'), what);

function run(program: string, ...args: string[]): [specifier: string, url: string][] {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: place, encoding: 'utf8' });
  assert.deepEqual([status, stderr], [0, '']);
  return JSON.parse(stdout);
}
const start = () => run('sh', 'tools/node.sh', 'src/where.ts');
const areBundled = (found: [string, string][]) => found.map(([, url]) => url.includes('/node_modules/.cache/bundles/'));
const all = (value: boolean) => BUNDLED.map(() => value);

test('the first start makes the bundles, which have the very exports of their packages', async () => {
  installed('one');
  const found = start();
  assert.deepEqual(areBundled(found), all(true));
  assert.deepEqual(start(), found);
  for (const [specifier, url] of found) {
    const [bundle, original] = await Promise.all([import(url), import(specifier)]);
    assert.deepEqual(Object.keys(bundle).sort(), Object.keys(original).sort(), specifier);
  }
  const urlOf = (specifier: string) => new Map(found).get(specifier) as string;
  const [{ keccak256 }, { CID }, { CarReader }] = await Promise.all(
    ['viem', 'multiformats/cid', '@ipld/car'].map((name) => import(urlOf(name))),
  );
  assert.equal(keccak256('0x'), '0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470');
  // What several libraries share is there once: a CID that one of them makes is a CID for the others.
  const car = Buffer.from(
    '3aa265726f6f747381d82a58250001711220151fe9e73c6267a7060c6f6c4cca943c236f4b196723489608edb42a8b8fa80b6776657273696f6e01',
    'hex',
  );
  const [cid] = await (await CarReader.fromBytes(car)).getRoots();
  assert.ok(cid instanceof CID);
});

test('without the bundles Node finds the packages', () => {
  rmSync(join(place, 'node_modules/.cache'), { recursive: true, force: true });
  assert.deepEqual(areBundled(run(process.execPath, 'src/where.ts')), all(false));
});

test('what another installation left is not found where new bundles cannot be made', () => {
  mkdirSync(join(place, 'node_modules/.cache/bundles/of-another/viem'), { recursive: true });
  rmSync(join(place, 'src/node_modules'), { force: true });
  symlinkSync('../node_modules/.cache/bundles/of-another', join(place, 'src/node_modules'));
  rmSync(join(place, 'node_modules/esbuild'));
  installed('two');
  assert.deepEqual(areBundled(start()), all(false));
});

test('of a bundled package everything is bundled that the code imports', () => {
  const packages = new Set(BUNDLED.map(packageOf));
  const lacking = globSync('{src,test}/**/*.ts', { cwd: root, exclude: (name) => name === 'node_modules' }).flatMap((file) =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/(?:\bfrom|\bimport\(|\bimport)\s*'([^'.][^']*)'/g)]
      .map(([, specifier]) => specifier as string)
      .filter((specifier) => packages.has(packageOf(specifier)) && !BUNDLED.includes(specifier))
      .map((specifier) => `${file}: ${specifier}`),
  );
  assert.deepEqual(lacking, []);
});

test('what is bundled is there where only the product is installed', () => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.deepEqual(
    [...BUNDLED.map(packageOf), 'esbuild'].filter((name) => !Object.hasOwn(dependencies, name)),
    [],
  );
});
