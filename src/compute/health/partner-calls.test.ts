import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type ChainClient, developmentSigner } from '../../chain/index.ts';
import { openTransportIdentity, type PeerServer, startPeerServer } from '../../connect/index.ts';
import { ANSWER_HEADER, answerDigest, askPartner, type PartnerCaller, type PartnerNode } from './partner-calls.ts';

const TIMEOUT_MS = 400;
const partner = developmentSigner(2, 'dev');
/** All that a call needs of a client: which network it is for. */
const client = { chainId: 31_337, address: () => '0x00000000000000000000000000000000000000aa' } as unknown as ChainClient;
const caller: PartnerCaller = { client, signer: developmentSigner(1, 'dev'), protocol: { now: () => 1_000n } as PartnerCaller['protocol'] };
const folder = mkdtempSync(join(tmpdir(), 'millrace-partner-'));
let server: PeerServer;
let node: PartnerNode;
let answer: (requestSignature: string) => Promise<Response>;

before(async () => {
  const identity = await openTransportIdentity(folder);
  server = await startPeerServer({ port: 0, identity, fetch: (request) => answer(request.headers.get('signature') ?? '') });
  const endpoint = `https://127.0.0.1:${server.port}`;
  node = { operatorId: 7n, nodeKey: partner.address, endpoint, transportKey: identity.transportKey };
});
after(async () => {
  await server?.stop(100);
  rmSync(folder, { recursive: true, force: true });
});

const ask = () => askPartner(caller, node, { path: '/ping', body: {}, timeoutMs: TIMEOUT_MS });

/** A text in pieces, with a pause before each. */
function inPieces(pieces: Iterable<string>, pauseMs: number): ReadableStream<Uint8Array> {
  return ReadableStream.from(
    (async function* () {
      for (const piece of pieces) {
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
        yield Buffer.from(piece);
      }
    })(),
  ) as ReadableStream<Uint8Array>;
}

test('a partner that drips its answer is left like one that is silent; one that answers in pieces is heard', async () => {
  const endless = (function* () {
    for (;;) yield ' ';
  })();
  answer = async () => new Response(inPieces(endless, 20));
  await assert.rejects(ask(), { code: 'peer-too-slow', actor: 'peer' });
  const text = '{"timeMs":1000}';
  answer = async (requestSignature) => {
    const signature = await partner.signDigest(answerDigest(requestSignature, text));
    return new Response(inPieces([text.slice(0, 5), text.slice(5)], 20), { headers: { [ANSWER_HEADER]: signature } });
  };
  assert.deepEqual((await ask()).value, { timeMs: 1000 });
});
