import assert from 'node:assert/strict';
import { test } from 'node:test';
import { divide, generatorRow, multiply } from './gf256.ts';
import { javascriptEngine } from './javascript-engine.ts';
import { assembleKernels } from './recoding-kernel.ts';
import { reedSolomonCases } from './reed-solomon.cases.ts';
import { createReedSolomon } from './reed-solomon.ts';
import { simdEngine } from './simd-engine.ts';
import { webAssembly } from './wasm-assembler.ts';

reedSolomonCases(javascriptEngine);
const simd = simdEngine();
if (simd !== undefined) reedSolomonCases(simd);

test('this Node has the SIMD engine, and it is the one that is taken', () => {
  assert.equal(createReedSolomon({ k: 10, n: 14 }).engine, 'simd');
});

test('both modules, with strict and with relaxed look-ups, are valid and under 8 KiB', () => {
  for (const isRelaxed of [false, true]) {
    const module = assembleKernels(isRelaxed);
    assert.ok(webAssembly.validate(module));
    assert.ok(module.length < 8192, `${module.length} bytes`);
  }
});

test('the field is that of the polynomial 0x11d: products by repeated doubling agree for all pairs', () => {
  for (let a = 0; a < 256; a += 1) {
    for (let b = 0; b < 256; b += 1) {
      let expected = 0;
      for (let bit = 0, doubled = a; bit < 8; bit += 1, doubled = doubled < 128 ? doubled << 1 : (doubled << 1) ^ 0x11d) {
        if ((b >> bit) & 1) expected ^= doubled;
      }
      assert.equal(multiply(a, b), expected);
      if (b !== 0) assert.equal(divide(expected, b), a);
    }
  }
});

test('the parity rows are those that decision 0014 states', () => {
  const rows = (k: number, n: number) => Array.from({ length: n - k }, (_, parity) => [...generatorRow(k, k + parity)]);
  assert.deepEqual(rows(4, 6), [
    [1, 1, 1, 1],
    [1, 217, 92, 172],
  ]);
  assert.deepEqual(rows(10, 14), [
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    [1, 147, 138, 73, 93, 161, 103, 58, 99, 178],
    [1, 103, 156, 151, 123, 187, 166, 175, 244, 83],
    [1, 58, 203, 60, 48, 51, 175, 52, 16, 30],
  ]);
});
