import type { PixelImage } from './image-pixels.ts';

/** A point in pixels. */
export interface Point {
  x: number;
  y: number;
}

/** A rectangle at any angle: centre, unit vector along its width, sizes. `width` lies nearer to the horizontal. */
export interface TextBox {
  centre: Point;
  along: Point;
  width: number;
  height: number;
  /** Mean probability that its pixels are text. */
  score: number;
}

const PIXEL_MIN = 0.3;
const SCORE_MIN = 0.6;
const SIDE_MIN = 3;
const GROWTH = 1.6;
const BOXES_MAX = 300;

/**
 * The boxes of text in a map of probabilities (differentiable binarisation, Liao et al. 2020): connected pixels above the threshold, the
 * smallest rectangle around each, grown by area over perimeter since the map shows shrunken text. At most 300, the largest.
 */
export function findTextBoxes(map: Float32Array, size: { width: number; height: number }): TextBox[] {
  return findRegions(map, size)
    .sort((one, other) => other.pixels - one.pixels)
    .slice(0, BOXES_MAX)
    .filter(({ sum, pixels }) => sum / pixels >= SCORE_MIN)
    .map(({ edges, sum, pixels }) => ({ ...smallestRectangle(hull(edges)), score: sum / pixels }))
    .filter(({ width, height }) => Math.min(width, height) >= SIDE_MIN)
    .map((box) => {
      const growth = (box.width * box.height * GROWTH) / (2 * (box.width + box.height));
      return { ...box, width: box.width + 2 * growth, height: box.height + 2 * growth };
    });
}

/** Rows of boxes from top to bottom, each from left to right: a box joins a row whose middle passes through it. */
export function inReadingOrder(boxes: readonly TextBox[]): TextBox[][] {
  const rows: TextBox[][] = [];
  for (const box of [...boxes].sort((one, other) => one.centre.y - other.centre.y)) {
    const row = rows.find((each) => each.some((other) => Math.abs(other.centre.y - box.centre.y) < Math.min(other.height, box.height) / 2));
    if (row === undefined) rows.push([box]);
    else row.push(box);
  }
  return rows.map((row) => row.sort((one, other) => one.centre.x - other.centre.x));
}

/** Corners clockwise from top left. */
export function cornersOf({ centre, along, width, height }: TextBox): Point[] {
  const place = (across: number, down: number) => ({
    x: centre.x + across * along.x * width - down * along.y * height,
    y: centre.y + across * along.y * width + down * along.x * height,
  });
  return [place(-0.5, -0.5), place(0.5, -0.5), place(0.5, 0.5), place(-0.5, 0.5)];
}

/** What lies in a box, turned upright and scaled to a height; bilinear, edges repeated. */
export function cutOut(image: PixelImage, box: TextBox, size: { width: number; height: number }): PixelImage {
  const rgb = new Uint8Array(3 * size.width * size.height);
  for (let row = 0; row < size.height; row += 1) {
    const down = ((row + 0.5) / size.height - 0.5) * box.height;
    for (let column = 0; column < size.width; column += 1) {
      const across = ((column + 0.5) / size.width - 0.5) * box.width;
      const x = box.centre.x + across * box.along.x - down * box.along.y - 0.5;
      const y = box.centre.y + across * box.along.y + down * box.along.x - 0.5;
      sample(image, x, y, rgb, 3 * (row * size.width + column));
    }
  }
  return { ...size, rgb };
}

function sample({ rgb, width, height }: PixelImage, x: number, y: number, target: Uint8Array, at: number): void {
  const left = Math.min(width - 1, Math.max(0, Math.floor(x)));
  const top = Math.min(height - 1, Math.max(0, Math.floor(y)));
  const right = Math.min(width - 1, left + 1);
  const bottom = Math.min(height - 1, top + 1);
  const across = Math.min(1, Math.max(0, x - left));
  const down = Math.min(1, Math.max(0, y - top));
  for (let colour = 0; colour < 3; colour += 1) {
    const value = (row: number, column: number) => rgb[3 * (row * width + column) + colour] as number;
    const upper = value(top, left) * (1 - across) + value(top, right) * across;
    const lower = value(bottom, left) * (1 - across) + value(bottom, right) * across;
    target[at + colour] = Math.round(upper * (1 - down) + lower * down);
  }
}

interface Region {
  pixels: number;
  sum: number;
  /** The outermost points of each row. */
  edges: Point[];
}

/** Connected pixels (also by corners) above the threshold. */
function findRegions(map: Float32Array, { width, height }: { width: number; height: number }): Region[] {
  const isSeen = new Uint8Array(width * height);
  const stack = new Int32Array(width * height);
  const regions: Region[] = [];
  for (let start = 0; start < map.length; start += 1) {
    if (isSeen[start] !== 0 || (map[start] as number) <= PIXEL_MIN) continue;
    const rows = new Map<number, [number, number]>();
    const region: Region = { pixels: 0, sum: 0, edges: [] };
    let waiting = 1;
    stack[0] = start;
    isSeen[start] = 1;
    while (waiting > 0) {
      waiting -= 1;
      const at = stack[waiting] as number;
      const x = at % width;
      const y = (at - x) / width;
      region.pixels += 1;
      region.sum += map[at] as number;
      const row = rows.get(y);
      if (row === undefined) rows.set(y, [x, x]);
      else if (x < row[0]) row[0] = x;
      else if (x > row[1]) row[1] = x;
      for (let near = 0; near < 9; near += 1) {
        const [nextX, nextY] = [x + (near % 3) - 1, y + Math.floor(near / 3) - 1];
        if (nextX < 0 || nextX >= width || nextY < 0 || nextY >= height) continue;
        const next = nextY * width + nextX;
        if (isSeen[next] !== 0 || (map[next] as number) <= PIXEL_MIN) continue;
        isSeen[next] = 1;
        stack[waiting] = next;
        waiting += 1;
      }
    }
    if (region.pixels < SIDE_MIN * SIDE_MIN) continue;
    for (const [y, [left, right]] of rows)
      region.edges.push({ x: left, y }, { x: left, y: y + 1 }, { x: right + 1, y }, { x: right + 1, y: y + 1 });
    regions.push(region);
  }
  return regions;
}

/** Convex hull, counter-clockwise (Andrew's monotone chain). */
function hull(points: Point[]): Point[] {
  const sorted = points.sort((one, other) => one.x - other.x || one.y - other.y);
  const half = (from: readonly Point[]) => {
    const chain: Point[] = [];
    for (const point of from) {
      while (chain.length >= 2 && turn(chain.at(-2) as Point, chain.at(-1) as Point, point) <= 0) chain.pop();
      chain.push(point);
    }
    return chain.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.toReversed())];
}

function turn(from: Point, over: Point, to: Point): number {
  return (over.x - from.x) * (to.y - from.y) - (over.y - from.y) * (to.x - from.x);
}

/** The smallest rectangle around a convex polygon has a side along one of its edges. */
function smallestRectangle(polygon: readonly Point[]): Omit<TextBox, 'score'> {
  let best: (Omit<TextBox, 'score'> & { area: number }) | undefined;
  for (const [at, from] of polygon.entries()) {
    const to = polygon[(at + 1) % polygon.length] as Point;
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    if (length === 0) continue;
    const rectangle = rectangleAlong(polygon, { x: (to.x - from.x) / length, y: (to.y - from.y) / length });
    if (best === undefined || rectangle.area < best.area) best = rectangle;
  }
  const { centre, along, width, height } = best ?? { centre: { x: 0, y: 0 }, along: { x: 1, y: 0 }, width: 0, height: 0 };
  return { centre, along, width, height };
}

function rectangleAlong(polygon: readonly Point[], direction: Point): Omit<TextBox, 'score'> & { area: number } {
  // Of the four directions of a rectangle, the one that text runs along: to the right, not more down or up than across.
  const isSteep = Math.abs(direction.y) > Math.abs(direction.x);
  const level = isSteep ? { x: -direction.y, y: direction.x } : direction;
  const along = level.x < 0 ? { x: -level.x, y: -level.y } : level;
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { x, y } of polygon) {
    const across = x * along.x + y * along.y;
    const down = y * along.x - x * along.y;
    left = Math.min(left, across);
    right = Math.max(right, across);
    top = Math.min(top, down);
    bottom = Math.max(bottom, down);
  }
  const [middle, depth] = [(left + right) / 2, (top + bottom) / 2];
  const centre = { x: middle * along.x - depth * along.y, y: middle * along.y + depth * along.x };
  return { centre, along, width: right - left, height: bottom - top, area: (right - left) * (bottom - top) };
}
