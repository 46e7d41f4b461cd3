import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MillraceError } from '../../errors.ts';
import { type ChosenDevice, chooseDevices, explainChoice } from './choose.ts';
import { createDeviceIndex, scoreOf } from './device-index.ts';
import type { DeviceView, DeviceWish } from './device-view.ts';
import { refusalOf } from './refusal.ts';

const GIB = 2 ** 30;
const DEVICE: DeviceView = {
  deviceId: 1n,
  operatorId: 1n,
  deviceClass: 'cpu-m',
  region: 'eu',
  milliCpus: 4000,
  memoryBytes: 8 * GIB,
  diskBytes: 100 * GIB,
  attributes: { architecture: 'amd64' },
  prices: { stable: 1000n, native: 0n },
  from: 0,
  until: 10_000,
  busy: [],
  takes: ['wasm-strict', 'exact-output', 'none'],
  rank: 500,
  uptime: 900,
  recentGrants: 0,
  noticeSeconds: Number.POSITIVE_INFINITY,
};
const WISH: DeviceWish = {
  needs: { milliCpus: 1000, memoryBytes: GIB, diskBytes: GIB, gpus: 0, gpuModels: [], regions: [], attributes: {} },
  count: 1,
  token: 'stable',
  priceMax: 2000n,
  from: 100,
  until: 200,
  determinism: 'none',
  noticeSecondsMin: 0,
  isInterruptible: false,
  storedBytes: new Map(),
  inputBytes: 0,
  perOperatorMax: 128,
  spares: 0,
  excluded: new Set(),
};
const GPU = { count: 2, vendor: 'nvidia', model: 'a100', memoryBytes: 80 * GIB, bus: 'sxm' };
const needing = (needs: Partial<DeviceWish['needs']>): Partial<DeviceWish> => ({ needs: { ...WISH.needs, ...needs } });

const REFUSALS: [code: string, device: Partial<DeviceView>, wish: Partial<DeviceWish>][] = [
  ['ineligible', { ineligible: 'missed-heartbeats' }, {}],
  ['excluded', {}, { excluded: new Set([1n]) }],
  ['wrong-class', {}, needing({ deviceClass: 'gpu-l' })],
  ['wrong-region', {}, needing({ regions: ['us', 'asia'] })],
  ['too-few-processors', {}, needing({ milliCpus: 4001 })],
  ['too-little-memory', {}, needing({ memoryBytes: 9 * GIB })],
  ['too-little-disk', {}, needing({ diskBytes: 101 * GIB })],
  ['too-few-gpus', {}, needing({ gpus: 1 })],
  ['wrong-gpu', { gpu: GPU }, needing({ gpus: 1, gpuModels: [{ vendor: 'nvidia', model: 'h100' }] })],
  ['wrong-gpu', { gpu: GPU }, needing({ gpus: 1, gpuModels: [{ vendor: 'nvidia', memoryBytesMin: 81 * GIB }] })],
  ['wrong-gpu', { gpu: GPU }, needing({ gpus: 1, gpuModels: [{ vendor: 'nvidia', bus: 'pcie' }] })],
  ['attribute-differs', {}, needing({ attributes: { architecture: 'arm64' } })],
  ['attribute-differs', {}, needing({ attributes: { enclave: 'cpu' } })],
  ['evidence-class-not-taken', {}, { determinism: 'fingerprint' }],
  ['may-be-taken-back', { noticeSeconds: 60 }, {}],
  ['notice-too-short', { noticeSeconds: 60 }, { isInterruptible: true, noticeSecondsMin: 61 }],
  ['not-for-this-token', {}, { token: 'native' }],
  ['too-dear', {}, { priceMax: 999n }],
  ['not-on-offer-then', { until: 199 }, {}],
  ['not-on-offer-then', { from: 101 }, {}],
  ['taken-then', { busy: [{ slotId: 3n, from: 199, until: 300 }] }, {}],
  ['taken-then', { busy: [{ slotId: 3n, from: 0, until: 101 }] }, {}],
];

for (const [code, device, wish] of REFUSALS) {
  test(`a device is refused as ${code} for ${JSON.stringify(device, plain)} and ${JSON.stringify(wish, plain)}`, () => {
    const index = createDeviceIndex([{ ...DEVICE, ...device }]);
    const whole = { ...WISH, ...wish };
    const [answer] = explainChoice(index, whole);
    assert.equal(answer?.refusal?.code, code);
    assert.ok((answer?.refusal?.why.length ?? 0) > 5);
    assert.throws(
      () => chooseDevices(index, whole),
      (error) => error instanceof MillraceError && error.code === 'no-devices' && error.message.includes(code),
    );
  });
}

function plain(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value instanceof Set ? [...value].map(String) : value;
}

test('a device that would do is chosen with its hint, its score and the parts of it', () => {
  const busy = [
    { slotId: 4n, from: 10, until: 50 },
    { slotId: 9n, from: 60, until: 100 },
    { slotId: 5n, from: 200, until: 220 },
  ];
  const [chosen] = chooseDevices(createDeviceIndex([{ ...DEVICE, busy, gpu: GPU }]), {
    ...WISH,
    ...needing({ gpus: 2, gpuModels: [{ vendor: 'nvidia' }] }),
  });
  const parts = { price: 500, rank: 500, uptime: 900, locality: 0, fairness: 1000 };
  assert.deepEqual(chosen, { deviceId: 1n, hint: 9n, operatorId: 1n, score: 400 * 500 + 250 * 500 + 200 * 900 + 50 * 1000, parts });
});

test('half the median price, a stored input and few reservations each raise the score by what the weights say', () => {
  const cheap = { ...DEVICE, deviceId: 2n, operatorId: 2n, prices: { stable: 500n, native: 0n } };
  const tired = { ...DEVICE, deviceId: 3n, operatorId: 3n, recentGrants: 3 };
  const wish = { ...WISH, count: 3, inputBytes: 1000, storedBytes: new Map([[3n, 250]]) };
  const chosen = chooseDevices(createDeviceIndex([DEVICE, cheap, tired]), wish);
  const partsOf = (id: bigint) => chosen.find(({ deviceId }) => deviceId === id)?.parts;
  assert.equal(partsOf(2n)?.price, 666);
  assert.deepEqual([partsOf(3n)?.locality, partsOf(3n)?.fairness], [250, 250]);
  assert.equal(chosen[0]?.deviceId, 2n);
});

test('a gang is refused when one device is missing, and takes spares when there are more', () => {
  const three = [1n, 2n, 3n].map((deviceId) => ({ ...DEVICE, deviceId, operatorId: deviceId }));
  const index = createDeviceIndex(three);
  assert.throws(() => chooseDevices(index, { ...WISH, count: 4 }), /4 devices are wanted together, 3 of 3 would do/);
  assert.equal(explainChoice(index, { ...WISH, count: 4 })[0]?.refusal?.code, 'others-are-better');
  assert.equal(chooseDevices(index, { ...WISH, count: 2, spares: 9 }).length, 3);
  const twins = createDeviceIndex(three.map((device) => ({ ...device, operatorId: 1n })));
  assert.throws(() => chooseDevices(twins, { ...WISH, count: 2, perOperatorMax: 1 }), /no-devices|2 devices are wanted/);
  assert.equal(explainChoice(twins, { ...WISH, perOperatorMax: 1 })[1]?.refusal?.code, 'operator-has-enough');
  for (const wrong of [{ count: 0 }, { count: 129 }, { spares: -1 }, { from: 200 }, { perOperatorMax: 0 }]) {
    assert.throws(() => chooseDevices(index, { ...WISH, ...wrong }), { code: 'bad-gang' });
  }
});

const anyDevice = fc
  .record({
    operatorId: fc.bigInt(1n, 6n),
    deviceClass: fc.constantFrom('cpu-m', 'cpu-l'),
    region: fc.constantFrom('eu', 'us'),
    milliCpus: fc.constantFrom(500, 1000, 4000),
    prices: fc.record({ stable: fc.bigInt(0n, 3000n), native: fc.bigInt(0n, 30n) }),
    busy: fc.constantFrom([], [{ slotId: 1n, from: 150, until: 160 }], [{ slotId: 2n, from: 10, until: 90 }]),
    rank: fc.nat(1000),
    uptime: fc.nat(1000),
    recentGrants: fc.nat(5),
  })
  .map((changes) => ({ ...DEVICE, ...changes }));
const anyWish = fc
  .record({
    count: fc.integer({ min: 1, max: 8 }),
    spares: fc.nat(4),
    perOperatorMax: fc.integer({ min: 1, max: 4 }),
    token: fc.constantFrom('stable' as const, 'native' as const),
    priceMax: fc.bigInt(0n, 3000n),
    deviceClass: fc.option(fc.constantFrom('cpu-m', 'cpu-l'), { nil: undefined }),
    regions: fc.constantFrom<string[]>([], ['eu']),
    stored: fc.array(fc.tuple(fc.bigInt(1n, 7n), fc.nat(1200)), { maxLength: 4 }),
    inputBytes: fc.constantFrom(0, 1000),
  })
  .map(({ deviceClass, regions, stored, ...rest }): DeviceWish => {
    const needs = { ...WISH.needs, regions, ...(deviceClass === undefined ? {} : { deviceClass }) };
    return { ...WISH, ...rest, needs, storedBytes: new Map(stored) };
  });

/** Every device is scored, all are sorted, and the best are taken: what the index must come to as well. */
function chooseSlowly(devices: readonly DeviceView[], wish: DeviceWish): { deviceId: bigint; score: number }[] {
  const index = createDeviceIndex(devices);
  const scored = devices
    .filter((device) => refusalOf(device, wish) === undefined)
    .map((device) => {
      const share = wish.inputBytes === 0 ? 0 : Math.floor((1000 * (wish.storedBytes.get(device.operatorId) ?? 0)) / wish.inputBytes);
      const parts = { ...index.rankOf(device, wish.token).parts, locality: Math.min(1000, share) };
      return { device, deviceId: device.deviceId, score: scoreOf(parts) };
    })
    .sort((one, other) => other.score - one.score || Number(one.deviceId - other.deviceId));
  const counts = new Map<bigint, number>();
  const allowed = scored.filter(({ device }) => {
    const count = (counts.get(device.operatorId) ?? 0) + 1;
    counts.set(device.operatorId, count);
    return count <= wish.perOperatorMax;
  });
  return allowed.length < wish.count ? [] : allowed.slice(0, wish.count + wish.spares).map(({ deviceId, score }) => ({ deviceId, score }));
}

test('whatever is offered and wanted, the choice is that of scoring and sorting all, in whatever order they come', () => {
  fc.assert(
    fc.property(fc.array(anyDevice, { maxLength: 40 }), anyWish, (some, wish) => {
      const devices = some.map((device, index) => ({ ...device, deviceId: BigInt(index + 1) }));
      const slow = chooseSlowly(devices, wish);
      assert.deepEqual(fast(devices, wish), slow);
      assert.deepEqual(fast([...devices].reverse(), wish), slow);
      const answers = explainChoice(createDeviceIndex(devices), wish);
      assert.equal(answers.length, devices.length);
      for (const { deviceId, place, refusal } of answers) {
        assert.equal(place === undefined, refusal !== undefined);
        if (place !== undefined) assert.equal(slow[place - 1]?.deviceId, deviceId);
      }
    }),
    { numRuns: process.env.MILLRACE_FULL === '1' ? 20_000 : 300 },
  );
});

function fast(devices: readonly DeviceView[], wish: DeviceWish): { deviceId: bigint; score: number }[] {
  try {
    return chooseDevices(createDeviceIndex(devices), wish).map(({ deviceId, score }: ChosenDevice) => ({ deviceId, score }));
  } catch (error) {
    assert.ok(error instanceof MillraceError && error.code === 'no-devices', String(error));
    return [];
  }
}
