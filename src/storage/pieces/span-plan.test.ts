import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { CID } from 'multiformats/cid';
import { cidOf, DAG_PB, encodeFileNode, RAW } from '../content/block.ts';
import { createCarScanner } from '../content/car.ts';
import { readFile } from '../content/content-reader.ts';
import { type Leaf, takeChunk } from '../content/run-chunk.ts';
import { createTrustlessGateway, type GatewaySource } from './gateway.ts';

interface File {
  cid: CID;
  blocks: Map<string, Uint8Array>;
  bytes: Buffer;
}

/** A file of two levels of nodes with leaves of the given sizes; equal sizes are equal blocks. */
function fileOf(groups: number[][]): File {
  const blocks = new Map<string, Uint8Array>();
  const keep = (codec: number, block: Uint8Array): CID => {
    const cid = cidOf(codec, block);
    blocks.set(cid.toString(), block);
    return cid;
  };
  const nodes = groups.map((sizes) => {
    const leaves = sizes.map((size) => ({ cid: keep(RAW, Buffer.alloc(size, size)), tsize: size, fileBytes: size }));
    return { cid: keep(DAG_PB, encodeFileNode(leaves)), tsize: 1, fileBytes: sizes.reduce((sum, size) => sum + size, 0) };
  });
  const bytes = Buffer.concat(groups.flat().map((size) => Buffer.alloc(size, size)));
  return { cid: keep(DAG_PB, encodeFileNode(nodes)), blocks, bytes };
}

function gatewayOf({ blocks }: File, knowsAhead: boolean): (path: string) => Promise<Response> {
  const store: GatewaySource = {
    block: async (cid) => blocks.get(cid.toString()),
    ...(knowsAhead ? { hasBlock: async (cid: CID) => blocks.has(cid.toString()) } : {}),
    pieceOfContent: () => undefined,
    piece: () => undefined,
    async *readPayload() {},
  };
  const gateway = createTrustlessGateway({ store });
  return (path) => gateway(new Request(`http://gateway${path}`, { headers: { accept: 'application/vnd.ipld.car; dups=y' } }));
}

const GROUPS = fc.array(fc.array(fc.integer({ min: 0, max: 300 }), { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 4 });

test('a CAR of part of a file is the same bytes whether its length is planned or it is walked, and as long as it says', async () => {
  const property = fc.asyncProperty(GROUPS, fc.nat(2000), fc.nat(900), async (groups, from, length) => {
    const file = fileOf(groups);
    const path = `/ipfs/${file.cid}?format=car&dag-scope=entity&entity-bytes=${from}:${from + length}`;
    const [planned, walked] = [await gatewayOf(file, true)(path), await gatewayOf(file, false)(path)];
    const [one, other] = [Buffer.from(await planned.arrayBuffer()), Buffer.from(await walked.arrayBuffer())];
    assert.deepEqual(one, other);
    assert.equal(planned.headers.get('content-length'), String(one.length));
    assert.equal(walked.headers.get('content-length'), null);
  });
  await fc.assert(property, { numRuns: 60 });
});

test('a buyer knows the length of the CAR of each chunk in advance, and no chunk of several leaves is longer than it may be', async () => {
  const property = fc.asyncProperty(GROUPS, fc.integer({ min: 1, max: 1500 }), async (groups, bytesMax) => {
    const file = fileOf(groups);
    const gateway = gatewayOf(file, true);
    const leaves = await leavesOf(file);
    for (let at = 0; at < leaves.length; ) {
      const chunk = takeChunk(leaves.slice(at), bytesMax);
      const [first] = chunk.leaves as [Leaf];
      at += chunk.leaves.length;
      if (chunk.leaves.length === 1) continue;
      assert.ok(chunk.carBytes <= bytesMax);
      const from = first.start - first.parent.start;
      const to = from + chunk.leaves.reduce((sum, { bytes }) => sum + bytes, 0);
      const answer = await gateway(`/ipfs/${first.parent.cid}?format=car&dag-scope=entity&entity-bytes=${from}:${to - 1}`);
      const car = Buffer.from(await answer.arrayBuffer());
      assert.equal(car.length, chunk.carBytes);
      const got: string[] = [];
      const scanner = createCarScanner(({ cid }) => got.push(cid.toString()));
      scanner.write(car);
      scanner.finish();
      assert.deepEqual(
        got.slice(1),
        chunk.leaves.map(({ cid }) => cid.toString()),
      );
    }
  });
  await fc.assert(property, { numRuns: 60 });
});

test('a leaf that is not here is a 404 before the first byte', async () => {
  const file = fileOf([[100, 200, 300]]);
  file.blocks.delete(cidOf(RAW, Buffer.alloc(300, 300)).toString());
  const answer = await gatewayOf(file, true)(`/ipfs/${file.cid}?format=car&entity-bytes=0:599`);
  assert.equal(answer.status, 404);
});

/** The leaves of a file as a reader finds them. */
async function leavesOf({ cid, blocks }: File): Promise<Leaf[]> {
  const leaves: Leaf[] = [];
  const block = async (wanted: CID) => blocks.get(wanted.toString()) as Uint8Array;
  const fetcher = {
    block,
    async run(run: { leaves: Leaf[] }) {
      leaves.push(...run.leaves);
      return Promise.all(run.leaves.map((leaf) => block(leaf.cid)));
    },
  };
  for await (const _ of readFile(fetcher, cid));
  return leaves;
}
