import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DeviceOffer } from '../leases/market-offers.ts';
import { parseDeployment } from '../spec/parse-deployment.ts';
import { explainDeployment } from './explain-deployment.ts';

const GIB = 2 ** 30;

function offer(deviceId: bigint, cpus: number, stable: bigint, changes: Partial<DeviceOffer> = {}): DeviceOffer {
  const attributes = { architecture: 'amd64' };
  const document = {
    name: 'quarter',
    deviceClass: 'cpu-4',
    engine: 'bubblewrap',
    cpus,
    memoryBytes: 8 * GIB,
    diskBytes: 8 * GIB,
    processes: 64,
    image: null,
    attributes,
    notes: [],
  };
  return {
    deviceId,
    operatorId: deviceId,
    deviceClass: 'cpu-4',
    from: 0n,
    until: 1_000_000n,
    prices: { stable, native: 0n },
    interruptibleBps: 5000,
    collateral: 0n,
    document,
    busy: [],
    endpoint: 'https://127.0.0.1:1',
    region: 'eu',
    ...changes,
  } as DeviceOffer;
}

const OPTIONS = {
  now: 1000n,
  noticeSeconds: 60,
  decimals: { stable: 6, native: 18 },
  offers: [
    offer(1n, 4, 20_000n),
    offer(2n, 4, 10_000n),
    offer(3n, 1, 10_000n),
    offer(4n, 4, 2_000_000n),
    offer(5n, 4, 10_000n, { document: undefined }),
    offer(6n, 4, 10_000n, { region: 'us' }),
  ],
};
const SDL = `version: "2.0"
services: {web: {image: nginx}}
profiles:
  compute: {web: {resources: {cpu: {units: 2}, memory: {size: 1Gi}, storage: {size: 1Gi}}}}
  placement: {west: {attributes: {region: eu}, pricing: {web: {denom: uact, amount: 50.00000009}}}}
deployment: {web: {west: {profile: web, count: 2}}}
`;

test('each device on offer says to an SDL whether it would do, in order, and why not', () => {
  const [unit, ...rest] = explainDeployment(parseDeployment(SDL).spec, OPTIONS);
  assert.deepEqual(rest, []);
  assert.deepEqual([unit?.group, unit?.workload, unit?.count, unit?.token], ['west', 'web', 2, 'stable']);
  assert.deepEqual(
    unit?.answers.map(({ deviceId, place, refusal }) => [Number(deviceId), place ?? refusal?.code]),
    [
      [2, 1],
      [1, 2],
      [3, 'too-few-processors'],
      [4, 'too-dear'],
      [5, 'ineligible'],
      [6, 'wrong-region'],
    ],
  );
});

test('a gang that is too large gets nothing, and those that would do are told why', () => {
  const [unit] = explainDeployment(parseDeployment(SDL.replace('count: 2', 'count: 3')).spec, OPTIONS);
  assert.equal(unit?.answers.filter(({ place }) => place !== undefined).length, 0);
  assert.match(unit?.answers.find(({ deviceId }) => deviceId === 1n)?.refusal?.why ?? '', /not enough of its kind/);
});

test('interruptible devices are weighed at their lower price and with the market’s notice', () => {
  const text = 'deployment: 1\nimage: x\ninterruptible: true\nprice: 0.01 stable\ndevice: {cpus: 4}\nregions: [eu]\n';
  const places = (notice: string) =>
    explainDeployment(parseDeployment(`${text}notice: ${notice}\n`).spec, OPTIONS)[0]
      ?.answers.filter(({ place }) => place !== undefined)
      .map(({ deviceId }) => Number(deviceId));
  assert.deepEqual(places('60s'), [2]);
  assert.deepEqual(places('61s'), []);
});
