import { createHash } from 'node:crypto';
import type { Hex } from 'viem';
import { decodeStrictState, hashWholeState } from '../../host/index.ts';
import type { DeterminismClass } from '../spec/job-spec.ts';

/**
 * The hash of a state that somebody handed over, as it stands in its leaf: of a strict job over the hashes of its pages, else SHA-256.
 * @param memoryBytes what a strict job's memory has.
 * @throws bad-state for bytes that are no state of a strict job
 */
export function stateHashOf(determinism: DeterminismClass, bytes: Uint8Array, memoryBytes: number): Hex {
  if (determinism === 'wasm-strict') return hashWholeState(decodeStrictState(bytes, memoryBytes)) as Hex;
  return `0x${createHash('sha256').update(bytes).digest('hex')}`;
}
