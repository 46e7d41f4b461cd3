/** Choosing devices among 10,000: how long a decision takes, beside scoring and sorting all of them (the plain peer). */
import { chooseDevices } from '../src/compute/schedule/choose.ts';
import { createDeviceIndex, scoreOf } from '../src/compute/schedule/device-index.ts';
import type { DeviceView, DeviceWish } from '../src/compute/schedule/device-view.ts';
import { refusalOf } from '../src/compute/schedule/refusal.ts';

const GIB = 2 ** 30;
const CLASSES = ['cpu-s', 'cpu-m', 'cpu-l', 'cpu-xl', 'gpu-s', 'gpu-m'];
const REGIONS = ['eu-west', 'eu-east', 'us-east', 'us-west', 'asia-south'];
const DECISIONS = 400;

let state = 1;
function random(below: number): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}

/** Four of ten are taken or away at the time that is wanted, as in a market that is used. */
function deviceOf(index: number): DeviceView {
  const size = random(4);
  return {
    deviceId: BigInt(index + 1),
    operatorId: BigInt(1 + random(2500)),
    deviceClass: CLASSES[random(CLASSES.length)] as string,
    region: REGIONS[random(REGIONS.length)] as string,
    milliCpus: 2000 << size,
    memoryBytes: (4 << size) * GIB,
    diskBytes: 100 * GIB,
    attributes: { architecture: random(10) === 0 ? 'arm64' : 'amd64' },
    prices: { stable: BigInt(100 + random(900)), native: BigInt(random(3) * random(5000)) },
    from: 0,
    until: random(10) === 0 ? 50 : 1_000_000,
    busy: random(10) < 3 ? [{ slotId: BigInt(index), from: 0, until: 2000 }] : [],
    takes: ['wasm-strict', 'exact-output', 'none'],
    rank: random(1001),
    uptime: 900 + random(101),
    recentGrants: random(4),
    noticeSeconds: Number.POSITIVE_INFINITY,
    ...(random(20) === 0 ? { ineligible: 'missed-heartbeats' } : {}),
  };
}

function wishOf(): DeviceWish {
  const stored = Array.from({ length: 10 }, (): [bigint, number] => [BigInt(1 + random(2500)), 1 + random(1000)]);
  return {
    needs: {
      milliCpus: 2000,
      memoryBytes: (4 << random(2)) * GIB,
      diskBytes: GIB,
      gpus: 0,
      gpuModels: [],
      deviceClass: CLASSES[random(CLASSES.length)] as string,
      regions: random(2) === 0 ? [] : [REGIONS[random(REGIONS.length)] as string],
      attributes: { architecture: 'amd64' },
    },
    count: 1 + random(16),
    token: random(4) === 0 ? 'native' : 'stable',
    priceMax: 9000n,
    from: 1000,
    until: 5000,
    determinism: 'wasm-strict',
    noticeSecondsMin: 0,
    isInterruptible: false,
    storedBytes: new Map(stored),
    inputBytes: 1000,
    perOperatorMax: 2,
    spares: 8,
    excluded: new Set(),
  };
}

function chooseSlowly(devices: readonly DeviceView[], wish: DeviceWish, index: ReturnType<typeof createDeviceIndex>): number {
  const scored = devices
    .filter((device) => refusalOf(device, wish) === undefined)
    .map((device) => ({ device, score: scoreOf(index.rankOf(device, wish.token).parts) }));
  scored.sort((one, other) => other.score - one.score);
  return scored.slice(0, wish.count + wish.spares).length;
}

function measure(name: string, decide: (wish: DeviceWish) => number, wishes: readonly DeviceWish[]): void {
  const times = wishes.map((wish) => {
    const startedAt = performance.now();
    decide(wish);
    return performance.now() - startedAt;
  });
  times.sort((one, other) => one - other);
  const at = (share: number) => (times[Math.floor(share * (times.length - 1))] as number).toFixed(3);
  process.stdout.write(`  ${name.padEnd(42)} best ${at(0)} ms, median ${at(0.5)} ms, 99 % ${at(0.99)} ms\n`);
}

for (const size of [1000, 10_000, 100_000]) {
  const devices = Array.from({ length: size }, (_, index) => deviceOf(index));
  const wishes = Array.from({ length: DECISIONS }, wishOf);
  const startedAt = performance.now();
  const index = createDeviceIndex(devices);
  const builtMs = performance.now() - startedAt;
  process.stdout.write(`${size} devices: index in ${builtMs.toFixed(1)} ms; ${DECISIONS} wishes of 1 to 16 devices and 8 spares\n`);
  const choose = (wish: DeviceWish) => {
    try {
      return chooseDevices(index, wish).length;
    } catch {
      return 0;
    }
  };
  wishes.slice(0, 50).map(choose);
  const found = wishes.filter((wish) => choose(wish) > 0).length;
  measure('index, best first', choose, wishes);
  measure('peer: filter, score and sort all', (wish) => chooseSlowly(devices, wish, index), wishes.slice(0, 100));
  process.stdout.write(`  gangs found: ${found} of ${wishes.length}\n`);
}
