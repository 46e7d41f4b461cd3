import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { callNumber, dockerFilter, encodeFilter, type FilterStep, jobFilter } from './seccomp-filter.ts';

const ALLOW = 0x7fff0000;
const refused = (errno: number) => 0x50000 | errno;
const X64 = 0xc000003e;

/** What the kernel's interpreter would answer (`Documentation/networking/filter.rst`). */
function evaluate(steps: readonly FilterStep[], call: { arch?: number; number: number; args?: number[] }): number {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(call.number >>> 0, 0);
  data.writeUInt32LE(call.arch ?? X64, 4);
  for (const [index, value] of (call.args ?? []).entries()) data.writeUInt32LE(value >>> 0, 16 + 8 * index);
  let accumulator = 0;
  for (let at = 0; at < steps.length; at += 1) {
    const { code, jt, jf, k } = steps[at] as FilterStep;
    if (code === 0x06) return k >>> 0;
    if (code === 0x20) accumulator = data.readUInt32LE(k);
    else if (code === 0x54) accumulator = (accumulator & k) >>> 0;
    else if (code === 0x15) at += accumulator === k ? jt : jf;
    else if (code === 0x25) at += accumulator > k ? jt : jf;
    else if (code === 0x45) at += (accumulator & k) !== 0 ? jt : jf;
    else assert.fail(`no such instruction: ${code}`);
  }
  return assert.fail('the filter ended without an answer');
}

test('the filter refuses dangerous calls, foreign ABIs, unknown calls and new namespaces, and allows the rest', () => {
  const filter = jobFilter('x64');
  const ask = (number: number, ...args: number[]) => evaluate(filter, { number, args });
  for (const number of [101, 250, 165, 272, 321, 425, 304, 135]) assert.equal(ask(number), refused(1), `call ${number}`);
  for (const number of [0, 1, 9, 57, 59, 202, 231, 257, 334, 439, 441]) assert.equal(ask(number), ALLOW, `call ${number}`);
  assert.equal(evaluate(filter, { number: 1, arch: 0x40000003 }), 0x80000000, 'the 32-bit ABI');
  assert.equal(ask(0x40000001), refused(38), 'the x32 ABI');
  assert.equal(ask(435), refused(38), 'clone3');
  assert.equal(ask(451), refused(38), 'a call that this table does not know');
  assert.equal(ask(56, 0x01200011), ALLOW, 'fork');
  assert.equal(ask(56, 0x003d0f00), ALLOW, 'a thread');
  for (const flag of [0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000])
    assert.equal(ask(56, flag | 17), refused(1), `clone with ${flag.toString(16)}`);
});

test('only plain sockets of UNIX, IPv4, IPv6 and route netlink can be made', () => {
  const filter = jobFilter('x64');
  const socket = (family: number, type: number, protocol = 0) => evaluate(filter, { number: 41, args: [family, type, protocol] });
  for (const [family, type] of [
    [1, 1],
    [1, 3],
    [2, 1],
    [2, 2 | 0o2000000],
    [10, 1 | 0o4000],
    [16, 3],
  ] as const)
    assert.equal(socket(family, type), ALLOW, `${family}/${type}`);
  for (const [family, type] of [
    [2, 3],
    [10, 3],
    [2, 3 | 0o2000000],
    [2, 10],
  ] as const)
    assert.equal(socket(family, type), refused(1), `${family}/${type}`);
  for (const family of [0, 3, 17, 31, 38, 40, 44]) assert.equal(socket(family, 1), refused(97), `family ${family}`);
  assert.equal(socket(16, 3, 12), refused(97), 'netfilter');
  assert.equal(evaluate(filter, { number: 16, args: [0, 0x5412] }), refused(1));
  assert.equal(evaluate(filter, { number: 16, args: [0, 0x5401] }), ALLOW);
});

test('every call has an answer on both processors, every jump stays inside, and the kernel accepts the length', () => {
  for (const arch of ['x64', 'arm64']) {
    const steps = jobFilter(arch);
    assert.ok(steps.length <= 4096);
    for (const [index, { code, jt, jf }] of steps.entries())
      if (code !== 0x06) assert.ok(index + Math.max(jt, jf) + 1 < steps.length, `step ${index}`);
    assert.equal(encodeFilter(steps).length, steps.length * 8);
    const answers = fc.property(fc.nat(0xffffffff), fc.array(fc.nat(0xffffffff), { maxLength: 6 }), (number, args) => {
      evaluate(steps, { number, args, arch: arch === 'x64' ? X64 : 0xc00000b7 });
    });
    fc.assert(answers, { numRuns: 300 });
  }
  assert.throws(() => jobFilter('riscv64'), { code: 'sandbox-platform' });
  assert.equal(callNumber('keyctl', 'x64'), 250);
  assert.match(JSON.stringify(dockerFilter()), /"ptrace"/);
});
