import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { checkWhole, sniffAudio } from './audio-container.ts';
import { walkMp3 } from './mp3-frames.ts';

/** MPEG 1, layer 3, 128 kbit/s, 44.1 kHz: 417 bytes. */
const FRAME = Buffer.concat([Buffer.from('fffb9064', 'hex'), Buffer.alloc(413)]);
const frames = (count: number) => Buffer.concat(Array.from({ length: count }, () => FRAME));

/** A frame that holds no sound but the number of those that do. */
function countingFrame(count: number): Buffer {
  const frame = Buffer.from(FRAME);
  frame.write('Xing', 36, 'latin1');
  frame.writeUInt32BE(1, 40);
  frame.writeUInt32BE(count, 44);
  return frame;
}

const cutOff = { code: 'bad-audio', message: /cut off/ };

describe('an audio file that is cut off', () => {
  it('is known in MP3 by its last frame, or by the number of frames', () => {
    assert.equal(sniffAudio(frames(2)), 'mp3');
    assert.deepEqual(walkMp3(frames(5)), { frames: 5, stated: undefined, isCut: false });
    checkWhole(Buffer.concat([Buffer.from('ID3\x04\0\0\0\0\0\x05xxxxx'), frames(3), Buffer.from('TAG'.padEnd(128))]), 'mp3');
    assert.throws(() => checkWhole(frames(5).subarray(0, 2_000), 'mp3'), cutOff);
    checkWhole(Buffer.concat([countingFrame(3), frames(3)]), 'mp3');
    assert.throws(() => checkWhole(Buffer.concat([countingFrame(4), frames(3)]), 'mp3'), cutOff);
  });

  it('is known in WebM by the length of its segment, unless its writer did not know that', () => {
    const webm = (length: string, body: number) =>
      Buffer.concat([Buffer.from(`1a45dfa38318181818538067${length}`, 'hex'), Buffer.alloc(body)]);
    assert.equal(sniffAudio(webm('ff', 20)), 'webm');
    checkWhole(webm('94', 20), 'webm');
    checkWhole(webm('01ffffffffffffff', 20), 'webm');
    assert.throws(() => checkWhole(webm('94', 19), 'webm'), cutOff);
    assert.throws(() => checkWhole(Buffer.from('1a45dfa3', 'hex'), 'webm'), cutOff);
  });

  it('is known in Ogg by its last page, and in M4A by its boxes', () => {
    const page = (flags: number) =>
      Buffer.concat([Buffer.from('OggS\0'), Buffer.from([flags]), Buffer.alloc(20), Buffer.from([1, 4]), Buffer.from('data')]);
    checkWhole(Buffer.concat([page(2), page(4)]), 'oga');
    assert.throws(() => checkWhole(Buffer.concat([page(2), page(0)]), 'oga'), cutOff);
    assert.throws(() => checkWhole(Buffer.concat([page(2), page(4)]).subarray(0, 50), 'oga'), cutOff);
    const box = (name: string, size: number) => Buffer.concat([Buffer.from([0, 0, 0, size]), Buffer.from(name), Buffer.alloc(size - 8)]);
    checkWhole(Buffer.concat([box('ftyp', 16), box('moov', 20), box('mdat', 30)]), 'm4a');
    assert.throws(() => checkWhole(Buffer.concat([box('ftyp', 16), box('moov', 20), box('mdat', 30)]).subarray(0, 60), 'm4a'), cutOff);
    assert.throws(() => checkWhole(box('ftyp', 16), 'm4a'), { code: 'bad-audio' });
  });

  it('of any bytes is taken or refused as bad audio, and nothing else happens', () => {
    const starts = ['RIFF\0\0\0\0WAVE', 'OggS', 'fLaC', '\0\0\0\x10ftyp', 'ID3', '\xff\xfb\x90\x64'].map((start) =>
      Buffer.from(start, 'latin1'),
    );
    fc.assert(
      fc.property(fc.constantFrom(...starts), fc.uint8Array({ maxLength: 400 }), (start, rest) => {
        const bytes = new Uint8Array(Buffer.concat([start, rest]));
        try {
          checkWhole(bytes, sniffAudio(bytes));
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'bad-audio');
        }
      }),
      { numRuns: 500 },
    );
  });
});
