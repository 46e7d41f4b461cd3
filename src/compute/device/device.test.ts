import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { buildModule } from '../../../tools/examples.ts';
import { MillraceError } from '../../errors.ts';
import { SandboxExecutor, WasmExecutor } from '../../host/index.ts';
import { BENCHMARK_MODULE } from './benchmark-module.ts';
import { classOf, DEVICE_CLASSES, SINGLE_CORE_MIN } from './device-class.ts';
import { readInstructions } from './device-facts.ts';
import { reportDevice, requireForeignEngines } from './device-report.ts';
import { findGraphics, modelWord, readNvidia } from './graphics.ts';

const FOLDER = mkdtempSync(join(tmpdir(), 'device-'));
const GIB = 2 ** 30;
after(() => rmSync(FOLDER, { recursive: true, force: true }));

test('this machine is detected and measured: every score is a whole number above nothing, and nothing is left on its disk', async () => {
  const executors = [
    new SandboxExecutor({ imageFolder: join(FOLDER, 'images') }),
    new WasmExecutor({ imageFolder: join(FOLDER, 'modules') }),
  ];
  const said: string[] = [];
  const folder = join(FOLDER, 'data');
  const report = await reportDevice({ folder, executors, milliseconds: 20, onProgress: (what) => said.push(what) });
  for (const executor of executors) await executor.close();
  const { facts, scores, deviceClass, attributes } = report;
  for (const [name, score] of Object.entries(scores)) assert.ok(Number.isSafeInteger(score) && score > 0, `${name} is ${score}`);
  assert.ok(scores.allCores >= scores.singleCore / 2);
  assert.ok(facts.cores >= 1 && facts.memoryBytes > GIB / 4 && facts.diskBytes > 0 && facts.kernel !== '');
  assert.ok(facts.engines.some(({ engine, takesForeign }) => engine === 'wasm' && takesForeign));
  assert.equal(deviceClass, classOf(facts, scores));
  assert.deepEqual([attributes.architecture, attributes['score.strict']], [facts.architecture, String(scores.strict)]);
  assert.ok(Object.values(attributes).every((value) => value.length <= 256));
  assert.deepEqual(said, ['devices', 'one core', `${facts.cores} cores`, 'memory', 'disk', 'durable writes', 'strict WebAssembly']);
  assert.deepEqual(readdirSync(folder), []);
});

test('what machines are measured with is what its text gives', async () => {
  const text = readFileSync(join(import.meta.dirname, 'benchmark-module.wat'), 'utf8');
  assert.deepEqual(Buffer.from(await buildModule('benchmark', text)), BENCHMARK_MODULE);
});

test('a class says no more than the machine has', () => {
  const of = (cores: number, gib: number, singleCore = 300) => classOf({ cores, memoryBytes: gib * GIB }, { singleCore });
  assert.deepEqual(
    [of(1, 1), of(2, 1.93), of(3, 64), of(16, 15.8), of(16, 8), of(1000, 4000)],
    ['cpu-1', 'cpu-2', 'cpu-2', 'cpu-16', 'cpu-8', 'cpu-256'],
  );
  assert.deepEqual([of(4, 4, SINGLE_CORE_MIN - 1), of(4, 4, SINGLE_CORE_MIN)], ['slow-4', 'cpu-4']);
  assert.equal(classOf({ cores: 8, memoryBytes: 8 * GIB }, { singleCore: 300 }, { model: 'rtx4090', count: 2 }), 'gpu-rtx4090-2');
  assert.equal(new Set(DEVICE_CLASSES.map(({ deviceClass }) => deviceClass)).size, 9);
  for (const { deviceClass, cores, memoryGib } of DEVICE_CLASSES) assert.equal(of(cores, memoryGib), deviceClass);
});

test('models of GPUs are one word, as SDL files have them', () => {
  const words: [string, string][] = [
    ['NVIDIA H100 80GB HBM3', 'h100'],
    ['NVIDIA H100 PCIe', 'h100'],
    ['NVIDIA A100-SXM4-80GB', 'a100'],
    ['NVIDIA GeForce RTX 4090', 'rtx4090'],
    ['NVIDIA GeForce RTX 3080 Ti', 'rtx3080ti'],
    ['NVIDIA RTX A6000', 'rtxa6000'],
    ['NVIDIA L40S', 'l40s'],
    ['Tesla T4', 't4'],
    ['Tesla V100-SXM2-16GB', 'v100'],
    ['NVIDIA H200', 'h200'],
    ['AMD Instinct MI300X', 'mi300x'],
    ['', 'unknown'],
    ['../../etc; rm -rf /', 'etcrmrf'],
  ];
  for (const [name, word] of words) assert.equal(modelWord(name), word, name);
});

test('the GPUs that nvidia-smi tells of and those that the kernel shows make one list, and lines that are none are passed over', async () => {
  const output =
    'NVIDIA A100-SXM4-80GB, 81920, 550.54.15\nNVIDIA GeForce RTX 4090, 24564, 550.54.15\n\nNo devices were found\nx, [N/A], y\n';
  const told = readNvidia(output);
  assert.deepEqual(told, [
    { vendor: 'nvidia', model: 'a100', memoryBytes: 80 * GIB, bus: 'sxm', driver: '550.54.15' },
    { vendor: 'nvidia', model: 'rtx4090', memoryBytes: 24_564 * 2 ** 20, bus: 'pcie', driver: '550.54.15' },
  ]);
  const [drm, path] = [join(FOLDER, 'drm'), join(FOLDER, 'bin')];
  const card = (name: string, files: Record<string, string>) => {
    mkdirSync(join(drm, name, 'device'), { recursive: true });
    for (const [file, text] of Object.entries(files)) writeFileSync(join(drm, name, 'device', file), `${text}\n`);
  };
  card('card0', { vendor: '0x10de', device: '0x20b2' });
  card('card0-HDMI-A-1', {});
  card('card1', { vendor: '0x1002', device: '0x744c', product_name: 'Radeon RX 7900 XTX', mem_info_vram_total: String(24 * GIB) });
  card('card2', { vendor: '0x1234', device: '0x1111' });
  const amd = { vendor: 'amd', model: 'rx7900xtx', memoryBytes: 24 * GIB, bus: '', driver: '' };
  const bare = { vendor: 'nvidia', model: 'pci20b2', memoryBytes: 0, bus: '', driver: '' };
  assert.deepEqual(await findGraphics({ drm, path: FOLDER }), [bare, amd], 'without a driver');
  mkdirSync(path);
  writeFileSync(join(path, 'nvidia-smi'), `#!/bin/sh\nprintf '%s' '${output}'\n`);
  chmodSync(join(path, 'nvidia-smi'), 0o755);
  assert.deepEqual(await findGraphics({ drm, path }), [...told, amd]);
  assert.deepEqual(await findGraphics({ drm: join(FOLDER, 'nothing'), path: FOLDER }), []);
});

test('instruction sets are found on x86 and on ARM', () => {
  assert.deepEqual(readInstructions('processor: 0\nflags\t\t: fpu sse4_2 avx2 hypervisor sha_ni\n'), ['avx2', 'sha_ni', 'sse4_2']);
  assert.deepEqual(readInstructions('processor: 0\nFeatures\t: fp asimd sha2 sve2\n'), ['asimd', 'sha2', 'sve2']);
  assert.deepEqual(readInstructions('garbage'), []);
});

test('without an engine that holds every limit strangers’ work is refused, with what to do; with one of several it is taken there', async () => {
  const lame = new SandboxExecutor({ imageFolder: join(FOLDER, 'images'), cgroups: null });
  const { missing } = await lame.inspect();
  await assert.rejects(requireForeignEngines([lame]), (error) => {
    assert.ok(error instanceof MillraceError);
    assert.deepEqual([error.code, error.actor], ['no-foreign-engine', 'host']);
    assert.ok(missing.length > 0);
    return missing.every(({ what, fix }) => error.message.includes(`bubblewrap: ${what}`) && error.hint?.includes(fix));
  });
  await assert.rejects(requireForeignEngines([]), { code: 'no-foreign-engine', hint: 'apt-get install bubblewrap util-linux.' });
  const wasm = new WasmExecutor({ imageFolder: join(FOLDER, 'modules') });
  assert.deepEqual(await requireForeignEngines([lame, wasm]), [wasm]);
  for (const engine of [lame, wasm]) await engine.close();
});
