import { WHOLE } from './text-distance.ts';

/** A box in pixels. */
export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** A thing in an image. */
export interface LabelledBox {
  label: string;
  box: Box;
}

/** Boxes that share half of their union show the same thing (PASCAL VOC's measure). */
const OVERLAP_MIN = 500_000;

/** Intersection over union, in millionths. */
export function overlap(one: Box, other: Box): number {
  const width = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
  const height = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
  if (!(width > 0 && height > 0)) return 0;
  const both = width * height;
  return Math.min(WHOLE, Math.floor((both / (one.width * one.height + other.width * other.height - both)) * WHOLE));
}

/**
 * How well found things fit those that are there: F1 of pairs with the same label and at least half of their union in common, the best
 * overlap first, each thing once; in millionths. Nothing found where nothing is counts as whole.
 */
export function boxLikeness(found: readonly LabelledBox[], there: readonly LabelledBox[]): number {
  if (found.length + there.length === 0) return WHOLE;
  const pairs = found.flatMap((one, from) =>
    there.flatMap((other, to) => {
      const shared = one.label.toLowerCase() === other.label.toLowerCase() ? overlap(one.box, other.box) : 0;
      return shared >= OVERLAP_MIN ? [{ from, to, shared }] : [];
    }),
  );
  pairs.sort((one, other) => other.shared - one.shared || one.from - other.from || one.to - other.to);
  const usedFrom = new Set<number>();
  const usedTo = new Set<number>();
  for (const { from, to } of pairs) {
    if (usedFrom.has(from) || usedTo.has(to)) continue;
    usedFrom.add(from);
    usedTo.add(to);
  }
  return Math.floor((2 * usedFrom.size * WHOLE) / (found.length + there.length));
}
