import { encodeAbiParameters, type Hex, keccak256 } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import type { SegmentFinding } from './inspect-segment.ts';
import type { CommittedJob } from './job-case.ts';

const NOTHING: Hex = `0x${'00'.repeat(32)}`;
const NUMBER = { right: 1, wrong: 2, withheld: 3 } as const;

/** A finding as the contract counts it (`IAuditors.Finding`). */
export function numbersOf(finding: SegmentFinding): { number: number; segment: number; stateHash: Hex } {
  const segment = finding.kind === 'right' ? 0 : finding.segment;
  return { number: NUMBER[finding.kind], segment, stateHash: finding.kind === 'wrong' ? finding.stateHash : NOTHING };
}

/** A finding for people and logs. */
export function summaryOf(finding: SegmentFinding): Record<string, string | number> {
  if (finding.kind === 'right') return { finding: finding.kind };
  const { kind, segment } = finding;
  return kind === 'withheld'
    ? { finding: kind, segment, reason: finding.reason }
    : { finding: kind, segment, stateHash: finding.stateHash };
}

/** The segments that an auditor of a drawn job replays (`IAuditors.segmentsOf`). */
export async function segmentsOf(client: ChainClient, { jobId, terms }: CommittedJob, operatorId: bigint): Promise<readonly number[]> {
  const time = await client.read('computeJobs', 'seedTimeOf', [jobId]);
  const value = await client.read('randomness', 'valueOf', [time]);
  const { segments, samples } = terms;
  return await client.read('auditors', 'segmentsOf', [jobId, { value, segments, samples }, operatorId]);
}

/** The state hash that a canary's leaf has instead of a state's (`IComputeJobs.canaryStateHash`). */
export function canaryStateHash(salt: Hex, leaf: number): Hex {
  return keccak256(encodeAbiParameters([{ type: 'string' }, { type: 'bytes32' }, { type: 'uint32' }], ['millrace canary', salt, leaf]));
}
