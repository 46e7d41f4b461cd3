import sharp from 'sharp';
import { MillraceError } from '../../errors.ts';

/** An image in memory: rows of RGB bytes, upright. */
export interface PixelImage {
  width: number;
  height: number;
  rgb: Uint8Array;
}

/** Width and height in pixels. */
export interface Size {
  width: number;
  height: number;
}

/** Pixels that an encoded image may unpack to: a 48-megapixel photograph passes, a decompression bomb does not. */
export const IMAGE_PIXELS_MAX = 50_000_000;

const FORMATS = new Set(['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif']);
const DECODE_SECONDS_MAX = 20;

// One request at a time, and results that do not depend on what was decoded before.
sharp.cache(false);
sharp.concurrency(1);
// Only these parsers see what strangers send: none for SVG, PDF, and the many formats of scanners and scientists.
sharp.block({ operation: ['VipsForeignLoad'] });
sharp.unblock({ operation: ['Jpeg', 'Png', 'Webp', 'Nsgif', 'Tiff', 'Heif'].map((format) => `VipsForeignLoad${format}Buffer`) });

/**
 * Decodes an image (JPEG, PNG, WebP, GIF, TIFF, AVIF; the first frame), turned as its EXIF orientation says, onto white, and stretches it to the
 * size that `fit` gives for its own upright size, which comes back as `original`.
 * @throws bad-image, image-too-large
 */
export async function decodeImage(
  bytes: Uint8Array,
  options: { fit: (original: Size) => Size; kernel: 'linear' | 'cubic' },
): Promise<PixelImage & { original: Size }> {
  const input = { limitInputPixels: IMAGE_PIXELS_MAX, failOn: 'error', sequentialRead: true, animated: false } as const;
  try {
    const {
      width = 0,
      height = 0,
      format = '',
      orientation = 1,
      pageHeight,
    } = await sharp(bytes, { ...input, limitInputPixels: false }).metadata();
    if (!FORMATS.has(format)) throw badImage(`its format is ${format || 'unknown'}`);
    const rows = pageHeight ?? height;
    if (width * rows > IMAGE_PIXELS_MAX) throw tooLarge(width, rows);
    if (width < 1 || rows < 1) throw badImage('it has no pixels');
    const original = orientation >= 5 ? { width: rows, height: width } : { width, height: rows };
    const { data, info } = await sharp(bytes, input)
      .timeout({ seconds: DECODE_SECONDS_MAX })
      .rotate()
      .flatten({ background: '#ffffff' })
      .toColourspace('srgb')
      .resize({ ...options.fit(original), fit: 'fill', kernel: options.kernel, fastShrinkOnLoad: false })
      .removeAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const rgb = info.channels === 3 ? new Uint8Array(data) : fromGrey(data, info.channels);
    return { width: info.width, height: info.height, rgb, original };
  } catch (cause) {
    if (cause instanceof MillraceError) throw cause;
    throw badImage((cause as Error).message.split('\n')[0] as string, cause);
  }
}

function fromGrey(data: Uint8Array, channels: number): Uint8Array {
  const rgb = new Uint8Array((data.length / channels) * 3);
  for (let pixel = 0; pixel < data.length / channels; pixel += 1) rgb.fill(data[pixel * channels] as number, 3 * pixel, 3 * pixel + 3);
  return rgb;
}

function tooLarge(width: number, height: number): MillraceError {
  return new MillraceError('image-too-large', {
    actor: 'caller',
    message: `Got an image of ${width} x ${height} pixels, expected at most ${IMAGE_PIXELS_MAX} pixels in all`,
    values: { width, height, pixelsMax: IMAGE_PIXELS_MAX },
    hint: 'Scale it down before you send it.',
  });
}

function badImage(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-image', {
    actor: 'caller',
    message: `The image cannot be read: ${reason}`,
    values: { reason },
    hint: 'Send a whole JPEG, PNG, WebP, GIF, TIFF or AVIF file.',
    cause,
  });
}
