import type { SeededRandom } from '../consensus/seeded-random.ts';

/**
 * A photograph as another user might have taken it: a crop of at least nine tenths of each side, another size, light and quality, as JPEG. What is
 * in it is the same; its bytes, and a hash of its pixels, are not.
 */
export async function varyImage(bytes: Uint8Array, random: SeededRandom): Promise<Buffer> {
  const { default: sharp } = await import('sharp');
  const image = sharp(bytes, { limitInputPixels: 50_000_000 }).rotate();
  const { width, height } = await image.metadata();
  const side = (length: number) => Math.max(1, Math.floor(length * (0.9 + 0.1 * random.fraction())));
  const [cutWidth, cutHeight] = [side(width), side(height)];
  const cut = {
    left: random.integer(0, width - cutWidth),
    top: random.integer(0, height - cutHeight),
    width: cutWidth,
    height: cutHeight,
  };
  return image
    .extract(cut)
    .resize({ width: Math.max(64, Math.round(cutWidth * (0.7 + 0.3 * random.fraction()))) })
    .modulate({ brightness: 0.92 + 0.16 * random.fraction() })
    .jpeg({ quality: random.integer(78, 94) })
    .toBuffer();
}
