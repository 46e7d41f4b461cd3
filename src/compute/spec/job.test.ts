import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MillraceError } from '../../errors.ts';
import { deploymentHash } from './deployment-spec.ts';
import { decodeJobSpec, encodeJobSpec, hostLimits, type JobSpec, specHash } from './job-spec.ts';
import { parseDeployment, parseSpec } from './parse-deployment.ts';
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

/** `line:column field: reason` of what a document is refused with. */
function refusalOf(text: string, read: (text: string) => unknown = parseJob): string {
  try {
    read(text);
  } catch (error) {
    assert.ok(error instanceof MillraceError, String(error));
    assert.ok(['bad-spec', 'spec-unsupported'].includes(error.code), error.code);
    const { line, column, field, reason, what } = error.values;
    return `${line}:${column} ${field === '' ? '' : `${field}: `}${reason ?? what}`;
  }
  return 'taken';
}

test('a job of one file is read whole: the work apart from its price and place', () => {
  const { spec, needs, ...rest } = parseJob(WORD_COUNT);
  assert.deepEqual(spec, {
    format: 'millrace-job/1',
    runtime: 'millrace-strict-2',
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

test('what is left out has a plain default, and the class follows from what runs', () => {
  const { spec, needs, count } = parseJob('job: 1\ncommand: [python3, train.py]\n');
  assert.deepEqual([spec.program, spec.determinism, spec.segments, spec.seed, count], [{ kind: 'command', source: '' }, 'none', 1, '0', 1]);
  assert.deepEqual(spec.argv, ['python3', 'train.py']);
  assert.equal(needs.memoryBytes, 256 << 20);
  assert.equal(parseJob(`job: 1\nmodule: ${CID}\n`).spec.determinism, 'wasm-strict');
  assert.equal(parseJob(`job: 1\nimage: sha256:${'0'.repeat(64)}\ncommand: run\n`).spec.determinism, 'exact-output');
});

test('the hash is SHA-256 of the canonical form, however and in which order things are written', () => {
  const hash = specHash(parseJob(WORD_COUNT).spec);
  // What json.dumps(sort_keys=True, separators=(',', ':')) and hashlib of Python give for the same specification.
  assert.equal(hash, '0x3fa48525cf1edece51b463c14f7bce777de9e24572be4868ab70e407d3e395c7');
  const [first, ...lines] = WORD_COUNT.trim().split('\n');
  assert.equal(specHash(parseJob([first, ...lines.reverse()].join('\n')).spec), hash);
  const swapped = WORD_COUNT.replace(/inputs: .*/, `inputs:\n  book.txt: "${CID}"\n  books/two.txt: ${CID}`).replace(
    'time: 10m',
    'time: 600',
  );
  assert.equal(specHash(parseJob(swapped).spec), hash);
  assert.equal(
    specHash(parseJob(WORD_COUNT.replace('0.50 stable', '9 native').replace('eu, us', 'asia')).spec),
    hash,
    'price and place are not part',
  );
});

test('everything that the result may depend on changes the hash, the runtime first', () => {
  const { spec } = parseJob(WORD_COUNT);
  const others: JobSpec[] = [
    { ...spec, runtime: 'millrace-strict-3' },
    { ...spec, program: { ...spec.program, source: `${CID.slice(0, -1)}a` } },
    { ...spec, argv: ['module', '--top 10'] },
    { ...spec, env: {} },
    { ...spec, inputs: spec.inputs.slice(1) },
    { ...spec, outputs: [] },
    { ...spec, seed: '8' },
    { ...spec, limits: { ...spec.limits, memoryBytes: 65 << 20 } },
    { ...spec, segments: 17 },
    { ...spec, canonicaliser: 'bytes' },
    { ...spec, determinism: 'exact-output', segments: 1 },
  ];
  assert.equal(new Set([spec, ...others].map(specHash)).size, others.length + 1);
});

const REFUSED: [change: [from: string, to: string], refusal: string][] = [
  [['job: 1', 'job: 2'], '2:1 job: got "2"; due is a whole number from 1 to 1'],
  [['seed: 7', 'sed: 7'], '9:1 sed: there is no such field'],
  [['seed: 7', 'seed: 18446744073709551616'], '9:1 seed: got 18446744073709551616; due is a whole number below 2^64'],
  [['seed: 7', 'seed: 0x7'], '9:1 seed: got "0x7"; due is a whole number'],
  [['count: 3', 'count: [3]'], '14:1 count: it is a list; due is a text'],
  [[CID, 'nginx:latest'], '4:1 module: got "nginx:latest"; due is a CID'],
  [['args: [--top, 10]', 'args: [{top: 10}]'], '5:8 args[0]: it is a map; due is a text'],
  [['{LANG: C}', '{LANG-1: C}'], '6:7 env.LANG-1: a name of the environment'],
  [['books/two.txt', 'books/../../etc/passwd'], '7:10 inputs.books/../../etc/passwd: an input stands under a relative path'],
  [['books/two.txt', '/etc/passwd'], '7:10 inputs./etc/passwd: an input stands under a relative path'],
  [['[counts.json]', '[../counts.json]'], '8:11 outputs[0]: got "../counts.json"; due is a relative path'],
  [['[counts.json]', '[a, a]'], '11:1 check: an output stands there twice'],
  [['memory: 64Mi', 'memory: 1Mi'], '10:10 limits.memory: it means 1048576; due is from 4194304'],
  [['cpus: 0.5', 'cpus: 0.001'], '10:24 limits.cpus: it means 1; due is from 10'],
  [['time: 10m', 'time: 32d'], '10:61 limits.time: got "32d"; due is a time'],
  [['class: wasm-strict', 'class: exact-output'], '11:1 check: exact-output has one segment, got 16'],
  [['class: wasm-strict', 'class: proven'], '11:9 check.class: got "proven"; due is wasm-strict'],
  [['canonical: json', 'threshold: 5'], '11:1 check: a threshold belongs to the class fingerprint'],
  [['audited: 2', 'audited: 17'], '11:43 check.audited: got "17"; due is a whole number from 1 to 16'],
  [['0.50 stable', '0.50'], '12:1 price: got "0.50"; due is an amount and its token'],
  [['0.50 stable', '-1 stable'], '12:1 price: got "-1 stable"'],
  [['deadline: 2h', 'deadline: never'], '13:1 deadline: got "never"; due is a time'],
  [['count: 3', 'command: [sh]'], '14:1 command: a module has no command'],
  [['count: 3', `image: ${CID}`], '14:1 image: a job has a module or an image, not both'],
  [['class: cpu-small', 'class: CPU'], '15:10 device.class: got "CPU"'],
  [['regions: [eu, us]', 'regions: eu'], '16:1 regions: it is a plain value; due is a list'],
];

for (const [[from, to], refusal] of REFUSED) {
  test(`a job with ${to.slice(0, 40)} for ${from.slice(0, 40)} is refused: ${refusal.slice(0, 60)}`, () => {
    assert.equal(refusalOf(WORD_COUNT.replace(from, () => to)).slice(0, refusal.length), refusal);
  });
}

test('a command of the machine’s own software cannot be checked, and an image without a command cannot be run', () => {
  assert.match(refusalOf('job: 1\ncommand: [true]\ncheck: {class: exact-output}'), /^3:1 check: software of the machine differs/);
  assert.match(refusalOf(`job: 1\nimage: ${CID}`), /^2:1 image: an image needs a command/);
  assert.match(refusalOf(`job: 1\nimage: ${CID}\ncommand: x\ncheck: {class: wasm-strict}`), /^4:1 check: only a module/);
  assert.match(refusalOf('job: 1\ncommand: x\nruntime: host/2'), /^1:1 it wants the runtime "host\/2"; this version has host\/1/);
  assert.match(refusalOf('job: 1'), /^1:1 it names nothing to run/);
});

test('a deployment of our own is read, with ports, time and notice', () => {
  const text =
    'deployment: 1\nname: lab\nimage: jupyter/base:1\nports: [8888, {port: 53, as: 5353, protocol: udp}]\ntime: 4h\nprice: 1.20 native\ncount: 4\ninterruptible: true\nnotice: 60s\ndevice: {cpus: 4, memory: 8Gi, gpu: [{vendor: nvidia, model: a100, memory: 40Gi, bus: sxm}]}\n';
  const { spec, warnings } = parseDeployment(text);
  const [workload] = spec.workloads;
  const unit = spec.groups[0]?.units[0];
  assert.deepEqual(warnings, []);
  assert.deepEqual([spec.seconds, spec.isInterruptible, spec.noticeSeconds], [14_400, true, 60]);
  assert.deepEqual(workload?.ports[1], { port: 53, as: 5353, protocol: 'udp', isOpen: true, workloads: [] });
  assert.deepEqual([unit?.count, unit?.priceMax, unit?.needs.gpus], [4, { amount: '1.2', token: 'native' }, 1]);
  assert.deepEqual(unit?.needs.gpuModels, [{ vendor: 'nvidia', model: 'a100', memoryBytesMin: 40 * 2 ** 30, bus: 'sxm' }]);
  assert.equal(deploymentHash(spec), deploymentHash(parseDeployment(text.replace('1.20', '1.2')).spec));
  assert.notEqual(deploymentHash(spec), deploymentHash(parseDeployment(text.replace('4h', '5h')).spec));
  assert.match(refusalOf('deployment: 1\nname: x', parseDeployment), /^1:1 it names nothing to run/);
  assert.match(refusalOf('deployment: 1\nimage: x\nports: [0]', parseDeployment), /^3:9 ports\[0\]: got "0"/);
  assert.match(refusalOf('deployment: 1\nimage: x\nseed: 1', parseDeployment), /^3:1 seed: there is no such field/);
});

test('what a peer sends is taken only in its canonical form', () => {
  const { spec } = parseJob(WORD_COUNT);
  const bytes = encodeJobSpec(spec);
  assert.deepEqual(decodeJobSpec(bytes), spec);
  const text = Buffer.from(bytes).toString();
  const forms = [
    ` ${text}`,
    text.replace('"seed":"7"', '"seed":7'),
    text.replace('"seed":"7"', '"seed":"07"'),
    `${text}\n`,
    `\uFEFF${text}`,
  ];
  const others = [
    text.replace(',"seed":"7"', ''),
    text.replace('"segments":16', '"segments":16.0'),
    '[]',
    '',
    'null',
    text.replace('{', '{"extra":1,'),
  ];
  for (const other of [...forms, ...others])
    assert.notEqual(
      refusalOf(other, (each) => decodeJobSpec(Buffer.from(each))),
      'taken',
      other,
    );
});

/** Documents near to good ones: with lines dropped, doubled, moved, and bytes changed. */
const nearDocuments = fc
  .tuple(
    fc.array(fc.nat(20), { maxLength: 12 }),
    fc.array(fc.tuple(fc.nat(600), fc.constantFrom(...'{}[]:,&*!|>-\'"#%@`?\t\n \0é\uD800')), { maxLength: 6 }),
  )
  .map(([order, edits]) => {
    const lines = WORD_COUNT.split('\n');
    const text = order.length === 0 ? WORD_COUNT : order.map((index) => lines[index] ?? '').join('\n');
    return edits.reduce(
      (changed, [at, character]) => changed.slice(0, at % (changed.length + 1)) + character + changed.slice(at + 1),
      text,
    );
  });

test('whatever is read, it is taken or refused with a line and a column, and what is taken comes back from its canonical form', () => {
  const runs = process.env.MILLRACE_FULL === '1' ? 50_000 : 300;
  const anything = fc.oneof(nearDocuments, fc.string({ unit: 'binary', maxLength: 300 }), fc.json());
  fc.assert(
    fc.property(anything, (text) => {
      try {
        const parsed = parseSpec(text);
        if (parsed.kind === 'job') assert.deepEqual(decodeJobSpec(encodeJobSpec(parsed.spec)), parsed.spec);
      } catch (error) {
        assert.ok(error instanceof MillraceError && ['bad-spec', 'spec-unsupported'].includes(error.code), String(error));
        assert.ok(Number(error.values.line) >= 1 && Number(error.values.column) >= 1);
      }
    }),
    { numRuns: runs },
  );
});
