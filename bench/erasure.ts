/** Reed-Solomon beside two packages of the registry, and the whole way from a CAR to shards and back. CPU seconds count all threads. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ReedSolomonErasure } from '@digitaldefiance/reed-solomon-erasure.wasm';
import { decodeShards } from '../src/storage/erasure/decode-shards.ts';
import { javascriptEngine } from '../src/storage/erasure/javascript-engine.ts';
import { prepareShards } from '../src/storage/erasure/prepare-shards.ts';
import { createReedSolomon } from '../src/storage/erasure/reed-solomon.ts';
import { openShardCar } from '../src/storage/erasure/shard-reader.ts';
import { buildContent } from '../src/storage/index.ts';

const MIB = 1 << 20;
const SECONDS_MIN = 1.5;
const ROUNDS = 3;
const folder = await mkdtemp(join(tmpdir(), 'millrace-bench-erasure-'));

/** All shards of one code, filled with random data: in one buffer, which is what the packages take, and one by one. */
interface Sample {
  k: number;
  m: number;
  bytes: Buffer;
  shards: Uint8Array[];
}

function sampleOf(k: number, m: number): Sample {
  const bytes = Buffer.alloc((k + m) * MIB);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, (k * MIB) / 4);
  for (let i = 0, state = 1; i < words.length; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return { k, m, bytes, shards: Array.from({ length: k + m }, (_, index) => bytes.subarray(index * MIB, (index + 1) * MIB)) };
}

/** The best of three rounds, MiB of data per CPU-second: the machine is shared. */
async function rate(dataMib: number, work: () => Promise<void> | void): Promise<number> {
  await work();
  let best = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const cpu = process.cpuUsage();
    let done = 0;
    let seconds = 0;
    while (seconds < SECONDS_MIN / ROUNDS) {
      await work();
      done += dataMib;
      const { user, system } = process.cpuUsage(cpu);
      seconds = (user + system) / 1e6;
    }
    best = Math.max(best, done / seconds);
  }
  return best;
}

/** Two ways to use a code: all parity from the data, and as much lost data as there is parity, from the rest. */
interface Contestant {
  name: string;
  encode(sample: Sample): Promise<void> | void;
  decode(sample: Sample): Promise<void> | void;
  takes(k: number, m: number): boolean;
  /** Buffers of its own for all shards. */
  allocate?: (k: number, m: number) => Uint8Array[];
}

function ours(engine: 'simd' | 'javascript', isInPlace = false): Contestant {
  const codes = new Map<string, ReturnType<typeof prepared>>();
  const prepared = (k: number, m: number) => {
    const code = createReedSolomon({ k, n: k + m }, engine === 'javascript' ? javascriptEngine : undefined);
    assert.equal(code.engine, engine);
    const lost = Math.min(k, m);
    const given = Array.from({ length: k }, (_, at) => lost + at);
    const wanted = Array.from({ length: lost }, (_, index) => index);
    return { code, given, wanted, recode: code.recoder(given, wanted) };
  };
  const codeFor = ({ k, m }: { k: number; m: number }) => {
    const key = `${k}+${m}`;
    const known = codes.get(key) ?? prepared(k, m);
    codes.set(key, known);
    return known;
  };
  return {
    name: `Millrace, ${engine === 'javascript' ? 'plain JavaScript' : `WebAssembly SIMD, ${isInPlace ? 'its own' : 'any'} buffers`}`,
    allocate: isInPlace ? (k, m) => codeFor({ k, m }).code.allocate(k + m, MIB) : undefined,
    encode(sample) {
      codeFor(sample).code.encode(sample.shards.slice(0, sample.k), sample.shards.slice(sample.k));
    },
    decode(sample) {
      const { given, wanted, recode } = codeFor(sample);
      recode(
        given.map((index) => sample.shards[index] as Uint8Array),
        wanted.map((index) => sample.shards[index] as Uint8Array),
      );
    },
    takes: () => true,
  };
}

function digitalDefiance(): Contestant {
  // Its ESM build looks for `__dirname`, which modules do not have: the file beside it is read here.
  const module = join(
    dirname(fileURLToPath(import.meta.resolve('@digitaldefiance/reed-solomon-erasure.wasm'))),
    'reed_solomon_erasure_bg.wasm',
  );
  const codec = ReedSolomonErasure.fromBytes(readFileSync(module));
  return {
    name: '@digitaldefiance/reed-solomon-erasure.wasm 1.0.2',
    encode: ({ bytes, k, m }) => assert.equal(codec.encode(bytes, k, m), 0),
    decode({ bytes, k, m }) {
      const lost = Math.min(k, m);
      const isThere = Array.from({ length: k + m }, (_, index) => index >= lost);
      assert.equal(codec.reconstruct(bytes, k, m, isThere), 0);
    },
    takes: () => true,
  };
}

/** The native package is built here from its one C file, with the headers of this Node; its own install script is not run. */
function ronomon(): Contestant | string {
  const require = createRequire(import.meta.url);
  const source = join(dirname(require.resolve('@ronomon/reed-solomon/package.json')), 'binding.c');
  const binary = join(folder, 'binding.node');
  const headers = join(dirname(process.execPath), '..', 'include', 'node');
  const built = spawnSync('cc', ['-std=c99', '-O3', '-shared', '-fPIC', '-I', headers, '-o', binary, source], { encoding: 'utf8' });
  if (built.status !== 0) return `not built: ${built.error?.message ?? built.stderr.split('\n')[0]}`;
  type Call = (...values: unknown[]) => void;
  const native = require(binary) as { create: (k: number, m: number) => object; encode: Call; MAX_K: number; MAX_M: number };
  const contexts = new Map<string, object>();
  const run = ({ bytes, k, m }: Sample, targets: number) => {
    const context = contexts.get(`${k}+${m}`) ?? native.create(k, m);
    contexts.set(`${k}+${m}`, context);
    const sources = 2 ** (k + m) - 1 - targets;
    return new Promise<void>((resolve, reject) => {
      const done = (error: Error | undefined) => (error ? reject(error) : resolve());
      native.encode(context, sources, targets, bytes, 0, k * MIB, bytes, k * MIB, m * MIB, done);
    });
  };
  return {
    name: '@ronomon/reed-solomon 6.0.0 (native)',
    encode: (sample) => run(sample, (2 ** sample.m - 1) * 2 ** sample.k),
    decode: (sample) => run(sample, 2 ** Math.min(sample.k, sample.m) - 1),
    takes: (k, m) => k <= native.MAX_K && m <= native.MAX_M,
  };
}

async function codecs(): Promise<void> {
  const native = ronomon();
  const contestants = [
    ours('simd', true),
    ours('simd'),
    ours('javascript'),
    digitalDefiance(),
    ...(typeof native === 'string' ? [] : [native]),
  ];
  if (typeof native === 'string') process.stdout.write(`@ronomon/reed-solomon ${native}\n`);
  process.stdout.write(`${'MiB of data per CPU-second, 1 MiB shards'.padEnd(52)}${'encode'.padStart(9)}${'decode'.padStart(9)}\n`);
  for (const [k, m] of [
    [10, 4],
    [4, 2],
    [20, 10],
    [16, 1],
  ] as const) {
    for (const contestant of contestants) {
      const name = `${k}+${m}  ${contestant.name}`.padEnd(52);
      if (!contestant.takes(k, m)) {
        process.stdout.write(`${name}        – (beyond its limits)\n`);
        continue;
      }
      const sample = sampleOf(k, m);
      const original = sample.shards.slice(0, k).map((shard) => Uint8Array.from(shard));
      const own = contestant.allocate?.(k, m);
      if (own !== undefined) sample.shards = own;
      for (const [index, shard] of original.entries()) sample.shards[index]?.set(shard);
      const encode = await rate(k, () => contestant.encode(sample));
      for (const shard of sample.shards.slice(0, Math.min(k, m))) shard.fill(0);
      const decode = await rate(k, () => contestant.decode(sample));
      for (const [index, shard] of original.entries())
        assert.ok(Buffer.compare(shard, sample.shards[index] as Uint8Array) === 0, contestant.name);
      process.stdout.write(`${name}${encode.toFixed(0).padStart(9)}${decode.toFixed(0).padStart(9)}\n`);
    }
  }
}

async function wholeWay(): Promise<void> {
  const path = join(folder, 'source');
  const file = await open(path, 'w');
  const sample = sampleOf(16, 0);
  for (let i = 0; i < 32; i += 1) await file.write(sample.bytes);
  await file.close();
  const content = await buildContent({ source: { path }, workFolder: join(folder, 'content'), public: false });
  const mib = content.carSize / MIB;
  const code = { k: 10, n: 14 };
  const shards = await measured('CAR to 10+4 shards: encode, UnixFS, CAR on disk, CommP', mib, () =>
    prepareShards({ content, code, workFolder: join(folder, 'shards') }),
  );
  const kept = await Promise.all(
    shards.shards.slice(4).map(async ({ index, cid, carPath }) => ({ index, cid, reader: await openShardCar(carPath, cid) })),
  );
  await measured('10 of 14 shards, four data shards lost, to the verified CAR', mib, () =>
    decodeShards({ cid: content.cid, code, shards: kept, carPath: join(folder, 'decoded.car') }),
  );
  for (const { reader } of kept) await reader.close();
}

async function measured<T>(name: string, mib: number, work: () => Promise<T>): Promise<T> {
  let peak = 0;
  const watch = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage().rss);
  }, 50);
  const before = process.memoryUsage().rss;
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  const result = await work();
  const { user, system } = process.cpuUsage(cpu);
  clearInterval(watch);
  const seconds = (performance.now() - startedAt) / 1000;
  process.stdout.write(
    `${name}, ${mib.toFixed(0)} MiB: ${(mib / ((user + system) / 1e6)).toFixed(0)} MiB per CPU-second, ${(mib / seconds).toFixed(0)} per second; ` +
      `memory ${Math.round(before / MIB)} MiB before, ${Math.round(peak / MIB)} MiB at most\n`,
  );
  return result;
}

try {
  await codecs();
  await wholeWay();
} finally {
  await rm(folder, { recursive: true, force: true });
}
