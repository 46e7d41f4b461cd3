import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSigner } from '../../chain/index.ts';
import { cidOf, RAW } from '../content/block.ts';
import {
  announcementToJson,
  peerRecord,
  priceOfBytes,
  readAnnouncement,
  type SignedAnnouncement,
  signAnnouncement,
} from './announcement.ts';
import { createAnnouncementBook } from './announcement-book.ts';
import { createRoutingRoutes } from './routing-routes.ts';

const domain = { chainId: 31337, market: `0x${'11'.repeat(20)}` } as const;
const cid = cidOf(RAW, Buffer.from('held')).toString();
const NOW = 1_000_000n;
const signerOf = (index: number) => createSigner(`0x${(index + 1).toString(16).padStart(64, '0')}`);

function announce(index: number, endpoint: string, changes: Record<string, unknown> = {}): Promise<SignedAnnouncement> {
  return signAnnouncement(domain, signerOf(index), {
    sequence: 1n,
    issuedAt: NOW,
    expiry: NOW + 600n,
    endpoint,
    transportKey: `0x${'22'.repeat(32)}`,
    pricePerGib: 10n ** 15n,
    chunkBytes: 1n << 20n,
    cids: [cid],
    ...changes,
  });
}
const honest = (signed: SignedAnnouncement) => Promise.resolve(signed.announcement.holder);

test('an announcement survives JSON, and one changed field makes it nobody’s', async () => {
  const signed = await announce(1, 'https://10.0.0.1:9000');
  const json = JSON.parse(JSON.stringify(announcementToJson(signed)));
  assert.deepEqual(readAnnouncement(domain, json, NOW).announcement, {
    ...signed.announcement,
    holder: signed.announcement.holder.toLowerCase(),
  });
  for (const change of [
    { pricePerGib: '1' },
    { endpoint: 'https://10.0.0.2:9000' },
    { cids: [] },
    { sequence: '2' },
    { chunkBytes: '5' },
  ]) {
    assert.throws(() => readAnnouncement(domain, { ...json, ...change }, NOW), { code: 'bad-announcement' });
  }
  assert.throws(() => readAnnouncement({ ...domain, chainId: 1 }, json, NOW), { code: 'bad-announcement' });
  assert.throws(() => readAnnouncement(domain, json, NOW + 600n), { code: 'bad-announcement' });
  for (const chunkBytes of [0n, (16n << 20n) + 1n]) {
    const loose = announcementToJson(await announce(1, 'https://10.0.0.1:9000', { chunkBytes }));
    assert.throws(() => readAnnouncement(domain, loose, NOW), { code: 'bad-announcement' });
  }
  const long = announcementToJson(await announce(1, 'https://10.0.0.1:9000', { expiry: NOW + 100_000n }));
  assert.throws(() => readAnnouncement(domain, long, NOW), { code: 'bad-announcement' });
});

test('prices are rounded up, so that no byte is free', () => {
  assert.equal(priceOfBytes(1n, 1n), 1n);
  assert.equal(priceOfBytes(1n << 30n, 1n << 20n), 1n << 20n);
  assert.equal(priceOfBytes(0n, 5n), 0n);
});

test('a record of the routing API names a libp2p peer and its gateway', async () => {
  const record = peerRecord(domain, await announce(1, 'https://10.0.0.1:9000'));
  assert.equal(record.Schema, 'peer');
  assert.match(record.ID as string, /^bafz/);
  assert.deepEqual(record.Addrs, ['/ip4/10.0.0.1/tcp/9000/http']);
  assert.deepEqual(record.Protocols, ['transport-ipfs-gateway-http', 'millrace-retrieval']);
});

test('a hundred holders of one network do not crowd out one of another network', async () => {
  const book = createAnnouncementBook({ probe: honest, limits: { holders: 50, holdersPerPrefix: 40, answer: 4 } });
  let refused = 0;
  for (let index = 0; index < 100; index += 1) {
    await book.take(await announce(index, `https://10.0.0.${index}:9000`)).catch(() => {
      refused += 1;
    });
  }
  assert.equal(refused, 60);
  await book.take(await announce(500, 'https://192.0.2.1:9000'));
  for (let draw = 0; draw < 20; draw += 1) {
    const found = book.find(cid, NOW);
    assert.equal(found.length, 4);
    assert.ok(found.some(({ announcement }) => announcement.endpoint === 'https://192.0.2.1:9000'));
  }
});

test('a full book gives up one of the most numerous network for one of a new network', async () => {
  const book = createAnnouncementBook({ probe: honest, limits: { holders: 10, holdersPerPrefix: 32 } });
  for (let index = 0; index < 9; index += 1) await book.take(await announce(index, `https://10.0.0.${index}:9000`));
  await book.take(await announce(20, 'https://10.0.1.1:9000'));
  await book.take(await announce(21, 'https://10.0.2.1:9000'));
  await assert.rejects(book.take(await announce(22, 'https://10.0.0.77:9000')), { code: 'announcements-full' });
  const held = book.all(NOW).map(({ announcement }) => announcement.endpoint);
  assert.equal(held.length, 10);
  assert.ok(held.includes('https://10.0.1.1:9000') && held.includes('https://10.0.2.1:9000'));
});

test('an endpoint belongs to the holder that it states; an old sequence does not come back', async () => {
  const owner = signerOf(1).address;
  const book = createAnnouncementBook({ probe: async () => owner });
  await assert.rejects(book.take(await announce(2, 'https://10.0.0.1:9000')), { code: 'endpoint-not-proven' });
  await book.take(await announce(1, 'https://10.0.0.1:9000', { sequence: 5n }));
  await assert.rejects(book.take(await announce(1, 'https://10.0.0.1:9000', { sequence: 4n })), { code: 'announcement-stale' });
  assert.equal(book.find(cid, NOW).length, 1);
  assert.equal(book.find(cid, NOW + 600n).length, 0);
});

test('the routing API answers JSON, lines and 404, takes announcements and says what it refuses', async () => {
  const book = createAnnouncementBook({ probe: honest });
  const own = await announce(9, 'https://10.0.9.9:9000');
  const routes = createRoutingRoutes({
    domain,
    book,
    own: async (asked) => (asked.toString() === cid ? own : undefined),
    now: async () => NOW,
  });
  const ask = (path: string, init?: RequestInit) => routes.request(`http://node${path}`, init);
  const put = (records: unknown) => ask('/providers', { method: 'PUT', body: JSON.stringify({ Providers: records }) });

  const record = (signed: SignedAnnouncement) => ({ Schema: 'peer', 'millrace-retrieval': announcementToJson(signed) });
  const accepted = await put([record(await announce(1, 'https://10.0.0.1:9000')), { Schema: 'peer', ID: 'bafz' }]);
  assert.equal(accepted.status, 200);
  const { ProvideResults: results } = (await accepted.json()) as {
    ProvideResults: { Payload?: { TTL: number }; Error?: { code: string } }[];
  };
  assert.equal(results[0]?.Payload?.TTL, 600_000);
  assert.equal(results[1]?.Error?.code, 'bad-field');

  const answer = await ask(`/providers/${cid}`, { headers: { accept: 'application/json' } });
  assert.equal(answer.headers.get('access-control-allow-origin'), '*');
  const { Providers } = (await answer.json()) as { Providers: { Schema: string }[] };
  assert.deepEqual(
    Providers.map(({ Schema }) => Schema),
    ['peer', 'peer'],
  );
  const lines = await ask(`/providers/${cid}`, { headers: { accept: 'application/x-ndjson' } });
  assert.equal(lines.headers.get('content-type'), 'application/x-ndjson');
  assert.equal((await lines.text()).trim().split('\n').length, 2);
  assert.equal((await ask(`/providers/${cidOf(RAW, Buffer.from('other'))}`)).status, 404);
  assert.equal((await ask('/providers/nonsense')).status, 422);
  assert.equal((await ask('/peers/x')).status, 501);
  assert.equal((await ask('/providers', { method: 'OPTIONS' })).status, 204);
  assert.equal((await put(Array(11).fill({}))).status, 400);
  assert.equal((await put([{}])).status, 422);
});
