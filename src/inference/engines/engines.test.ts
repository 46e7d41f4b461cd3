import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { openEngineSet } from './embedded-engines.ts';
import type { EngineRequest, ResultOf, WitnessRequest } from './engine.ts';
import { encodeWav, similarity, wordsRight } from './quality.cases.ts';

const dataFolder = mkdtempSync(join(tmpdir(), 'millrace-engines-'));
const open = () => openEngineSet({ dataFolder, registry: 'none', isShared: false });
const engines = open();
after(async () => {
  await engines.close();
  rmSync(dataFolder, { recursive: true, force: true });
});

const media = (name: string) => new Uint8Array(readFileSync(join(import.meta.dirname, '../../../test/media', name)));
const run = <Request extends EngineRequest>(id: string, request: Request, set = engines): Promise<ResultOf<Request>> =>
  set.engine(id).run(request, { signal: new AbortController().signal });
const detect = (image: Uint8Array, witness?: WitnessRequest, set = engines) =>
  run('ssdlite-coco', { task: 'detection', image, witness }, set);
const speech = async (text: string, voice = 'slt') => {
  const { samples, sampleRateHz } = await run('flite', { task: 'speech', text, voice });
  return { samples, wav: encodeWav(samples, sampleRateHz) };
};
const NONCE: WitnessRequest = { nonce: `0x${'11'.repeat(32)}`, operator: `0x${'22'.repeat(20)}` };

describe('the embedded engines on real inputs', () => {
  it('find what is in photographs, and where', async () => {
    const cat = await detect(media('chelsea.jpg'));
    assert.deepEqual([cat.objects.map(({ label }) => label), cat.width, cat.height], [['cat'], 451, 300]);
    assert.ok((cat.objects[0]?.score ?? 0) > 0.9 && (cat.objects[0]?.box.width ?? 0) > 300);
    const table = await detect(media('coffee.jpg'));
    assert.deepEqual(table.objects.map(({ label }) => label).sort(), ['cup', 'dining table']);
    const astronaut = await detect(media('astronaut.jpg'));
    assert.equal(astronaut.classes[0]?.label, 'person');
  });

  it('take every usual image format, grey and transparent and turned pictures too', async () => {
    const photo = () => sharp(media('chelsea.jpg'));
    const images = [
      photo().webp(),
      photo().avif({ effort: 0 }),
      photo().gif(),
      photo().tiff(),
      photo().png({ palette: true }),
      photo().ensureAlpha(1).png(),
      photo().toColourspace('rgb16').png(),
      photo().toColourspace('cmyk').jpeg(),
    ];
    for (const image of images) assert.equal((await detect(new Uint8Array(await image.toBuffer()))).objects[0]?.label, 'cat');
    assert.equal((await detect(new Uint8Array(await photo().greyscale().png().toBuffer()))).height, 300);
    // Stored lying on its side, with the note that it is to be turned.
    const turned = await photo().rotate(90).withMetadata({ orientation: 8 }).jpeg().toBuffer();
    const found = await detect(new Uint8Array(turned));
    assert.deepEqual([found.width, found.height, found.objects[0]?.label], [451, 300, 'cat']);
  });

  it('read a photographed page', async () => {
    const { text, lines } = await run('ppocr-v4', { task: 'ocr', image: media('page.png') });
    assert.ok(wordsRight(text) >= 0.95, text);
    assert.equal(lines.length, 7);
    assert.ok(lines.every(({ corners }) => corners.every(({ x, y }) => x > -20 && x < 404 && y > -20 && y < 211)));
  });

  it('tell near meanings from far ones, each text for itself', async () => {
    const texts = [
      'The generator failed last night.',
      'The power unit broke down yesterday evening.',
      'I would like a slice of chocolate cake.',
      '',
    ];
    const { vectors, usage } = await run('use-lite-en', { task: 'embedding', texts });
    const [one, near, far] = vectors as [Float32Array, Float32Array, Float32Array];
    assert.ok(similarity(one, near) > 0.6 && similarity(one, far) < 0.2);
    assert.ok(Math.abs(similarity(one, one) - 1) < 1e-5);
    assert.equal(usage.unit, 'tokens');
    // From the original TensorFlow.js graph.
    const original = [-0.05377067, -0.03804477, 0.05838247, -0.06005403, 0.04914013, 0.03273011, 0.06047365, -0.04830151];
    for (const [at, value] of original.entries()) assert.ok(Math.abs((one[at] as number) - value) < 1e-6);
    const alone = await run('use-lite-en', { task: 'embedding', texts: [texts[1] as string] });
    assert.deepEqual(alone.vectors[0], near);
  });

  it('speak with five voices; speech is found in it, and silence and noise are not taken for it', async () => {
    for (const voice of ['slt', 'rms', 'awb', 'kal16', 'kal']) assert.ok((await speech('Good morning.', voice)).samples.length > 6_000);
    const { wav, samples } = await speech('The pump in the second house has been running for three days.');
    const heard = await run('silero-vad-v5', { task: 'activity', audio: wav });
    const spokenMs = heard.segments.reduce((sum, { startMs, endMs }) => sum + endMs - startMs, 0);
    assert.ok(spokenMs > 0.7 * heard.durationMs && heard.probabilityMax > 0.9);
    const noise = encodeWav(
      samples.map((_, at) => 0.2 * Math.sin(at * at)),
      16_000,
    );
    for (const audio of [encodeWav(new Float32Array(20_000), 16_000), noise]) {
      assert.deepEqual((await run('silero-vad-v5', { task: 'activity', audio })).segments, []);
    }
  });

  it('recognise commands of a voice that was not in the training, and other speech as none', async () => {
    const { labels = [] } = engines.engine('commands-en').card;
    let right = 0;
    for (const label of labels) {
      const { command } = await run('commands-en', { task: 'command', audio: (await speech(label, 'slt')).wav });
      if (command === label) right += 1;
    }
    assert.ok(right >= 11, `${right} of ${labels.length}`);
    const other = await run('commands-en', { task: 'command', audio: (await speech('Our neighbours went to the seaside.', 'slt')).wav });
    assert.equal(other.command, undefined);
  });
});

describe('an answer of an embedded engine', () => {
  it('is the same to the bit when the request comes again, also in another process, and so is its witness', async () => {
    const image = media('chelsea.jpg');
    const first = await detect(image, NONCE);
    assert.deepEqual(await detect(image, NONCE), first);
    const elsewhere = open();
    assert.deepEqual(await detect(image, NONCE, elsewhere), first);
    await elsewhere.close();
    const { witness: _, ...plain } = first;
    assert.deepEqual(await detect(image), plain);
    const spoken = { task: 'speech', text: 'Good morning.', witness: NONCE } as const;
    assert.deepEqual(await run('flite', spoken), await run('flite', spoken));
  });

  it('has a witness that depends on nonce, operator and input', async () => {
    const image = media('chelsea.jpg');
    const digests = new Set<string | undefined>();
    for (const witness of [
      NONCE,
      { ...NONCE, nonce: `0x${'12'.repeat(32)}` as const },
      { ...NONCE, operator: `0x${'23'.repeat(20)}` as const },
    ]) {
      const result = await detect(image, witness);
      assert.equal(result.witness?.taps.length, 3);
      digests.add(result.witness?.digest);
    }
    digests.add((await detect(media('coffee.jpg'), NONCE)).witness?.digest);
    assert.equal(digests.size, 4);
    await assert.rejects(detect(image, { ...NONCE, nonce: '0x12' }), { code: 'bad-witness-request' });
  });
});

describe('hostile input', () => {
  it('that is a decompression bomb, no image, or half of one is refused, and the engine goes on', async () => {
    await assert.rejects(detect(pngBomb(30_000, 30_000)), { code: 'image-too-large' });
    await assert.rejects(detect(pngBomb(60_000, 60_000)), { code: 'image-too-large' });
    await assert.rejects(detect(media('chelsea.jpg').slice(0, 9_000)), { code: 'bad-image' });
    for (const bytes of [Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>'), Buffer.from('%PDF-1.4'), Buffer.from([0, 1, 2, 3])]) {
      await assert.rejects(detect(new Uint8Array(bytes)), { code: 'bad-image' });
    }
    await assert.rejects(detect(new Uint8Array()), { code: 'empty-request' });
    await assert.rejects(detect(new Uint8Array((32 << 20) + 1)), { code: 'image-too-large' });
    assert.equal((await detect(media('chelsea.jpg'))).objects[0]?.label, 'cat');
  });

  it('that is audio cut off, of another kind or far too long is refused, and the engine goes on', async () => {
    const listen = (audio: Uint8Array) => run('silero-vad-v5', { task: 'activity', audio });
    const { wav } = await speech('Good morning.');
    for (const length of [10, 40, 46, 5_000]) await assert.rejects(listen(wav.slice(0, length)), { code: 'bad-audio' });
    await assert.rejects(listen(Buffer.concat([Buffer.from('fLaC'), Buffer.alloc(60, 7)])), { code: 'bad-audio' });
    await assert.rejects(listen(Buffer.concat([Buffer.from('OggS'), Buffer.alloc(60)])), { code: 'bad-audio' });
    await assert.rejects(listen(Buffer.concat([Buffer.from('\0\0\0\x10ftypM4A ')])), { code: 'bad-audio' });
    await assert.rejects(listen(Buffer.concat([Buffer.from('ID3\x04'), Buffer.alloc(400)])), { code: 'bad-audio' });
    await assert.rejects(listen(encodeWav(new Float32Array(601 * 8_000), 8_000)), { code: 'audio-too-long' });
    assert.equal((await listen(wav)).segments.length, 1);
  });

  it('that is text with control bytes or an unknown voice is spoken without them, or refused', async () => {
    await run('flite', { task: 'speech', text: '-o /etc/x \0 \x1b[2J \u202e good \ud800 morning' });
    await assert.rejects(run('flite', { task: 'speech', text: 'Hello', voice: '../../x' }), { code: 'unsupported-parameter' });
    await assert.rejects(run('flite', { task: 'speech', text: 'Hello', speed: Number.NaN }), { code: 'unsupported-parameter' });
    await run('use-lite-en', { task: 'embedding', texts: ['\0'.repeat(100_000), '\ud800\udfff\u202e', 'a'.repeat(100_000)] });
  });
});

/** A grey PNG of any size, all zeros, whose data is a few hundred kilobytes at most. */
function pngBomb(width: number, height: number): Uint8Array {
  const chunk = (name: string, data: Buffer) => {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(data.length);
    head.write(name, 4);
    return Buffer.concat([head, data, Buffer.alloc(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  header[8] = 8;
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(1 << 20))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}
