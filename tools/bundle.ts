/**
 * Makes one file of each library that nearly every process loads: Node loads viem's 500 modules in 300 ms of processor time, a file with
 * the same code in 50. Run by `tools/node.sh` whenever what npm installed, or this file, is newer than what was made; says nothing.
 *
 * Node finds a bundle before its package since `src/node_modules` and `test/node_modules` link to the folder of the bundles. Where the
 * links are absent or lead nowhere (no esbuild for this platform, a folder that cannot be written, an `npm ci` a moment ago) it finds the
 * packages: the same code, slower. See docs/decisions/0038-bundled-libraries.md.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';

/** What is bundled, as it is imported: ES modules only, since a bundle of another kind exports less. Of such a package everything that `src/` or `test/` imports is here: a bundle hides its package. */
export const BUNDLED: readonly string[] = [
  '@bufbuild/protobuf',
  '@hono/node-server',
  '@hpke/core',
  '@ipld/car',
  '@ipld/dag-pb',
  '@noble/curves/bls12-381.js',
  '@noble/curves/secp256k1.js',
  '@noble/hashes/scrypt.js',
  '@noble/hashes/sha2.js',
  '@noble/hashes/sha3.js',
  'cborg',
  'cborg/json',
  'commander',
  'hono',
  'ipfs-unixfs',
  'ipfs-unixfs-exporter',
  'ipfs-unixfs-importer',
  'kysely',
  'multiformats',
  'multiformats/bases/base58',
  'multiformats/cid',
  'multiformats/codecs/raw',
  'multiformats/hashes/digest',
  'multiformats/hashes/sha2',
  'onnx-buf',
  'viem',
  'viem/accounts',
];

const ROOT = join(import.meta.dirname, '..');
const LINKED = ['src', 'test'];

/** The name of an imported package without the path inside it: `@noble/hashes` of `@noble/hashes/sha2.js`. */
export function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

/**
 * Makes the bundles of what npm installed in `root`, once, and links them; without them nothing is linked.
 * @throws what esbuild or the file system says
 */
export async function bundleLibraries(root: string): Promise<void> {
  const cache = join(root, 'node_modules/.cache/bundles');
  const parts = [join(root, 'node_modules/.package-lock.json'), join(root, 'package-lock.json'), import.meta.filename];
  const hash = createHash('sha256');
  for (const path of parts.filter((file) => existsSync(file))) hash.update(readFileSync(path));
  const folder = join(cache, hash.digest('hex').slice(0, 16));
  unlinkOthers(root, folder);
  if (!existsSync(folder)) {
    const draft = `${folder}.${process.pid}`;
    try {
      await writeBundles(root, draft);
      renameSync(draft, folder);
    } catch (error) {
      rmSync(draft, { recursive: true, force: true });
      if (!existsSync(folder)) throw error; // Another process was first.
    }
  }
  for (const name of LINKED) link(join(root, name), folder);
}

/** Bundles of another installation must not be found while new ones are made. */
function unlinkOthers(root: string, folder: string): void {
  for (const name of LINKED) {
    const path = join(root, name, 'node_modules');
    if (linkOf(path) !== undefined && linkOf(path) !== relative(join(root, name), folder)) rmSync(path, { force: true });
  }
}

function link(from: string, folder: string): void {
  const path = join(from, 'node_modules');
  if (!existsSync(from) || linkOf(path) === relative(from, folder)) return;
  const draft = `${path}.${process.pid}`;
  symlinkSync(relative(from, folder), draft);
  renameSync(draft, path);
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** All in one build, so that what two libraries need is there once, and a class is the same for all. */
async function writeBundles(root: string, folder: string): Promise<void> {
  const { build } = await import('esbuild');
  await build({
    absWorkingDir: root,
    entryPoints: Object.fromEntries(BUNDLED.map((specifier) => [fileOf(specifier), specifier])),
    outdir: folder,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    keepNames: true,
    chunkNames: '.chunks/[hash]',
    // Libraries of the old kind that are bundled ask for what Node brings.
    banner: { js: `import { createRequire as bundledRequire } from 'node:module';\nconst require = bundledRequire(import.meta.url);` },
    logLevel: 'silent',
  });
  for (const name of new Set(BUNDLED.map(packageOf))) {
    const entries = BUNDLED.filter((specifier) => packageOf(specifier) === name).map((specifier) => [
      `.${specifier.slice(name.length)}`,
      `.${fileOf(specifier).slice(name.length)}.js`,
    ]);
    mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(join(folder, name, 'package.json'), JSON.stringify({ name, type: 'module', exports: Object.fromEntries(entries) }));
  }
}

/** Where the bundle of an import goes, without `.js`. */
function fileOf(specifier: string): string {
  return specifier === packageOf(specifier) ? `${specifier}/index` : specifier.replace(/\.js$/, '');
}

if (import.meta.main) {
  const cache = join(ROOT, 'node_modules/.cache/bundles');
  mkdirSync(cache, { recursive: true });
  await bundleLibraries(ROOT).catch((error) => writeFileSync(join(cache, 'failed.log'), `${error}\n`));
  // Also when it failed: the next start does not try again.
  writeFileSync(join(cache, 'made'), '');
}
