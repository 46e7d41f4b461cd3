/**
 * Builds the strict modules of `examples/`: each `.wat` becomes the `.wasm` beside it, which is committed, so that nobody needs a compiler to run
 * an example. `--check` only tells whether they are what their sources give.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import openWabt from 'wabt';

const ROOT = join(import.meta.dirname, '..');
const FOLDER = join(ROOT, 'examples');

/** The binary form of a WebAssembly text, validated. `features`: what of wabt's that are off by default the text may use. */
export async function buildModule(name: string, text: string, features: Record<string, boolean> = {}): Promise<Uint8Array> {
  const wabt = await openWabt();
  const module = wabt.parseWat(name, text, features);
  try {
    // Its types know no argument, its code does.
    (module.validate as (allowed: object) => void).call(module, features);
    return module.toBinary({}).buffer;
  } finally {
    module.destroy();
  }
}

/** Every text below `examples/`, with the binary form that is due beside it. */
export async function buildExamples(): Promise<{ path: string; bytes: Uint8Array }[]> {
  const texts = readdirSync(FOLDER, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.wat'));
  return await Promise.all(
    texts.sort().map(async (name) => ({
      path: join(FOLDER, name.replace(/\.wat$/, '.wasm')),
      bytes: await buildModule(name, readFileSync(join(FOLDER, name), 'utf8')),
    })),
  );
}

if (import.meta.main) {
  for (const { path, bytes } of await buildExamples()) {
    if (!process.argv.includes('--check')) writeFileSync(path, bytes);
    else if (!readFileSync(path).equals(bytes)) {
      process.stderr.write(`${path} is not what its source gives; run: sh tools/node.sh tools/examples.ts\n`);
      process.exitCode = 1;
    }
  }
}
