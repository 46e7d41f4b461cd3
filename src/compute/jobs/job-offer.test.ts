import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSigner } from '../../chain/index.ts';
import { parseJob } from '../spec/parse-job.ts';
import { type JobOffer, offerToJson, priceOf, readOffer, signOffer, whyNot } from './job-offer.ts';

const domain = { chainId: 31_337, jobs: `0x${'11'.repeat(20)}` as const };
const signer = createSigner(randomBytes(32));
const OFFER: JobOffer = {
  operatorId: 7n,
  boxKey: `0x${'ab'.repeat(32)}`,
  prices: { stable: { cpuSecond: 11n, gibSecond: 2n, job: 100n } },
  collateral: 10n ** 18n,
  programs: ['module', 'image'],
  classes: ['wasm-strict', 'exact-output', 'none'],
  engine: 'bubblewrap',
  cpus: 1.5,
  memoryBytes: 2 ** 30,
  diskBytes: 2 ** 30,
  wallSecondsMax: 600,
  spareSeconds: 60,
  expiry: 2000,
};
const { spec } = parseJob(`{job: 1, image: "sha256:${'ab'.repeat(32)}", command: [sort], limits: {time: 10s, memory: 256MiB, cpus: 0.5}}`);

test('an offer is read as it was signed, and by nobody else, nor later, nor of another operator', async () => {
  const { signature } = await signOffer(domain, signer, OFFER);
  const json = JSON.parse(JSON.stringify({ offer: offerToJson(OFFER), signature, isBusy: false }));
  const expected = { domain, operatorId: 7n, nodeKey: signer.address, now: 1999n };
  assert.deepEqual(readOffer(json, expected).offer, OFFER);
  const wrong = [
    { now: 2000n },
    { operatorId: 8n },
    { nodeKey: createSigner(randomBytes(32)).address },
    { domain: { ...domain, chainId: 1 } },
  ];
  for (const change of wrong) assert.throws(() => readOffer(json, { ...expected, ...change }), { code: 'bad-job-offer' });
});

test('an offer of which anything was changed is refused', async () => {
  const { signature } = await signOffer(domain, signer, OFFER);
  const expected = { domain, operatorId: 7n, nodeKey: signer.address, now: 0n };
  const changes: Partial<Record<keyof JobOffer, unknown>>[] = [
    { collateral: '0' },
    { cpus: 64 },
    { expiry: 9_999_999 },
    { boxKey: `0x${'cd'.repeat(32)}` },
    { classes: ['none'] },
    { prices: { stable: { cpuSecond: '1', gibSecond: '2', job: '100' } } },
    { programs: ['root'] },
    { engine: 'gvisor' },
    { engine: 'abacus' },
    { memoryBytes: -1 },
  ];
  for (const change of changes) {
    const json = { offer: { ...offerToJson(OFFER), ...change }, signature };
    assert.throws(() => readOffer(json, expected), { code: 'bad-job-offer' }, JSON.stringify(change));
  }
  for (const nothing of [null, {}, { offer: 1 }, { offer: offerToJson(OFFER) }]) {
    assert.throws(() => readOffer(nothing, expected), { code: 'bad-job-offer' });
  }
});

test('a price is what its parts cost, rounded up, never under the least, and grows with what is asked for', () => {
  // 100 + 10 s × 0.5 × 11 + 10 s × 0.25 GiB × 2
  assert.equal(priceOf(spec, OFFER.prices.stable), 100n + 55n + 5n);
  assert.equal(priceOf(spec, { cpuSecond: 0n, gibSecond: 0n, job: 0n }), 2n);
  assert.equal(priceOf(spec, undefined), undefined);
  const amount = fc.bigInt({ min: 0n, max: 10n ** 20n });
  const law = fc.property(amount, amount, amount, fc.integer({ min: 1, max: 86_400 }), (cpuSecond, gibSecond, job, wallSeconds) => {
    const prices = { cpuSecond, gibSecond, job };
    const at = (seconds: number) => priceOf({ ...spec, limits: { ...spec.limits, wallSeconds: seconds } }, prices) as bigint;
    const exact = job * 4n + BigInt(wallSeconds) * (2n * cpuSecond + gibSecond); // quarters
    assert.ok(4n * at(wallSeconds) >= exact && 4n * at(wallSeconds) < exact + 8n + 8n);
    assert.ok(at(wallSeconds + 1) >= at(wallSeconds));
  });
  fc.assert(law, { verbose: 1 });
});

test('what an offer does not cover is named', () => {
  assert.equal(whyNot(spec, OFFER), undefined);
  const named = (change: Partial<JobOffer>) => whyNot(spec, { ...OFFER, ...change }) ?? '';
  assert.match(named({ programs: ['module'] }), /no image/);
  assert.match(named({ classes: ['none'] }), /exact-output/);
  assert.match(named({ cpus: 0.4 }), /processors/);
  assert.match(named({ memoryBytes: 1 }), /memory/);
  assert.match(named({ diskBytes: 1 }), /disk/);
  assert.match(named({ wallSecondsMax: 9 }), /9 s/);
});
