import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { MillraceError } from '../../errors.ts';
import { cidOfDigest } from '../../host/index.ts';
import { NOBODY, startTestJobPeer, type TestJobPeer } from '../jobs/job-peer-fixture.ts';
import { type JobTerms, jobDomainOf, jobIdOf, termsToJson } from '../jobs/job-terms.ts';
import type { FetchContent } from '../part.ts';
import { encodeJobSpec, type JobSpec, specHash } from '../spec/job-spec.ts';
import { parseJob } from '../spec/parse-job.ts';
import type { LeafProof } from '../verify/commitment.ts';
import { bringWork, type CommittedJob, type StateSource, withinTime } from './job-case.ts';

const LEAF: LeafProof = { index: 1, chainHash: '0x', stateHash: '0x', proof: [] };
const OPTIONS = { signal: new AbortController().signal, bytesMax: 100 };

/** Hands its states over after so many milliseconds, as long as somebody waits. */
function slow(answerMs: number): StateSource {
  return {
    fetch: (_index, { signal }) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => resolve({ leaf: LEAF, state: new Uint8Array() }), answerMs);
        signal.addEventListener('abort', () => {
          clearTimeout(timer);
          reject(signal.reason);
        });
      }),
  };
}

test('who hands a state over too slowly has handed none over', async () => {
  await assert.rejects(withinTime(slow(60_000), 20).fetch(1, OPTIONS), { name: 'TimeoutError' });
});

test('the time is for all states together: many that come late are as one that never comes', async () => {
  const source = withinTime(slow(40), 150);
  let fetched = 0;
  const fetchAll = async () => {
    for (;;) {
      await source.fetch(1, OPTIONS);
      fetched += 1;
    }
  };
  await assert.rejects(fetchAll(), { name: 'TimeoutError' });
  assert.ok(fetched <= 4, `${fetched} of a source that needs 40 ms each, in 150 ms`);
});

test('a state that comes in time is handed on, and what the caller ends is not called slow', async () => {
  const stopping = new AbortController();
  const source = withinTime(slow(1), 60_000);
  assert.equal((await source.fetch(1, OPTIONS)).leaf, LEAF);
  const asked = withinTime(slow(60_000), 60_000).fetch(1, { ...OPTIONS, signal: stopping.signal });
  stopping.abort(new RangeError('stopped'));
  await assert.rejects(asked, /stopped/);
});

const PROGRAM = Buffer.from('a program');
const TEXT = Buffer.from('a text');
const cidOf = (bytes: Uint8Array) => cidOfDigest(createHash('sha256').update(bytes).digest());
const NOWHERE: FetchContent = (cid) => Promise.reject(new MillraceError('no-holders', { actor: 'peer', message: `Nobody has ${cid}` }));

let provider: TestJobPeer;
let count = 0;

before(async () => {
  provider = await startTestJobPeer();
});
after(() => provider?.stop());

/** A committed job of a provider that serves its specification, and what else the test says. */
function committedJob(input: string, limits: Partial<JobSpec['limits']> = {}): CommittedJob {
  const { spec } = parseJob(`{job: 1, module: ${cidOf(PROGRAM)}, check: {class: wasm-strict, segments: 2}, inputs: {text: ${input}}}`);
  const wanted = { ...spec, limits: { ...spec.limits, ...limits } };
  const terms: JobTerms = {
    renter: NOBODY,
    operatorId: 1n,
    specHash: specHash(wanted),
    token: NOBODY,
    price: 2n,
    auditFee: 1n,
    collateral: 1n,
    determinism: 3,
    engine: 1,
    lowerable: true,
    segments: 2,
    samples: 1,
    auditors: 1,
    openUntil: 1,
    runSeconds: 1,
    auditSeconds: 1,
    challengeSeconds: 1,
    flagSeal: `0x${'00'.repeat(32)}`,
    nonce: 1n,
  };
  const jobId = jobIdOf(jobDomainOf(provider.caller.client), terms);
  const work = { terms: termsToJson(terms), spec: Buffer.from(encodeJobSpec(wanted)).toString('utf8'), handed: [], result: null };
  provider.served.clear();
  provider.served.set('work', Buffer.from(JSON.stringify(work)));
  return { jobId, terms, result: { root: jobId, outputDigest: jobId }, provider: provider.peer };
}

function bring(job: CommittedJob, fetchContent: FetchContent, bytesMax?: number) {
  count += 1;
  const { caller, folder } = provider;
  return bringWork(job, { caller, fetchContent, folder: join(folder, `${count}`), signal: AbortSignal.timeout(60_000), bytesMax });
}

test('whatever a stranger’s specification allows, its contents take no more of an auditor’s disk than that has for them', async () => {
  const job = committedJob(cidOf(TEXT), { diskBytes: 2 ** 43 });
  let sent = 0;
  const flood = async function* () {
    for (;;) {
      sent += 1;
      yield new Uint8Array(1 << 20);
    }
  };
  provider.served.set(cidOf(PROGRAM), flood());
  await assert.rejects(bring(job, NOWHERE, 4 << 20), { code: 'work-too-large-here', actor: 'host' });
  assert.ok(sent < 64, `${sent} MiB were sent`);
  assert.deepEqual(readdirSync(join(provider.folder, `${count}`, 'contents')), []);
  provider.served.set(cidOf(PROGRAM), PROGRAM);
  provider.served.set(cidOf(TEXT), TEXT);
  assert.deepEqual(readFileSync((await bring(job, NOWHERE, 4 << 20)).programPath as string), PROGRAM);
});

test('contents that the network lost come from the provider, which must have had them; what neither hands over counts against it', async () => {
  const job = committedJob(cidOf(TEXT));
  provider.served.set(cidOf(PROGRAM), PROGRAM);
  provider.served.set(cidOf(TEXT), TEXT);
  const { inputFolder, programPath } = await bring(job, NOWHERE);
  assert.deepEqual(readFileSync(join(inputFolder as string, 'text')), TEXT);
  assert.deepEqual(readFileSync(programPath as string), PROGRAM);
  provider.served.set(cidOf(TEXT), Buffer.from('another text'));
  await assert.rejects(bring(job, NOWHERE), { code: 'content-withheld', actor: 'peer' });
  provider.served.delete(cidOf(TEXT));
  await assert.rejects(bring(job, NOWHERE), { code: 'content-withheld', actor: 'peer' });
  const network: FetchContent = async (cid, path) => {
    assert.equal(cid, cidOf(TEXT));
    writeFileSync(path, TEXT);
    return TEXT.length;
  };
  assert.deepEqual(readFileSync(join((await bring(job, network)).inputFolder as string, 'text')), TEXT, 'an honest network will do');
});

test('a folder that nobody has any more is no fault of its provider', async () => {
  const job = committedJob(`bafy${'a'.repeat(55)}`);
  provider.served.set(cidOf(PROGRAM), PROGRAM);
  await assert.rejects(bring(job, NOWHERE), { code: 'content-gone' });
  provider.served.delete(cidOf(PROGRAM));
  await assert.rejects(bring(job, NOWHERE), { code: 'content-withheld' });
});
