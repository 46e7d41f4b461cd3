import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { executorCases } from './executor.cases.ts';
import { WasmExecutor } from './wasm-executor.ts';
import { limitModule } from './wasm-module.ts';
import { drawRandom, wasmModule, wasmPrograms } from './wasm-programs.cases.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-wasm-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));

async function keep(executor: WasmExecutor, name: string, module: Uint8Array): Promise<string> {
  const path = join(folder, `${name}.wasm`);
  writeFileSync(path, module);
  return await executor.importImage(path);
}

executorCases('wasm', async () => {
  const executor = new WasmExecutor({ imageFolder: join(folder, 'images') });
  return { executor, ...(await wasmPrograms((name, module) => keep(executor, name, module))), leftovers: () => [] };
});

test('the same module gives the same bytes in every run, also where it asks for randomness and the time', async () => {
  const executor = new WasmExecutor({ imageFolder: join(folder, 'images') });
  const image = await keep(executor, 'random', drawRandom());
  const limits = { memoryBytes: 4 << 20, cpus: 1, processes: 1, diskBytes: 1 << 20, wallSeconds: 20, outputBytes: 1000 };
  const runs = await Promise.all(
    [1, 2].map(async () => {
      const said: Uint8Array[] = [];
      const result = await executor.run({ image, argv: ['random'], limits, trust: 'foreign' }, { onLog: ({ bytes }) => said.push(bytes) });
      assert.equal(result.reason, 'completed', result.detail);
      return Buffer.concat(said).toString('hex');
    }),
  );
  assert.equal(runs[0], runs[1]);
  assert.match(runs[0] as string, /^(?!0{32})[0-9a-f]{48}$/);
});

test('a module that wants more of its host, shared or too much memory, or that is cut off, is refused', async () => {
  const good = wasmModule([]);
  const at = Buffer.from(good).indexOf(Buffer.from([5, 3, 1, 0, 2]));
  const withMemory = (...memory: number[]) =>
    Buffer.concat([good.subarray(0, at), Uint8Array.of(5, memory.length, ...memory), good.subarray(at + 5)]);
  assert.throws(() => limitModule(wasmModule([], [], [['env', 'system']]), 1 << 20), { code: 'bad-image', message: /env.system/ });
  assert.throws(() => limitModule(withMemory(1, 3, 2, 4), 1 << 20), /shared or of 64 bits/);
  assert.throws(() => limitModule(withMemory(1, 0, 0x80, 0x80, 4), 1 << 20), /begins with 65536 units; allowed are 16/);
  assert.throws(() => limitModule(withMemory(2, 0, 1, 0, 1), 1 << 20), /2 entries/);
  assert.throws(() => limitModule(Buffer.from('\x7fELF    '), 1 << 20), /no WebAssembly module/);
  for (const length of [3, at + 1, at + 3, good.length - 1])
    assert.throws(() => limitModule(good.subarray(0, length), 1 << 20), { code: 'bad-image' });
});
