import assert from 'node:assert/strict';
import { after, before, mock, test } from 'node:test';
import { createBeside } from './beside.ts';
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
