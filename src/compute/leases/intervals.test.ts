import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  endOfInterval,
  IntervalRecord,
  intervalAt,
  intervalCount,
  passedIntervals,
  rangeBits,
  STRETCH,
  stretchOf,
  WORD,
} from './intervals.ts';

const times = fc.record({
  from: fc.bigInt(0n, 10n ** 10n),
  length: fc.integer({ min: 1, max: 200_000 }),
  meter: fc.integer({ min: 1, max: 600 }),
});

test('every second of a lease lies in one interval, which is over at its end and not before', () => {
  fc.assert(
    fc.property(times, fc.nat(), ({ from, length, meter }, offset) => {
      const lease = { from, until: from + BigInt(length) };
      const time = from + BigInt(offset % length);
      const interval = intervalAt(lease, meter, time) as number;
      const end = endOfInterval(lease, meter, interval);
      assert.ok(end > time && end <= lease.until);
      assert.ok(passedIntervals(lease, meter, time) <= interval);
      assert.equal(passedIntervals(lease, meter, end), interval + 1);
      assert.equal(intervalAt(lease, meter, lease.until), undefined);
      assert.equal(passedIntervals(lease, meter, lease.until), intervalCount(lease, meter));
    }),
  );
});

test('a record gives back what was noted first, also after JSON', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2_000), fc.boolean()), { maxLength: 60 }), (notes) => {
      const first = new Map<number, boolean>();
      const record = new IntervalRecord();
      for (const [interval, isUp] of notes) {
        if (!first.has(interval)) first.set(interval, isUp);
        record.note(interval, isUp);
      }
      const again = IntervalRecord.fromJSON(JSON.parse(JSON.stringify(record)));
      for (let interval = 0; interval <= 2_000; interval += 1) {
        assert.equal(again.has(interval), first.has(interval));
        const { up } = stretchOf(again.word(Math.floor(interval / WORD)), Math.floor(interval / STRETCH));
        assert.equal(((up >> BigInt(interval % STRETCH)) & 1n) === 1n, first.get(interval) === true);
      }
      assert.deepEqual(again.counts(), { spoken: first.size, up: [...first.values()].filter(Boolean).length });
    }),
  );
});

test('bits of a word are those of its intervals in the range', () => {
  fc.assert(
    fc.property(fc.nat(4), fc.nat(1_400), fc.nat(1_400), fc.constantFrom(WORD, STRETCH), (part, first, last, size) => {
      const bits = rangeBits(part, first, last, size);
      for (let bit = 0; bit < size; bit += 1) {
        const interval = part * size + bit;
        assert.equal(((bits >> BigInt(bit)) & 1n) === 1n, interval >= first && interval < last);
      }
    }),
  );
});
