import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { MillraceError } from '../errors.ts';
import type { LocalRequest } from './local-server.ts';
import { compareKeys } from './object-index.ts';
import { crc32c, s3Body, s3BodyText } from './s3-body.ts';
import { authorizeS3, chunkSignature, encodePart, parseQuery } from './s3-signature.ts';
import { parseXml, xmlDocument } from './xml.ts';

// The keys and the day of the examples in docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
const KEYS = { accessKey: 'AKIAIOSFODNN7EXAMPLE', secretKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' };
const NOW = Date.UTC(2013, 4, 24, 0, 5);
const EMPTY = createHash('sha256').digest('hex');
const HOST = { host: 'examplebucket.s3.amazonaws.com' };
const CREDENTIAL = 'AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request';

function request(given: Partial<LocalRequest>): LocalRequest {
  return { method: 'GET', rawPath: '/', rawQuery: '', headers: {}, body: bodyOf([]), signal: AbortSignal.timeout(10_000), ...given };
}

async function* bodyOf(parts: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}

function headerOf(signedHeaders: string, signature: string): string {
  return `AWS4-HMAC-SHA256 Credential=${CREDENTIAL},SignedHeaders=${signedHeaders},Signature=${signature}`;
}

const check = (given: LocalRequest, nowMs = NOW) => authorizeS3(given, parseQuery(given.rawQuery), KEYS, nowMs);
const refuses = (work: () => unknown, code: string) =>
  assert.throws(work, (error) => error instanceof MillraceError && error.code === code);

const GET_OBJECT = request({
  rawPath: '/test.txt',
  headers: {
    ...HOST,
    range: 'bytes=0-9',
    'x-amz-content-sha256': EMPTY,
    'x-amz-date': '20130524T000000Z',
    authorization: headerOf(
      'host;range;x-amz-content-sha256;x-amz-date',
      'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
    ),
  },
});

test('the signatures of Amazon’s examples are accepted: header, encoded path, query of a listing, presigned URL', () => {
  check(GET_OBJECT);
  check(
    request({
      method: 'PUT',
      rawPath: '/test%24file.text',
      headers: {
        ...HOST,
        date: 'Fri, 24 May 2013 00:00:00 GMT',
        'x-amz-date': '20130524T000000Z',
        'x-amz-storage-class': 'REDUCED_REDUNDANCY',
        'x-amz-content-sha256': '44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072',
        authorization: headerOf(
          'date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class',
          '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
        ),
      },
    }),
  );
  const headers = { ...HOST, 'x-amz-date': '20130524T000000Z', 'x-amz-content-sha256': EMPTY };
  const authorization = headerOf(
    'host;x-amz-content-sha256;x-amz-date',
    '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  );
  check(request({ rawQuery: 'max-keys=2&prefix=J', headers: { ...headers, authorization } }));
  const presigned = `X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=${encodePart(CREDENTIAL)}&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404`;
  const url = request({ rawPath: '/test.txt', rawQuery: presigned, headers: HOST });
  check(url);
  refuses(() => check(url, NOW + 86_400_000), 'request-expired');
});

test('a request that was changed, is old, foreign or not signed is refused', () => {
  refuses(() => check({ ...GET_OBJECT, rawPath: '/test.txu' }), 'signature-mismatch');
  refuses(() => check({ ...GET_OBJECT, method: 'DELETE' }), 'signature-mismatch');
  refuses(() => check({ ...GET_OBJECT, rawQuery: 'acl' }), 'signature-mismatch');
  refuses(() => check({ ...GET_OBJECT, headers: { ...GET_OBJECT.headers, range: 'bytes=0-8' } }), 'signature-mismatch');
  refuses(() => check({ ...GET_OBJECT, headers: { ...GET_OBJECT.headers, 'x-amz-copy-source': '/a/b' } }), 'authorization-malformed');
  refuses(() => check(GET_OBJECT, NOW + 16 * 60_000), 'request-time-skewed');
  refuses(() => check(GET_OBJECT, NOW - 21 * 60_000), 'request-time-skewed');
  refuses(() => check(request({ headers: HOST })), 'access-denied-s3');
  refuses(() => authorizeS3(GET_OBJECT, [], { ...KEYS, accessKey: 'MRXXXXXXXXXXXXXXXXXX' }, NOW), 'access-key-unknown');
  refuses(() => check({ ...GET_OBJECT, headers: { ...GET_OBJECT.headers, authorization: 'AWS AKIA:abc' } }), 'authorization-malformed');
});

const SEED = '4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9';
const CHUNKS = {
  key: ['20130524', 'us-east-1', 's3', 'aws4_request'].reduce<Buffer>(
    (key, text) => createHmacOf(key, text),
    Buffer.from(`AWS4${KEYS.secretKey}`),
  ),
  date: '20130524T000000Z',
  scope: '20130524/us-east-1/s3/aws4_request',
  seed: SEED,
};

function createHmacOf(key: Buffer, text: string): Buffer {
  // HMAC written out, so that the test does not share the code under test.
  const block = Buffer.alloc(64);
  (key.length > 64 ? createHash('sha256').update(key).digest() : key).copy(block);
  const inner = createHash('sha256')
    .update(block.map((byte) => byte ^ 0x36))
    .update(text)
    .digest();
  return createHash('sha256')
    .update(block.map((byte) => byte ^ 0x5c))
    .update(inner)
    .digest();
}

test('chunks signed as in Amazon’s example are taken apart; a flipped byte anywhere in them is refused', async () => {
  const framed = Buffer.concat([
    Buffer.from('10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n'),
    Buffer.alloc(65_536, 'a'),
    Buffer.from('\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n'),
    Buffer.alloc(1024, 'a'),
    Buffer.from('\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n'),
  ]);
  const read = (bytes: Buffer, pieces: number) => {
    const parts = Array.from({ length: pieces }, (_, i) => bytes.subarray((bytes.length * i) / pieces, (bytes.length * (i + 1)) / pieces));
    const authorization = { payload: 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD', chunks: CHUNKS };
    const headers = { 'x-amz-decoded-content-length': '66560' };
    return s3BodyText(s3Body(request({ headers, body: bodyOf(parts) }), authorization), 1 << 20);
  };
  for (const pieces of [1, 2, 7, 1000]) assert.equal(await read(framed, pieces), 'a'.repeat(66_560));
  await fc.assert(
    fc.asyncProperty(fc.nat(framed.length - 3), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
      const changed = Buffer.from(framed);
      changed[at] = (changed[at] as number) ^ flip;
      // A hexadecimal digit may be written large; everything else must be found.
      const isSpelling = changed.toString('latin1').toLowerCase() === framed.toString('latin1').toLowerCase();
      if (!isSpelling) await assert.rejects(read(changed, 3), MillraceError);
    }),
    { numRuns: 60 },
  );
});

test('an unsigned chunked body with a trailing checksum is checked by that checksum', async () => {
  const payload = 'STREAMING-UNSIGNED-PAYLOAD-TRAILER';
  const read = (checksum: string) => {
    const body = bodyOf([Buffer.from(`9\r\n123456789\r\n0\r\nx-amz-checksum-crc32c:${checksum}\r\n\r\n`)]);
    const headers = { 'x-amz-trailer': 'x-amz-checksum-crc32c' };
    return s3BodyText(s3Body(request({ headers, body }), { payload, chunks: CHUNKS }), 100);
  };
  assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
  assert.equal(await read('4waSgw=='), '123456789');
  await assert.rejects(read('4waSgA=='), (error) => error instanceof MillraceError && error.code === 'bad-s3-digest');
  assert.equal(
    chunkSignature(CHUNKS, SEED, { sha256: createHash('sha256').update(Buffer.alloc(65_536, 'a')).digest('hex') }),
    'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648',
  );
});

test('bodies of any bytes never crash the reader of chunks', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      const body = s3Body(request({ body: bodyOf([bytes]) }), { payload: 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER', chunks: CHUNKS });
      await assert.rejects(s3BodyText(body, 100), MillraceError);
    }),
  );
});

test('text comes back from XML as it was, and XML that could do more than say something is refused', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      const legal = text.replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, '');
      assert.equal(parseXml(xmlDocument('A', { B: legal })).children[0]?.text, legal);
    }),
  );
  for (const text of [
    '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
    '<a>&unknown;</a>',
    '<a>&#0;</a>',
    '<a><b></a></b>',
    '<a>',
    '',
    'words',
    '<a/><b/>',
    '<?php x ?><a/>',
    '<![CDATA[x]]>',
    '<a>'.repeat(20) + '</a>'.repeat(20),
    `<a>${'<b/>'.repeat(60_000)}</a>`,
  ])
    refuses(() => parseXml(text), 'malformed-xml');
});

test('keys are in the order of their UTF-8 bytes', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (one, other) => {
      const [left, right] = [one, other].map((text) => Buffer.from(text.toWellFormed())) as [Buffer, Buffer];
      assert.equal(Math.sign(compareKeys(one.toWellFormed(), other.toWellFormed())), Math.sign(Buffer.compare(left, right)));
    }),
  );
  assert.ok(compareKeys('\uffff', '\u{10000}') < 0);
  assert.ok(compareKeys(randomBytes(4).toString('hex'), '') > 0);
});
