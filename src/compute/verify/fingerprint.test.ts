import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { calibrateThresholdPpm, fingerprintDistancePpm, fingerprintOf } from './fingerprint.ts';
import { simulationRandom } from './simulation-random.ts';

const SIZE = 256;
const LAYERS = 2;

/** A small network as jobs of this class run them: its activations are the output; order of sums and precision differ between machines. */
function makeNetwork(seed: number) {
  const random = simulationRandom(seed);
  const normal = () => (random.fraction() + random.fraction() + random.fraction() + random.fraction() - 2) * 1.7;
  const weights = Array.from({ length: LAYERS }, () => Float32Array.from({ length: SIZE * SIZE }, () => normal() * Math.sqrt(2 / SIZE)));
  const inputs = Array.from({ length: 8 }, () => Float32Array.from({ length: SIZE }, normal));
  return { weights, inputs };
}

const forward = (row: Float32Array, weights: Float32Array[], isReversed: boolean): Float32Array =>
  weights.reduce(
    (values, layer) =>
      Float32Array.from({ length: SIZE }, (_, column) => {
        let sum = 0;
        for (let step = 0; step < SIZE; step += 1) {
          const at = isReversed ? SIZE - 1 - step : step;
          sum = Math.fround(sum + Math.fround((values[at] as number) * (layer[at * SIZE + column] as number)));
        }
        return Math.max(sum, 0);
      }),
    row,
  );

const outputOf = (values: Float32Array) => [{ path: 'activations', bytes: new Uint8Array(values.buffer) }];
const quantise = (layer: Float32Array, levels: number) => {
  const step = layer.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / levels;
  return layer.map((value) => Math.round(value / step) * step);
};

test('one threshold tells honest rounding from altered weights', () => {
  const { weights, inputs } = makeNetwork(5);
  const int8 = weights.map((layer) => quantise(layer, 127));
  const int4 = weights.map((layer) => quantise(layer, 7));
  const distances = (changed: Float32Array[], isReversed: boolean) =>
    inputs.map((input) =>
      fingerprintDistancePpm(fingerprintOf(outputOf(forward(input, changed, isReversed))), outputOf(forward(input, weights, false))),
    );
  const [honest, altered, worse] = [distances(weights, true), distances(int8, false), distances(int4, false)];
  const threshold = calibrateThresholdPpm(honest, [...altered, ...worse]);
  assert.ok(threshold !== undefined, `honest up to ${Math.max(...honest)}, altered from ${Math.min(...altered)}`);
  assert.ok(honest.every((distance) => distance <= threshold) && altered.every((distance) => distance > threshold));
});

test('a fingerprint of the same outputs is at no distance; of other numbers, other places or another size it is far', () => {
  const numbers = fc.float32Array({ minLength: SIZE, maxLength: SIZE, noNaN: true });
  fc.assert(
    fc.property(numbers, (values) => {
      const own = outputOf(values);
      const fingerprint = fingerprintOf(own);
      assert.equal(fingerprintDistancePpm(fingerprint, own), 0);
      const repeated = Buffer.from(Array.from({ length: 32 }, () => [...fingerprint.subarray(0, 3)]).flat());
      assert.ok(fingerprintDistancePpm(repeated, own) > 900_000, 'one right number, named 32 times');
      assert.equal(fingerprintDistancePpm(Buffer.concat([fingerprint, fingerprint]), own), 1_000_000);
    }),
    { numRuns: 30 },
  );
});

test('where honest and altered runs overlap, or too few were measured, there is no threshold', () => {
  const many = Array.from({ length: 8 }, (_, index) => index);
  assert.equal(calibrateThresholdPpm(many, many), undefined);
  assert.equal(
    calibrateThresholdPpm(
      many.slice(1),
      many.map((value) => value + 100),
    ),
    undefined,
  );
  assert.equal(
    calibrateThresholdPpm(
      many,
      many.map((value) => value + 100),
    ),
    53,
  );
});
