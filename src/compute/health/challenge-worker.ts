/** A thread that does pieces of a challenge, so that the node answers meanwhile. */
import { parentPort } from 'node:worker_threads';
import { CHUNK_ELEMENTS, fillRows, hashLeaf, multiplyRows, runSegment } from './challenge-work.ts';

/** A piece of work. `b` is shared by all threads. */
export type ChallengePiece =
  | { kind: 'fill'; seed: Uint8Array; side: number; from: number; to: number; b: SharedArrayBuffer }
  | { kind: 'rows'; seed: Uint8Array; side: number; from: number; to: number; b: SharedArrayBuffer }
  | { kind: 'segment'; seed: Uint8Array; segment: number; elements: number; firstLeaf: number };

/** What a piece gave: words and the hashes of the leaves that they make; none where B was filled. */
export interface ChallengePieceResult {
  words: Uint32Array;
  hashes: Uint8Array[];
}

parentPort?.on('message', (piece: ChallengePiece) => {
  const result = workOn(piece);
  parentPort?.postMessage(result, [result.words.buffer as ArrayBuffer]);
});

function workOn(piece: ChallengePiece): ChallengePieceResult {
  const { seed } = piece;
  if (piece.kind === 'segment') {
    const words = runSegment(seed, piece.segment, piece.elements);
    return { words, hashes: hashesOf(words, CHUNK_ELEMENTS, piece.firstLeaf) };
  }
  const { side, from, to } = piece;
  const b = new Float32Array(piece.b);
  if (piece.kind === 'fill') {
    fillRows(b.subarray(from * side, to * side), { seed, matrix: 'b', side, from });
    return { words: new Uint32Array(0), hashes: [] };
  }
  const a = new Float64Array((to - from) * side);
  fillRows(a, { seed, matrix: 'a', side, from });
  const words = multiplyRows(a, b, side);
  return { words, hashes: hashesOf(words, side, from) };
}

function hashesOf(words: Uint32Array, length: number, first: number): Uint8Array[] {
  return Array.from({ length: words.length / length }, (_, leaf) =>
    hashLeaf(first + leaf, words.subarray(leaf * length, (leaf + 1) * length)),
  );
}
