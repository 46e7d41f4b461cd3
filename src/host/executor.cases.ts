import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cidOfDigest } from './artefacts.ts';
import { type Executor, errorOfResult, type Job, type JobLimits, type JobReason, type JobResult } from './executor.ts';

/** What issue 4 of the compute network wants every engine to contain. */
export const ATTACKS = [
  'fork bomb',
  'memory hog',
  'disk fill',
  'inode fill',
  'CPU hog',
  'escape by mounts',
  'symlinks',
  'setuid',
  '/proc',
  'ptrace',
  'keyring',
  'raw sockets',
  'metadata addresses',
  'DNS',
  'services of the host',
  'artefact path traversal',
  'sparse artefact',
  'output flood',
  'ignored signals',
] as const;

/** The name of one attack. */
export type Attack = (typeof ATTACKS)[number];

/** A program, and with which reasons it may end; it prints ESCAPED when it gets through. */
export interface AttackProgram {
  argv: readonly string[];
  image?: string;
  reasons: readonly JobReason[];
  limits?: Partial<JobLimits>;
}

/** One engine, and the programs that it can run. */
export interface ExecutorSubject {
  executor: Executor;
  /** Reads `/input/name`, writes `/output/deep/greeting` with `hello NAME`, prints `out` and to standard error `err`. */
  greet: Pick<Job, 'argv' | 'image'>;
  /** Ends with code 3. */
  exitThree: Pick<Job, 'argv' | 'image'>;
  /** Prints `tick` for ever, with pauses where the engine has any. */
  tick: Pick<Job, 'argv' | 'image'>;
  /** Each attack, or why there is nothing to attack with. `port`: a service of this machine on 127.0.0.1. */
  attack(attack: Attack, port: number): AttackProgram | string;
  /** What the engine left on the machine: processes, groups, mounts. */
  leftovers(): string[];
}

const LIMITS: JobLimits = {
  memoryBytes: 48 << 20,
  cpus: 1,
  processes: 16,
  diskBytes: 4 << 20,
  wallSeconds: 20,
  outputBytes: 64 << 10,
};

/** The suite that every engine's test calls. */
export function executorCases(name: string, open: () => Promise<ExecutorSubject>): void {
  describe(name, () => {
    const folder = mkdtempSync(join(tmpdir(), 'millrace-executor-'));
    const artefactFolder = join(folder, 'artefacts');
    const inputFolder = join(folder, 'input');
    const service = createServer((socket) => socket.end('ESCAPED'));
    const place = { inputFolder, artefactFolder, port: 0 } as Place;
    before(async () => {
      mkdirSync(inputFolder);
      writeFileSync(join(inputFolder, 'name'), 'mill');
      await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
      place.port = (service.address() as { port: number }).port;
      place.subject = await open();
      const report = await place.subject.executor.inspect();
      assert.deepEqual(report.missing, []);
      assert.equal(report.takesForeign, true);
      place.neighbour = startNeighbour(place.subject);
      await place.neighbour.nextTick();
    });
    after(async () => {
      service.close();
      const result = await place.neighbour?.end().finally(() => place.subject.executor.close());
      rmSync(folder, { recursive: true, force: true });
      assert.equal(result?.reason, 'cancelled', 'the neighbour ran to the end');
      assert.deepEqual(place.subject.leftovers(), []);
    });

    plainCases(place);
    abuseCases(place);
  });
}

/** What the tests of one engine have in common; filled before the first. */
interface Place {
  subject: ExecutorSubject;
  neighbour: Neighbour;
  inputFolder: string;
  artefactFolder: string;
  /** Of a service of this machine. */
  port: number;
}

async function run(
  { subject, inputFolder, artefactFolder }: Place,
  parts: Partial<Job> & Pick<Job, 'argv'>,
  limits: Partial<JobLimits> = {},
) {
  const job: Job = { trust: 'foreign', inputFolder, artefactFolder, ...parts, limits: { ...LIMITS, ...limits } };
  return await collect(subject.executor, job);
}

function plainCases(place: Place): void {
  test('a job reads its input, writes artefacts under their CIDs, prints on both streams, and its use is measured', async () => {
    const { result, printed } = await run(place, place.subject.greet);
    assert.equal(result.reason, 'completed', `${result.detail} ${printed.stderr}`);
    assert.equal(result.exitCode, 0);
    assert.deepEqual([printed.stdout.trim(), printed.stderr.trim()], ['out', 'err']);
    const cid = cidOfDigest(createHash('sha256').update('hello mill').digest());
    assert.deepEqual(result.artefacts, [{ path: 'deep/greeting', cid, sizeBytes: 10 }]);
    assert.equal(readFileSync(join(place.artefactFolder, cid), 'utf8'), 'hello mill');
    assert.ok(result.usage.wallMs > 0 && result.usage.outputBytes === 8);
    assert.equal(errorOfResult(result), undefined);
  });

  test('an exit code comes out as it is, as a typed error', async () => {
    const { result } = await run(place, place.subject.exitThree);
    assert.deepEqual([result.reason, result.exitCode, result.signal], ['failed', 3, undefined]);
    assert.equal(errorOfResult(result)?.code, 'job-ended');
  });

  test('what cannot be a job is refused with its value and limit', async () => {
    const bad = async (parts: Partial<Job> & Pick<Job, 'argv'>, limits: Partial<JobLimits>, message: RegExp) =>
      await assert.rejects(run(place, { ...place.subject.exitThree, ...parts }, limits), (error: Error) => message.test(error.message));
    await bad({ argv: [] }, {}, /names no program/);
    await bad({ argv: ['a\0b'] }, {}, /zero byte/);
    await bad({ argv: ['x'], env: { 'a b': '' } }, {}, /env holds the name "a b"/);
    await bad({ argv: ['x'] }, { memoryBytes: 1 }, /limits.memoryBytes is 1, allowed/);
    await bad({ argv: ['x'] }, { wallSeconds: Number.NaN }, /limits.wallSeconds is NaN/);
    await bad({ argv: ['x'], image: '../etc' }, {}, /no digest/);
    await bad({ argv: ['x'], image: `sha256:${'0'.repeat(64)}` }, {}, /has no image/);
  });

  test('a job that nobody wants any more ends', async () => {
    const abort = new AbortController();
    const running = place.subject.executor.run(
      { ...place.subject.tick, trust: 'foreign', limits: LIMITS },
      { signal: abort.signal, onLog: () => abort.abort() },
    );
    assert.equal((await running).reason, 'cancelled');
    assert.equal(
      (await place.subject.executor.run({ ...place.subject.tick, trust: 'foreign', limits: LIMITS }, { signal: abort.signal })).reason,
      'cancelled',
    );
  });
}

function abuseCases(place: Place): void {
  for (const attack of ATTACKS) {
    test(`${attack}: contained and named, neighbour and host unharmed`, async (context) => {
      const program = place.subject.attack(attack, place.port);
      if (typeof program === 'string') return context.diagnostic(`nothing to attack with: ${program}`);
      const { result, printed } = await run(place, { argv: program.argv, image: program.image }, program.limits);
      const said = `${result.reason} ${result.exitCode} ${result.detail}\n${printed.stdout.slice(-2000)}${printed.stderr.slice(-2000)}`;
      assert.doesNotMatch(printed.stdout + printed.stderr, /ESCAPED/, said);
      assert.ok(program.reasons.includes(result.reason), said);
      assert.equal(errorOfResult(result)?.values.reason, result.reason === 'completed' ? undefined : result.reason);
      const printedBytes = printed.stdout.length + printed.stderr.length;
      assert.ok(printedBytes <= (program.limits?.outputBytes ?? LIMITS.outputBytes), `${printedBytes} bytes printed`);
      if (result.reason !== 'completed') assert.deepEqual(result.artefacts, []);
      await place.neighbour.nextTick();
      assert.deepEqual(
        readdirSync(join(place.inputFolder, '..')).filter((each) => each !== 'artefacts'),
        ['input'],
      );
      assert.equal(readFileSync(join(place.inputFolder, 'name'), 'utf8'), 'mill');
    });
  }
}

async function collect(executor: Executor, job: Job): Promise<{ result: JobResult; printed: { stdout: string; stderr: string } }> {
  const printed = { stdout: '', stderr: '' };
  const result = await executor.run(job, {
    onLog: ({ stream, bytes }) => {
      printed[stream] += Buffer.from(bytes).toString('latin1');
    },
  });
  return { result, printed };
}

interface Neighbour {
  nextTick(): Promise<void>;
  end(): Promise<JobResult>;
}

/** A job beside all others, which has to go on whatever they do. */
function startNeighbour({ executor, tick }: ExecutorSubject): Neighbour {
  const abort = new AbortController();
  let onTick: (() => void) | undefined;
  const limits = { ...LIMITS, cpus: 1, wallSeconds: 300, outputBytes: 2 ** 32 };
  const running = executor.run({ ...tick, trust: 'foreign', limits }, { signal: abort.signal, onLog: () => onTick?.() });
  return {
    nextTick: () =>
      Promise.race([
        new Promise<void>((resolve) => {
          onTick = resolve;
        }),
        running.then((result) => assert.fail(`the neighbour ended: ${result.reason} ${result.detail}`)),
      ]),
    end: async () => {
      abort.abort();
      return await running;
    },
  };
}
