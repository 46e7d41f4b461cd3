import type { Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { JobResult, JobTerms } from '../jobs/job-terms.ts';
import { badSegments, type Commitment, commitStates, type LeafProof } from '../verify/commitment.ts';
import { canaryStateHash } from './finding.ts';

/** What makes a job a canary; known to its renter, and to the provider that plays along. */
export interface Canary {
  /** Known to nobody else before the canary is opened. */
  salt: Hex;
  /** The leaf whose state hash is no hash of a state: 1 to T. */
  leaf: number;
}

/**
 * A canary from untrusted JSON.
 * @throws bad-canary
 */
export function canaryFromJson(value: unknown): Canary {
  const { salt, leaf } = (value ?? {}) as Record<string, unknown>;
  if (typeof salt === 'string' && /^0x[0-9a-f]{64}$/.test(salt) && Number.isSafeInteger(leaf))
    return { salt: salt as Hex, leaf: leaf as number };
  throw new MillraceError('bad-canary', {
    actor: 'caller',
    message: 'What makes the job a canary is malformed: expected a salt of 32 bytes and the number of a leaf',
    hint: 'Send it as `millrace canary` does.',
  });
}

/** The `flagSeal` of a canary's terms. A job that is none has any random word there, so nobody can tell them apart. */
export async function canarySeal(client: ChainClient, of: { renter: Hex; nonce: bigint; salt: Hex }): Promise<Hex> {
  return await client.read('computeJobs', 'canarySeal', [of.renter, of.nonce, of.salt]);
}

/**
 * The commitment to a run with the canary's wrong leaf in it.
 * @throws bad-segments when there is no such leaf
 */
export function canaryCommitment(specHash: Hex, stateHashes: readonly Hex[], { salt, leaf }: Canary): Commitment {
  if (!Number.isSafeInteger(leaf) || leaf < 1 || leaf >= stateHashes.length)
    throw badSegments(`a canary at leaf ${leaf} of ${stateHashes.length}`);
  return commitStates(
    specHash,
    stateHashes.map((stateHash, index) => (index === leaf ? canaryStateHash(salt, leaf) : stateHash)),
  );
}

/** Opens a canary, once its auditors have shown what they found and while there is grace for it. @throws not-a-canary, too-late, wrong-phase */
export async function openCanary(
  sender: Sender,
  of: { terms: JobTerms; result: JobResult; leaf: LeafProof; canary: Canary; key?: string },
): Promise<void> {
  const { terms, result, leaf, canary, key } = of;
  await sender.send({
    contract: 'computeJobs',
    functionName: 'openCanary',
    args: [terms, result, canary.leaf, leaf.chainHash, leaf.proof, canary.salt],
    key,
  });
}
