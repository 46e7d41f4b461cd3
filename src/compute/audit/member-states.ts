import { decodeFunctionData, hexToBytes } from 'viem';
import { abis, type ChainClient } from '../../chain/index.ts';
import { peerFetch, signRequest } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { BOX_HEADER, JOBS_HEADER, type JobCaller, jobsHeader, unpackState } from '../jobs/job-api.ts';
import { openBytes } from '../jobs/sealed-box.ts';
import type { LeafProof } from '../verify/commitment.ts';
import { type FetchStateOptions, peerOf, type StateSource } from './job-case.ts';

/** Where members of committees hand on what was delivered to them. */
export const DEMANDS_PATH = '/v1/compute/demands';

const TIMEOUT_MS = 60_000;

/** What a sealed state of a demand belongs to. */
export function demandContext(demandId: bigint): string {
  return `demand ${demandId} state`;
}

/**
 * The state that a demand was about: from the chain where it was delivered there, else from the members of its committee, one after another. All
 * other states from elsewhere.
 * Nothing of what is handed over is checked here.
 */
export function memberStates(caller: JobCaller, { demandId, otherwise }: { demandId: bigint; otherwise: StateSource }): StateSource {
  return {
    async fetch(index, options) {
      const { leaf, members } = await caller.client.read('stateDemands', 'demandOf', [demandId]);
      if (leaf !== index) return await otherwise.fetch(index, options);
      const onChain = await deliveredOnChain(caller.client, demandId);
      if (onChain !== undefined) return onChain;
      let last: unknown;
      for (const member of members) {
        try {
          return await fetchDelivered(caller, { demandId, member, ...options });
        } catch (error) {
          options.signal.throwIfAborted();
          last = error;
        }
      }
      throw last ?? noMembers(demandId);
    },
  };
}

/** What was delivered in a transaction, which anybody can read. */
async function deliveredOnChain(client: ChainClient, demandId: bigint): Promise<{ leaf: LeafProof; state: Uint8Array } | undefined> {
  const [delivered] = await client.events({ name: 'stateDemands', event: 'StateDelivered', args: { demandId } });
  if (delivered === undefined || delivered.args.signed !== 0n) return undefined;
  const { input } = await client.public.getTransaction({ hash: delivered.transactionHash });
  try {
    const { functionName, args } = decodeFunctionData({ abi: abis.stateDemands, data: input });
    if (functionName !== 'deliver') return undefined;
    const [, , , leaf, proof, state] = args;
    return { leaf: { ...leaf, proof: [...proof] }, state: hexToBytes(state) };
  } catch {
    return undefined; // brought by another contract: its members or the provider may have it
  }
}

async function fetchDelivered(caller: JobCaller, of: { demandId: bigint; member: bigint } & FetchStateOptions) {
  const { demandId, member, signal, bytesMax } = of;
  const peer = await peerOf(caller.client, member);
  const path = `${DEMANDS_PATH}/${demandId}/state`;
  const response = await peerFetch(peer, path, {
    headers: await signedHeaders(caller, new URL(path, peer.endpoint).href),
    signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
  });
  const bytes = await readAtMost(response.body, 2 * bytesMax);
  if (response.status !== 200) {
    throw new MillraceError('state-not-handed-on', {
      actor: 'peer',
      message: `Operator ${member} answered with status ${response.status} for the state of demand ${demandId}`,
      values: { member, demandId, status: response.status },
      hint: 'Another member of the committee may have it.',
    });
  }
  return unpackState(Buffer.from(await openBytes(bytes, { key: caller.key, context: demandContext(demandId) })), peer);
}

/** Headers of a request to a member: signed, they name the network and the key to seal to. */
export async function signedHeaders({ client, signer, key }: JobCaller, url: string): Promise<Record<string, string>> {
  const headers = { [JOBS_HEADER]: jobsHeader(client), [BOX_HEADER]: key.publicKey };
  return { ...headers, ...(await signRequest({ method: 'GET', url, headers }, signer, { covered: [JOBS_HEADER, BOX_HEADER] })) };
}

function noMembers(demandId: bigint): MillraceError {
  return new MillraceError('state-not-handed-on', {
    actor: 'peer',
    message: `Demand ${demandId} has no committee`,
    values: { demandId },
  });
}
