/** A thread that makes units of a challenge, so that the node answers meanwhile. */
import { parentPort } from 'node:worker_threads';
import { type ChallengeUnit, hashLeaves, makeLeaf, makeUnit } from './challenge-work.ts';

/** A piece of work: a unit, of which the leaves' hashes are wanted, or one leaf of a unit again, of which the words are. */
export interface ChallengePiece {
  seed: Uint8Array;
  unit: ChallengeUnit;
  leaf?: number;
}

/** What a piece gave. */
export interface ChallengePieceResult {
  hashes: Uint8Array[];
  words: Uint32Array;
}

parentPort?.on('message', ({ seed, unit, leaf }: ChallengePiece) => {
  const result: ChallengePieceResult =
    leaf === undefined
      ? { hashes: hashLeaves(makeUnit(seed, unit)), words: new Uint32Array(0) }
      : { hashes: [], words: makeLeaf(seed, unit, leaf) };
  parentPort?.postMessage(result);
});
