import decode from 'audio-decode';
import { MillraceError } from '../../errors.ts';
import { checkWhole, sniffAudio } from './audio-container.ts';

/** Longest recording that is taken. */
export const AUDIO_SECONDS_MAX = 600;

/** What the speech models hear: 16,000 mono samples a second. */
export const HEARING_RATE_HZ = 16_000;

/** Small, since a few bytes of FLAC may hold a second of silence. */
const CHUNK_BYTES = 1 << 13;
const CHANNELS_MAX = 8;
const RATE_MIN = 4_000;
const RATE_MAX = 384_000;

/**
 * Decodes a recording (WAV, MP3, Ogg Vorbis, Opus, FLAC, M4A, WebM) piece by piece, so that a small file that holds hours ends with an error and
 * not with the memory, and gives it as 16 kHz mono, -1 to 1. A file that is cut off is refused where its format can tell.
 * @throws bad-audio, audio-too-long
 */
export async function decodeAudio(bytes: Uint8Array): Promise<Float32Array> {
  const own = new Uint8Array(bytes); // decoders look at it in words: it must begin a buffer
  const format = sniffAudio(own);
  const expected = checkWhole(own, format);
  const decoder = await decode[format]();
  const parts: Float32Array[] = [];
  let rate = 0;
  let samples = 0;
  const take = ({ channelData, sampleRate }: { channelData: Float32Array[]; sampleRate: number }) => {
    if (channelData.length === 0 || channelData[0]?.length === 0) return;
    if (channelData.length > CHANNELS_MAX) throw badAudio(`it has ${channelData.length} channels`);
    if (!(sampleRate >= RATE_MIN && sampleRate <= RATE_MAX)) throw badAudio(`its rate is ${sampleRate} samples a second`);
    rate ||= sampleRate;
    samples += channelData[0]?.length ?? 0;
    if (samples / rate > AUDIO_SECONDS_MAX) throw tooLong();
    parts.push(mix(channelData));
  };
  try {
    for (let at = 0; at < own.length; at += CHUNK_BYTES) take(await decoder(own.slice(at, at + CHUNK_BYTES)));
    take(await decoder());
  } catch (cause) {
    decoder.free();
    if (cause instanceof MillraceError) throw cause;
    throw badAudio((cause as Error).message ?? 'it cannot be decoded', cause);
  }
  if (samples === 0) throw badAudio('there is no sound in it');
  if (expected !== undefined && samples < expected) throw badAudio(`it states ${expected} samples and holds ${samples}: it is cut off`);
  return resample(join(parts, samples), rate, HEARING_RATE_HZ);
}

function mix(channels: readonly Float32Array[]): Float32Array {
  const mono = new Float32Array(channels[0]?.length ?? 0);
  for (const channel of channels)
    for (let at = 0; at < mono.length; at += 1) mono[at] = (mono[at] as number) + (channel[at] as number) / channels.length;
  return mono.map((value) => (Number.isFinite(value) ? Math.max(-1, Math.min(1, value)) : 0));
}

function join(parts: readonly Float32Array[], length: number): Float32Array {
  const all = new Float32Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Zero crossings of the interpolating function on each side. */
const CROSSINGS = 16;
/** Positions between two samples for which the function is kept. */
const PHASES = 256;

/** Another sampling rate: windowed-sinc interpolation (Hann window) that cuts off what the new rate cannot hold. */
export function resample(samples: Float32Array, fromHz: number, toHz: number): Float32Array {
  if (fromHz === toHz) return samples;
  const cutoff = Math.min(1, toHz / fromHz);
  const reach = Math.ceil(CROSSINGS / cutoff);
  const kernel = new Float64Array((2 * reach + 1) * (PHASES + 1));
  for (let phase = 0; phase <= PHASES; phase += 1) {
    for (let tap = -reach; tap <= reach; tap += 1) {
      const x = tap - phase / PHASES;
      const window = Math.abs(x) >= reach ? 0 : 0.5 + 0.5 * Math.cos((Math.PI * x) / reach);
      const wave = x === 0 ? 1 : Math.sin(Math.PI * x * cutoff) / (Math.PI * x * cutoff);
      kernel[phase * (2 * reach + 1) + tap + reach] = cutoff * wave * window;
    }
  }
  const result = new Float32Array(Math.floor((samples.length * toHz) / fromHz));
  for (let at = 0; at < result.length; at += 1) {
    const place = (at * fromHz) / toHz;
    const whole = Math.floor(place);
    const row = Math.round((place - whole) * PHASES) * (2 * reach + 1) + reach;
    let sum = 0;
    for (let tap = Math.max(-reach, -whole); tap <= reach && whole + tap < samples.length; tap += 1) {
      sum += (samples[whole + tap] as number) * (kernel[row + tap] as number);
    }
    result[at] = sum;
  }
  return result;
}

function tooLong(): MillraceError {
  return new MillraceError('audio-too-long', {
    actor: 'caller',
    message: `The recording is longer than ${AUDIO_SECONDS_MAX} seconds`,
    values: { secondsMax: AUDIO_SECONDS_MAX },
    hint: 'Send it in pieces.',
  });
}

function badAudio(reason: string, cause?: unknown): MillraceError {
  return new MillraceError('bad-audio', {
    actor: 'caller',
    message: `The audio cannot be read: ${reason}`,
    values: { reason },
    hint: 'Send a whole WAV, MP3, Ogg, Opus, FLAC, M4A or WebM file.',
    cause,
  });
}
