import { createHash } from 'node:crypto';
import type { ChainClient } from '../chain/index.ts';
import { peerFetch } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import { readAtMost } from '../read-at-most.ts';

/** Where a document lies that evidence speaks of: at an operator's node, known by its digest. */
export interface EvidencePlace {
  operatorId: bigint;
  /** Below the operator's endpoint, with a leading slash. */
  path: string;
  /** SHA-256, hexadecimal. */
  sha256: string;
}

const PLACE = /^operator:([1-9]\d{0,18})(\/[\x21-\x22\x24-\x7e]{0,512})#sha256=([0-9a-f]{64})$/;
const INLINE = /^data:application\/json;base64,([A-Za-z0-9+/]*={0,2})$/;
const FETCH_MS = 30_000;

/** A place as evidence names it: `operator:7/v1/inference/cases/0x…#sha256=…`. */
export function evidencePlaceText({ operatorId, path, sha256 }: EvidencePlace): string {
  return `operator:${operatorId}${path}#sha256=${sha256}`;
}

/** A small document as evidence carries it itself. */
export function inlineEvidence(document: Uint8Array): string {
  return `data:application/json;base64,${Buffer.from(document).toString('base64')}`;
}

/**
 * The document that a piece of evidence carries or names: inline, or from the node of an operator over TLS pinned to its key on chain, checked against
 * its digest. No other address is ever asked, so that nobody makes jurors call whom they like.
 * @returns undefined where the text is of another kind
 * @throws evidence-not-had when the operator does not give what the digest says, peer-unreachable, answer-too-long
 */
export async function openEvidence(
  client: ChainClient,
  text: string,
  options: { bytesMax: number; signal: AbortSignal },
): Promise<Uint8Array | undefined> {
  const inline = INLINE.exec(text);
  if (inline !== null) return Buffer.from(inline[1] as string, 'base64');
  const place = PLACE.exec(text);
  if (place === null) return undefined;
  const [operatorId, path, sha256] = [BigInt(place[1] as string), place[2] as string, place[3] as string];
  const { endpoint, transportKey } = await client.read('operators', 'operator', [operatorId]);
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(FETCH_MS)]);
  const response = await peerFetch({ endpoint, transportKey }, path, { signal, headersTimeoutMs: FETCH_MS });
  const bytes = await readAtMost(response.body, options.bytesMax);
  const got = createHash('sha256').update(bytes).digest('hex');
  if (response.status === 200 && got === sha256) return bytes;
  throw new MillraceError('evidence-not-had', {
    actor: 'peer',
    message: `Operator ${operatorId} gives status ${response.status} and digest ${got} for evidence, expected 200 and ${sha256}`,
    values: { operatorId, status: response.status, got, expected: sha256 },
    hint: 'Who gave this evidence must keep it readable until the dispute is over.',
  });
}
