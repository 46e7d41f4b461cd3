import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { type ChainClient, createSigner } from '../../chain/index.ts';
import { openTransportIdentity, startPeerServer } from '../../connect/index.ts';
import { boxContext, type JobCaller, type JobPeer, SEALED_TYPE } from './job-api.ts';
import { boxKeyOf, seal } from './sealed-box.ts';

/** What a peer answers with: bytes or parts as they come, or a body that is sent as it is, sealed or not. */
export type Served = Uint8Array | AsyncIterable<Uint8Array> | { body: ReadableStream<Uint8Array> };

/** A provider of jobs that serves what a test tells it, honest or not, and somebody who asks it; without a chain. */
export interface TestJobPeer {
  caller: JobCaller;
  peer: JobPeer;
  /** Answers by the last name of their paths: `offer`, `work`, `log`, the name of a content or an output, `progress` for that of a job. */
  served: Map<string, Served>;
  /** The paths that were asked for. */
  asked: string[];
  /** A folder that goes with the peer. */
  folder: string;
  stop(): Promise<void>;
}

/** An address of nobody. */
export const NOBODY: Hex = `0x${'11'.repeat(20)}`;

/** Starts the peer; it serves nothing yet. */
export async function startTestJobPeer(): Promise<TestJobPeer> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-job-peer-'));
  const signer = createSigner(`0x${'44'.repeat(32)}`);
  const client = { chainId: 1, address: () => NOBODY, now: async () => 0n } as unknown as ChainClient;
  const caller = { client, signer, key: await boxKeyOf(signer) };
  const [served, asked] = [new Map<string, Served>(), [] as string[]];
  const answer = (request: Request) => {
    const { pathname } = new URL(request.url);
    asked.push(pathname);
    const [, jobId, part, name] = /\/(0x[0-9a-f]{64})(?:\/(\w+)(?:\/(.*))?)?$/.exec(pathname) ?? [];
    const what = name ?? part ?? (jobId === undefined ? 'offer' : 'progress');
    const bytes = served.get(what);
    if (bytes === undefined) return new Response(null, { status: 404 });
    if ('body' in bytes) return new Response(bytes.body);
    const plain = bytes instanceof Uint8Array ? [bytes] : bytes;
    if (jobId === undefined) return new Response(ReadableStream.from(plain) as ReadableStream<Uint8Array>);
    const context = boxContext(jobId as Hex, name === undefined ? what : `${part} ${name}`);
    const sealed = seal(plain, { recipient: caller.key.publicKey, context });
    return new Response(ReadableStream.from(sealed) as ReadableStream<Uint8Array>, { headers: { 'content-type': SEALED_TYPE } });
  };
  const identity = await openTransportIdentity(folder);
  const server = await startPeerServer({ port: 0, identity, fetch: answer });
  const peer = { operatorId: 1n, endpoint: `https://127.0.0.1:${server.port}`, transportKey: identity.transportKey, nodeKey: NOBODY };
  return {
    caller,
    peer,
    served,
    asked,
    folder,
    async stop() {
      await server.stop(100);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
