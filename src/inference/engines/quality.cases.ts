/** What stands on `test/media/page.png`. */
export const PAGE_TEXT =
  'Region-based segmentation Let us first determine markers of the coins and the background. These markers are pixels that we can label ' +
  'unambiguously as either object or background. Here, the markers are found at the two extreme parts of the histogram of grey values:';

/** The share of the page's words that a reader found, in their order. */
export function wordsRight(text: string, truth: string = PAGE_TEXT): number {
  const words = truth.split(/\s+/);
  const found = text.split(/\s+/);
  // Longest common subsequence.
  let row = new Array<number>(found.length + 1).fill(0);
  for (const word of words) {
    const next = [0];
    for (const [at, other] of found.entries())
      next.push(word === other ? (row[at] as number) + 1 : Math.max(next[at] as number, row[at + 1] as number));
    row = next;
  }
  return (row.at(-1) as number) / words.length;
}

/** Cosine of the angle between two vectors of length 1. */
export function similarity(one: Float32Array, other: Float32Array): number {
  return one.reduce((sum, value, at) => sum + value * (other[at] as number), 0);
}

/** Mono samples as a 16-bit WAV file. */
export function encodeWav(samples: Float32Array, sampleRateHz: number): Uint8Array {
  const wav = Buffer.alloc(44 + 2 * samples.length);
  wav.write('RIFF', 0);
  wav.writeUInt32LE(36 + 2 * samples.length, 4);
  wav.write('WAVEfmt ', 8);
  wav.writeUInt32LE(16, 16);
  wav.writeUInt16LE(1, 20);
  wav.writeUInt16LE(1, 22);
  wav.writeUInt32LE(sampleRateHz, 24);
  wav.writeUInt32LE(2 * sampleRateHz, 28);
  wav.writeUInt16LE(2, 32);
  wav.writeUInt16LE(16, 34);
  wav.write('data', 36);
  wav.writeUInt32LE(2 * samples.length, 40);
  for (const [at, value] of samples.entries()) wav.writeInt16LE(Math.round(32_767 * Math.max(-1, Math.min(1, value))), 44 + 2 * at);
  return new Uint8Array(wav);
}
