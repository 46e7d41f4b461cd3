import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, mock, test } from 'node:test';
import { type Artefact, cidOfDigest } from '../../host/index.ts';
import { parseJob } from '../spec/parse-job.ts';
import { digestRun } from '../verify/canonical-output.ts';
import { keepOutput } from '../verify/run-segments.ts';
import { createBeside } from './beside.ts';
import { fetchOutputs } from './fetch-outputs.ts';
import { fetchOffer, fetchProgress } from './job-api.ts';
import { startTestJobPeer, type TestJobPeer } from './job-peer-fixture.ts';

const JOB = `0x${'ab'.repeat(32)}` as const;
const PROGRESS = { status: 'committed', segments: 2, missing: [], artefacts: [], end: null, dueAt: null, result: null, reason: null };

let provider: TestJobPeer;

before(async () => {
  provider = await startTestJobPeer();
});
after(() => provider?.stop());

/** Bytes without end, one at a time; tells when it has begun. */
function drip(): { body: ReadableStream<Uint8Array>; begun: Promise<void>; end(): void } {
  let [begin, timer] = [() => {}, undefined as NodeJS.Timeout | undefined];
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const body = new ReadableStream<Uint8Array>({
    start(stream) {
      stream.enqueue(Buffer.from('M'));
      timer = setInterval(() => {
        stream.enqueue(Buffer.from('M'));
        begin();
      }, 100);
    },
  });
  return { body, begun, end: () => clearInterval(timer) };
}

test('a provider that drips its answers is left like one that is silent; one that answers in parts is heard', async () => {
  const { caller, peer, served } = provider;
  for (const [name, ask] of [
    ['offer', () => fetchOffer(caller.client, peer)],
    ['progress', () => fetchProgress(caller, peer, JOB)],
  ] as const) {
    const { body, begun, end } = drip();
    served.set(name, { body });
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const asking = assert.rejects(ask(), { code: 'peer-too-slow', actor: 'peer' }, name);
      await begun;
      mock.timers.tick(60_000);
      await asking;
    } finally {
      mock.timers.reset();
      end();
    }
  }
  const text = JSON.stringify(PROGRESS);
  const honest = async function* () {
    for (const part of [text.slice(0, 10), text.slice(10)]) yield Buffer.from(part);
  };
  served.set('progress', honest());
  assert.equal((await fetchProgress(caller, peer, JOB)).segments, 2);
});

test('outputs whose sizes cancel out are refused before a byte of them is fetched; their honest twin comes', async () => {
  const { caller, peer, served, asked, folder } = provider;
  const { spec } = parseJob('{job: 1, command: ["true"], limits: {disk: 1MiB}}');
  const own = join(folder, 'own');
  mkdirSync(own);
  const artefact = keepOutput(Buffer.from('an output'), own);
  const claim = (artefacts: Artefact[], outputDigest = JOB) =>
    fetchOutputs(caller, peer, { jobId: JOB, spec, end: 'exit 0', artefacts, outputDigest }, { folder: join(folder, 'got') });
  served.set(artefact.cid, Buffer.from('an output'));
  const before = asked.length;
  const other = cidOfDigest(createHash('sha256').digest());
  for (const sizes of [
    [1e15, -1e15],
    [0.5, 8.5],
    [Number.NaN, 9],
  ]) {
    const artefacts = sizes.map((sizeBytes, at) => ({ path: `${at}`, cid: at === 0 ? other : artefact.cid, sizeBytes }));
    await assert.rejects(claim(artefacts), { code: 'output-differs' });
    served.set('progress', Buffer.from(JSON.stringify({ ...PROGRESS, artefacts })));
    await assert.rejects(fetchProgress(caller, peer, JOB), { code: 'peer-answer-bad' });
  }
  assert.ok(asked.slice(before).every((path) => path.endsWith(JOB)));
  await claim([artefact], await digestRun(spec, { end: 'exit 0', artefacts: [artefact], folder: own }));
});

test('what is slow goes on beside a loop, is not begun twice, and what it throws is heard at a later look', async () => {
  const beside = createBeside(1);
  let fail = (_reason: Error) => {};
  let begun = 0;
  const slow = () => {
    begun += 1;
    return new Promise<void>((_, reject) => {
      fail = reject;
    });
  };
  await beside.go('slow', slow);
  await beside.go('slow', slow);
  assert.deepEqual([begun, beside.isUnderWay('slow')], [1, true]);
  fail(new RangeError('late'));
  await beside.ended();
  await assert.rejects(
    beside.go('other', async () => {}),
    /late/,
  );
  await beside.go('slow', async () => {});
  assert.equal(beside.isUnderWay('slow'), false);
});
