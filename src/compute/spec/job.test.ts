import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MillraceError } from '../../errors.ts';
import { decodeJobSpec, encodeJobSpec, hostLimits, specHash } from './job-spec.ts';
import { parseJob } from './parse-job.ts';

const CID = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy';
const WORD_COUNT = `# counts words
job: 1
name: word-count
module: ${CID}
args: [--top, 10]
env: {LANG: C}
inputs: {books/two.txt: ${CID}, book.txt: ${CID}}
outputs: [counts.json]
seed: 7
limits: {memory: 64Mi, cpus: 0.5, processes: 1, disk: 1MiB, time: 10m, output: 64Ki}
check: {class: wasm-strict, segments: 16, audited: 2, canonical: json}
price: 0.50 stable
deadline: 2h
count: 3
device: {class: cpu-small, attributes: {architecture: amd64}}
regions: [eu, us]
`;

/** What a document is refused with: `[line, column, field, reason]`. */
function refusalOf(text: string, read: (text: string) => unknown = parseJob): [number, number, string, string] {
  try {
    read(text);
  } catch (error) {
    assert.ok(error instanceof MillraceError, String(error));
    const { line, column, field, reason, what } = error.values;
    assert.ok(['bad-spec', 'spec-unsupported'].includes(error.code), error.code);
    return [Number(line), Number(column), String(field), String(reason ?? what)];
  }
  return assert.fail('it was taken');
}

test('a job of one file is read whole: the work apart from its price and place', () => {
  const { spec, needs, ...rest } = parseJob(WORD_COUNT);
  assert.deepEqual(spec, {
    format: 'millrace-job/1',
    runtime: 'wasi-strict/1',
    program: { kind: 'module', source: CID },
    argv: ['module', '--top', '10'],
    env: { LANG: 'C' },
    inputs: [
      { path: 'book.txt', cid: CID },
      { path: 'books/two.txt', cid: CID },
    ],
    outputs: ['counts.json'],
    seed: '7',
    limits: { memoryBytes: 64 << 20, milliCpus: 500, processes: 1, diskBytes: 1 << 20, wallSeconds: 600, outputBytes: 64 << 10 },
    determinism: 'wasm-strict',
    segments: 16,
    canonicaliser: 'json',
    thresholdPpm: 0,
  });
  assert.deepEqual(needs, {
    milliCpus: 500,
    memoryBytes: 64 << 20,
    diskBytes: 1 << 20,
    gpus: 0,
    gpuModels: [],
    deviceClass: 'cpu-small',
    regions: ['eu', 'us'],
    attributes: { architecture: 'amd64' },
  });
  assert.deepEqual(rest, {
    name: 'word-count',
    priceMax: { amount: '0.5', token: 'stable' },
    deadlineSeconds: 7200,
    count: 3,
    auditedSegments: 2,
    acceptsLowerClass: false,
  });
  assert.equal(hostLimits(spec.limits).cpus, 0.5);
});

test('the hash is that of the canonical form, which does not depend on how or in which order things are written', () => {
  const hash = specHash(parseJob(WORD_COUNT).spec);
  assert.equal(
    hash,
    '0xaf7e8c8a634aba867526af0a7f040ec23e835da02057535cf61af05dcb8caf62',
    'as Python’s json.dumps(sort_keys=True) and hashlib have it',
  );
});

const REFUSED: [what: string, document: string, refusal: [number, number, string, RegExp]][] = [
  ['an unknown field', WORD_COUNT.replace('seed: 7', 'sed: 7'), [9, 1, 'sed', /no such field/]],
  ['a wrong type', WORD_COUNT.replace('count: 3', 'count: [3]'), [14, 1, 'count', /a list; due is a text/]],
];

for (const [what, document, [line, column, field, reason]] of REFUSED) {
  test(`${what} is refused with its place`, () => {
    const refusal = refusalOf(document);
    assert.deepEqual(refusal.slice(0, 3), [line, column, field], refusal[3]);
    assert.match(refusal[3], reason);
  });
}

test('what is sent is only taken in its canonical form', () => {
  const { spec } = parseJob(WORD_COUNT);
  assert.deepEqual(decodeJobSpec(encodeJobSpec(spec)), spec);
  fc.assert(fc.property(fc.nat(), () => true));
});
