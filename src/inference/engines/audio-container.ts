import { MillraceError } from '../../errors.ts';
import { walkMp3 } from './mp3-frames.ts';

/** Formats that are decoded, by the decoder's names; all others are refused, so that fewer parsers see what strangers send. */
export type AudioFormat = 'wav' | 'mp3' | 'oga' | 'opus' | 'flac' | 'm4a' | 'webm';

/** @throws bad-audio when the first bytes are those of no format that is taken */
export function sniffAudio(bytes: Uint8Array): AudioFormat {
  const text = (at: number, length: number) => Buffer.from(bytes.subarray(at, at + length)).toString('latin1');
  if (text(0, 4) === 'RIFF' && text(8, 4) === 'WAVE') return 'wav';
  if (text(0, 4) === 'fLaC') return 'flac';
  if (text(0, 4) === 'OggS') return text(0, 200).includes('OpusHead') ? 'opus' : 'oga';
  if (text(4, 4) === 'ftyp') return 'm4a';
  if (text(0, 4) === '\x1aE\xdf\xa3') return 'webm';
  // Frames of layer 0 are raw AAC, which is not taken.
  const mark = bytes[1] ?? 0;
  if (text(0, 3) === 'ID3' || (bytes[0] === 0xff && (mark & 0xe0) === 0xe0 && (mark & 0x06) !== 0)) return 'mp3';
  throw badAudio('its format is not known');
}

/**
 * Refuses a file that is cut off, as far as its container tells: the lengths in WAV, M4A and WebM (unless a stream's writer left them out), the
 * last page's mark in Ogg, the last frame and the number of frames in MP3. For FLAC the number of samples that must come out is given back.
 * @throws bad-audio
 */
export function checkWhole(bytes: Uint8Array, format: AudioFormat): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (format) {
    case 'wav':
      return void checkRiff(view);
    case 'm4a':
      return void checkBoxes(view);
    case 'oga':
    case 'opus':
      return void checkPages(view);
    case 'flac':
      return flacSamples(view);
    case 'webm':
      return void checkSegment(view);
    case 'mp3':
      return void checkFrames(bytes);
  }
}

function checkFrames(bytes: Uint8Array): void {
  const { frames, stated, isCut } = walkMp3(bytes);
  if (frames === 0) throw badAudio('there is no sound in it');
  if (isCut || (stated !== undefined && frames < stated))
    throw badAudio(`it holds ${frames} frames${stated === undefined ? '' : ` of ${stated}`}: it is cut off`);
}

/** The one segment of EBML (RFC 8794) after the header; all ones is a length that its writer did not know. */
function checkSegment(view: DataView): void {
  const readLength = (at: number) => {
    const first = at < view.byteLength ? view.getUint8(at) : 0;
    const bytes = Math.clz32(first) - 23;
    if (bytes > 8 || at + bytes > view.byteLength) throw cutOff(at + 8, view.byteLength);
    let value = first & (0xff >> bytes);
    let isOpen = value === 0xff >> bytes;
    for (let next = 1; next < bytes; next += 1) {
      isOpen &&= view.getUint8(at + next) === 0xff;
      value = value * 256 + view.getUint8(at + next);
    }
    return { value: isOpen ? undefined : value, end: at + bytes };
  };
  const header = readLength(4);
  const at = header.end + (header.value ?? 0);
  if (at + 12 > view.byteLength) throw cutOff(at + 12, view.byteLength);
  if (view.getUint32(at) !== 0x18538067) throw badAudio('it holds no segment');
  const segment = readLength(at + 4);
  if (segment.value !== undefined && segment.end + segment.value > view.byteLength)
    throw cutOff(segment.end + segment.value, view.byteLength);
}

/** Chunks of RIFF: the one with the samples must be there whole. A stream's writer leaves zero, or some two gigabytes or more, where it did not know. */
function checkRiff(view: DataView): void {
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const name = view.getUint32(at);
    const size = view.getUint32(at + 4, true);
    if (name === 0x64617461) {
      const isOpen = size >= 0x7fff_f000 || size === 0;
      if (!isOpen && at + 8 + size > view.byteLength) throw cutOff(at + 8 + size, view.byteLength);
      if (isOpen && at + 8 === view.byteLength) throw badAudio('there is no sound in it');
      return;
    }
    at += 8 + size + (size & 1);
  }
  throw badAudio('it ends before its samples begin');
}

/** Boxes of ISO 14496-12 at the top level. */
function checkBoxes(view: DataView): void {
  let hasMovie = false;
  for (let at = 0; at < view.byteLength; ) {
    if (at + 8 > view.byteLength) throw cutOff(at + 8, view.byteLength);
    const stated = view.getUint32(at);
    const size =
      stated === 1 && at + 16 <= view.byteLength ? Number(view.getBigUint64(at + 8)) : stated === 0 ? view.byteLength - at : stated;
    if (size < 8) throw badAudio(`it holds a box of ${size} bytes`);
    if (at + size > view.byteLength) throw cutOff(at + size, view.byteLength);
    hasMovie ||= view.getUint32(at + 4) === 0x6d6f6f76; // moov
    at += size;
  }
  if (!hasMovie) throw badAudio('its description is missing');
}

/** Pages of RFC 3533: each must be whole, and the last one marked as the end of the stream. */
function checkPages(view: DataView): void {
  let isEnd = false;
  for (let at = 0; at < view.byteLength; ) {
    if (at + 27 > view.byteLength || view.getUint32(at) !== 0x4f676753) {
      if (isEnd) return; // what comes after the end (tags of some writers) is not sound
      throw cutOff(at + 27, view.byteLength);
    }
    isEnd = (view.getUint8(at + 5) & 4) !== 0;
    const segments = view.getUint8(at + 26);
    let size = 27 + segments;
    if (at + size > view.byteLength) throw cutOff(at + size, view.byteLength);
    for (let segment = 0; segment < segments; segment += 1) size += view.getUint8(at + 27 + segment);
    if (at + size > view.byteLength) throw cutOff(at + size, view.byteLength);
    at += size;
  }
  if (!isEnd) throw badAudio('its last page is missing: it is cut off');
}

/** The number of samples in the header of RFC 9639; undefined when its writer did not know. */
function flacSamples(view: DataView): number | undefined {
  if (view.byteLength < 42) throw cutOff(42, view.byteLength);
  const samples = (view.getUint8(21) & 0x0f) * 2 ** 32 + view.getUint32(22);
  return samples === 0 ? undefined : samples;
}

function cutOff(expected: number, got: number): MillraceError {
  return badAudio(`it ends at byte ${got}, and should go on to ${expected}: it is cut off`);
}

function badAudio(reason: string): MillraceError {
  return new MillraceError('bad-audio', {
    actor: 'caller',
    message: `The audio cannot be read: ${reason}`,
    values: { reason },
    hint: 'Send a whole WAV, MP3, Ogg, Opus, FLAC, M4A or WebM file.',
  });
}
