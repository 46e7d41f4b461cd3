/** Kilobits a second by index (ISO 11172-3 and 13818-3), for MPEG 1 layers 1, 2, 3 and for MPEG 2 layers 1, 2 and 3. */
const RATES: readonly (readonly number[])[] = [
  [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
  [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
  [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
  [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];
const SAMPLE_RATES = [44_100, 48_000, 32_000];

/** What the frames of an MP3 file tell of its being whole. */
export interface Mp3Walk {
  frames: number;
  /** As the encoder's own header (Xing or Info) has it; it does not count itself. */
  stated: number | undefined;
  /** The last frame ends outside the file. */
  isCut: boolean;
}

/** Goes from frame to frame, past ID3 tags and over what is no frame. */
export function walkMp3(bytes: Uint8Array): Mp3Walk {
  const walk: Mp3Walk = { frames: 0, stated: undefined, isCut: false };
  for (let at = afterTag(bytes); at + 4 <= bytes.length; ) {
    const length = frameBytes(bytes, at);
    if (length === undefined) {
      at += 1;
      continue;
    }
    // A single header may be chance; two that follow one another are not.
    const isNext = at + length + 4 > bytes.length || frameBytes(bytes, at + length) !== undefined || walk.frames > 0;
    if (!isNext) {
      at += 1;
      continue;
    }
    if (at + length > bytes.length) return { ...walk, isCut: true };
    const stated = walk.frames === 0 && walk.stated === undefined ? statedFrames(bytes.subarray(at, at + length)) : undefined;
    if (stated === undefined) walk.frames += 1;
    else walk.stated = stated;
    at += length;
  }
  return walk;
}

function afterTag(bytes: Uint8Array): number {
  if (Buffer.from(bytes.subarray(0, 3)).toString('latin1') !== 'ID3' || bytes.length < 10) return 0;
  return 10 + bytes.subarray(6, 10).reduce((size, byte) => size * 128 + (byte & 0x7f), 0);
}

/** The length of the frame whose header stands here; undefined when none does. */
function frameBytes(bytes: Uint8Array, at: number): number | undefined {
  const second = bytes[at + 1] ?? 0;
  const third = bytes[at + 2] ?? 0;
  if (bytes[at] !== 0xff || (second & 0xe0) !== 0xe0) return undefined;
  const version = (second >> 3) & 3; // 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
  const layer = 4 - ((second >> 1) & 3);
  const rateAt = third >> 4;
  const sampleRate = SAMPLE_RATES[(third >> 2) & 3];
  if (version === 1 || layer === 4 || rateAt === 0 || rateAt === 15 || sampleRate === undefined) return undefined;
  const isFirst = version === 3;
  const bitRate = 1_000 * (RATES[isFirst ? layer - 1 : layer === 1 ? 3 : 4]?.[rateAt] as number);
  const rate = sampleRate / (isFirst ? 1 : version === 2 ? 2 : 4);
  const padding = (third >> 1) & 1;
  if (layer === 1) return (Math.floor((12 * bitRate) / rate) + padding) * 4;
  return Math.floor(((layer === 3 && !isFirst ? 72 : 144) * bitRate) / rate) + padding;
}

function statedFrames(frame: Uint8Array): number | undefined {
  const head = Buffer.from(frame.subarray(0, 64));
  const at = Math.max(head.indexOf('Xing'), head.indexOf('Info'));
  if (at < 4 || at + 12 > frame.length || ((frame[at + 7] as number) & 1) === 0) return undefined;
  return new DataView(frame.buffer, frame.byteOffset, frame.byteLength).getUint32(at + 8);
}
