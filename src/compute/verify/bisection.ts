import { bytesToHex, type Hex } from 'viem';
import { badSegments, type Commitment, type LeafProof, proveLeaf, treeHeight } from './commitment.ts';

/** Levels of both trees that one round of a dispute walks down. */
export const LEVELS_A_ROUND = 4;

/** Where a dispute stands, as `IJobDisputes.Case` has it: a node by its place and the levels below it. */
export interface DisputePlace {
  /** Levels between the node and the leaves; 0: a leaf. */
  depth: number;
  /** Of the node at its level, from the left. */
  index: number;
}

/** Moves until a single leaf is found, of both sides together. */
export function movesOf(segments: number): number {
  return 2 * Math.ceil(treeHeight(segments) / LEVELS_A_ROUND);
}

/**
 * What either side opens of its own tree at a place: the nodes as many levels below it as one round takes, from left to right.
 * @throws bad-segments for a place that is not in the tree
 */
export function openedNodes(commitment: Commitment, { depth, index }: DisputePlace): Hex[] {
  const levels = Math.min(depth, LEVELS_A_ROUND);
  const nodes = commitment.levels[depth - levels]?.slice(index << levels, (index + 1) << levels) ?? [];
  if (nodes.length !== 1 << levels || depth < 1) throw badSegments(`a node ${index} with ${depth} levels below it`);
  return nodes.map((node) => bytesToHex(node));
}

/** Where the walk goes on after both sides have opened: to the first node that differs; undefined when none does. */
export function nextPlace(place: DisputePlace, operator: readonly Hex[], challenger: readonly Hex[]): DisputePlace | undefined {
  const levels = Math.min(place.depth, LEVELS_A_ROUND);
  const first = operator.findIndex((node, at) => node !== challenger[at]);
  return first < 0 ? undefined : { depth: place.depth - levels, index: (place.index << levels) + first };
}

/** The two leaves that the operator shows in the end: the first that differs and the one before it; at leaf 0 itself and leaf 1. */
export function shownLeaves(commitment: Commitment, leaf: number): { start: LeafProof; end: LeafProof } {
  const segment = leaf === 0 ? 0 : leaf - 1;
  return { start: proveLeaf(commitment, segment), end: proveLeaf(commitment, segment + 1) };
}
