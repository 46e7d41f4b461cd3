import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { agreement } from './compare-results.ts';
import type { DetectionResult, EmbeddingResult, OcrResult } from './engine.ts';

const usage = { unit: 'images', input: 1, output: 0 } as const;
const embedding = (values: number[], outputDigest: `0x${string}`): EmbeddingResult => ({
  task: 'embedding',
  vectors: [Float32Array.from(values)],
  usage,
  outputDigest,
});
const detection = (score: number, x: number, outputDigest: `0x${string}`, label = 'cat'): DetectionResult => ({
  task: 'detection',
  width: 100,
  height: 100,
  objects: [{ label, score, box: { x, y: 0, width: 10, height: 10 } }],
  classes: [],
  usage,
  outputDigest,
});
const ocr = (text: string, outputDigest: `0x${string}`): OcrResult => ({
  task: 'ocr',
  width: 1,
  height: 1,
  text,
  lines: [],
  usage,
  outputDigest,
});

describe('two answers to one request', () => {
  it('agree exactly by their digests', () => {
    assert.equal(agreement(embedding([1, 0], '0x01'), embedding([1, 0], '0x01')), 'exact');
  });

  it('are close when only the last digits differ, and apart when what they say differs', () => {
    assert.equal(agreement(embedding([1, 0], '0x01'), embedding([1, 1e-4], '0x02')), 'close');
    assert.equal(agreement(embedding([1, 0], '0x01'), embedding([1, 0.1], '0x02')), 'apart');
    assert.equal(agreement(embedding([1, 0], '0x01'), embedding([1, 0, 0], '0x02')), 'apart');
    assert.equal(agreement(detection(0.9, 5, '0x01'), detection(0.9001, 5.1, '0x02')), 'close');
    assert.equal(agreement(detection(0.9, 5, '0x01'), detection(0.7, 5, '0x02')), 'apart');
    assert.equal(agreement(detection(0.9, 5, '0x01'), detection(0.9, 50, '0x02')), 'apart');
    assert.equal(agreement(detection(0.9, 5, '0x01'), detection(0.9, 5, '0x02', 'dog')), 'apart');
    assert.equal(agreement(ocr('a', '0x01'), ocr('a', '0x02')), 'close');
    assert.equal(agreement(ocr('a', '0x01'), ocr('b', '0x02')), 'apart');
    assert.equal(agreement(ocr('a', '0x01'), embedding([1], '0x01')), 'apart');
  });
});
