import { createHash } from 'node:crypto';
import type { Hex } from 'viem';
import { type Commitment, chainHashOf, commitStates, isLeafOf, proveLeaf } from './commitment.ts';
import { drawSegments } from './draw-segments.ts';
import type { SimulationSettings } from './simulation.ts';
import type { SimulationRandom } from './simulation-random.ts';

/** A job that is simulated. */
export interface SimulatedJob {
  /** What its provider does: runs all of it, makes all of it up, or makes a share of its segments up. */
  kind: 'honest' | 'forger' | 'skipper';
  isOnProbation: boolean;
  id: Hex;
}

/**
 * One job: its provider commits to states of which some are made up; each auditor replays the segments that are drawn for it from the states that were
 * committed to, and compares leaves as the product's auditors do. Colluding auditors find everything right.
 */
export function simulateJob(
  settings: SimulationSettings,
  job: SimulatedJob,
  random: SimulationRandom,
): { madeUp: number; replayedSegments: number; accusedSegments: number[] } {
  const { segments } = settings;
  const madeUp = chooseMadeUp(settings, job, random);
  const states = [firstState(job.id)];
  for (let index = 0; index < segments; index += 1) {
    states.push(madeUp.has(index) ? sha256(`made up ${random.word()}`) : runSegment(job.id, index, states[index] as Buffer));
  }
  const commitment = commitStates(job.id, states.map(hashOfState));
  const samples = job.isOnProbation ? segments : settings.samples;
  const accusedSegments: number[] = [];
  let replayedSegments = 0;
  for (let auditor = 0; auditor < settings.auditors; auditor += 1) {
    const drawn = drawSegments({ value: random.word(), jobId: job.id, auditor: BigInt(auditor), segments, samples });
    replayedSegments += drawn.length;
    if (random.fraction() < settings.colludingShare) continue;
    const wrong = drawn.find((segment) => !isRight(job.id, { commitment, states, segment, segments }));
    if (wrong !== undefined) accusedSegments.push(wrong);
  }
  return { madeUp: madeUp.size, replayedSegments, accusedSegments };
}

function chooseMadeUp({ segments, skippedShare }: SimulationSettings, { kind }: SimulatedJob, random: SimulationRandom): Set<number> {
  const chosen = new Set<number>();
  const count = kind === 'honest' ? 0 : kind === 'forger' ? segments : Math.max(1, Math.round(skippedShare * segments));
  while (chosen.size < count) chosen.add(count === segments ? chosen.size : Math.floor(random.fraction() * segments));
  return chosen;
}

/** What an auditor does with one segment: both leaves in the commitment, the chain between them, the state run again. */
function isRight(
  specHash: Hex,
  { commitment, states, segment, segments }: { commitment: Commitment; states: readonly Buffer[]; segment: number; segments: number },
): boolean {
  const [start, end] = [proveLeaf(commitment, segment), proveLeaf(commitment, segment + 1)];
  if (!isLeafOf(commitment.root, segments, start) || !isLeafOf(commitment.root, segments, end)) return false;
  const state = segment === 0 ? firstState(specHash) : (states[segment] as Buffer);
  if (hashOfState(state) !== start.stateHash) return false;
  const chained = chainHashOf({ specHash, index: segment + 1, previous: start.chainHash, stateHash: end.stateHash });
  return chained === end.chainHash && hashOfState(runSegment(specHash, segment, state)) === end.stateHash;
}

const sha256 = (...parts: (string | Buffer)[]): Buffer => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
const firstState = (specHash: Hex) => sha256('first', specHash);
const runSegment = (specHash: Hex, index: number, state: Buffer) => sha256(specHash, String(index), state);
const hashOfState = (state: Buffer): Hex => `0x${sha256(state).toString('hex')}`;
