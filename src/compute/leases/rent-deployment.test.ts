import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { MillraceError } from '../../errors.ts';
import { parseSpec } from '../spec/parse-deployment.ts';
import { type RentalTerms, type RentalUnit, rentalUnits } from './rent-deployment.ts';

const CID = 'bafkreifytgucl2foztqtynb7jeqyklauu23wiiicvatmujv45sxatfl7om';
const TERMS: RentalTerms = { decimals: { stable: 6, native: 18 }, seconds: 3600, collateralMin: 0n };

const OWN = `deployment: 1
name: lab
image: ${CID}
command: [/bin/worker, --fast]
env: {MODE: quick}
count: 3
time: 2h
price: 0.5 native
interruptible: true
notice: 30s
device: {class: cpu-2, memory: 1GiB}
`;

const SDL = `version: "2.0"
services:
  web:
    image: ${CID}
    command: [/bin/web]
    args: [--port, "80"]
    dependencies: [{service: database}]
  database:
    image: ${CID}
    command: [/bin/database]
profiles:
  compute:
    small: {resources: {cpu: {units: 0.5}, memory: {size: 512Mi}, storage: {size: 1Gi}}}
  placement:
    anywhere:
      pricing:
        small: {denom: uact, amount: 100}
deployment:
  web: {anywhere: {profile: small, count: 2}}
  database: {anywhere: {profile: small, count: 1}}
`;

function unitsOf(text: string, terms: RentalTerms = TERMS): RentalUnit[] {
  const parsed = parseSpec(text);
  assert.equal(parsed.kind, 'deployment');
  return rentalUnits(parsed as Extract<typeof parsed, { kind: 'deployment' }>, terms);
}

function refusalOf(text: string): string {
  try {
    unitsOf(text);
  } catch (error) {
    const { code, values } = error as MillraceError;
    return `${code} ${values.line}:${values.column} ${values.field}: ${values.what}`;
  }
  return assert.fail('it was taken');
}

test('a deployment of our own becomes rentals with its command, image, price, time and terms', () => {
  const [unit, ...rest] = unitsOf(OWN);
  assert.equal(rest.length, 0);
  assert.deepEqual(unit?.main, { argv: ['/bin/worker', '--fast'], env: { MODE: 'quick' }, image: CID });
  const { needs, ...wish } = (unit as RentalUnit).wish;
  assert.deepEqual(wish, {
    ...{ count: 3, seconds: 7200, token: 'native', priceMax: 5n * 10n ** 17n },
    ...{ isInterruptible: true, noticeSecondsMin: 30, collateralMin: 0n },
  });
  assert.deepEqual([needs?.deviceClass, needs?.memoryBytes], ['cpu-2', 2 ** 30]);
});

test('an SDL’s services become rentals in the order in which they wait for one another, at an hourly price in the stable token', () => {
  const units = unitsOf(SDL);
  assert.deepEqual(
    units.map(({ workload, wish, main }) => [workload, wish.count, wish.token, wish.priceMax, main.argv.join(' ')]),
    [
      ['database', 1, 'stable', 60_000n, '/bin/database'],
      ['web', 2, 'stable', 60_000n, '/bin/web --port 80'],
    ],
  );
});

test('what a rental cannot do is refused where the document says it', () => {
  const own = (from: string, to: string) => refusalOf(OWN.replace(from, to));
  assert.match(own(CID, 'jupyter/base:1'), /^spec-unsupported 3:\d+ image: no machine pulls from a registry/);
  assert.match(own('command: [/bin/worker, --fast]\n', ''), /^spec-unsupported 3:\d+ image: an image here is an archive/);
  assert.match(
    own('count: 3', 'ports: [8080, {port: 53, protocol: udp}]\ncount: 3'),
    /^spec-unsupported 6:15 ports\[1\]: a rental is reached by TCP alone/,
  );
  const sdl = (from: string, to: string) => refusalOf(SDL.replace(from, to));
  assert.match(
    sdl(`image: ${CID}\n    command: [/bin/web]`, 'image: nginx:1.25\n    command: [/bin/web]'),
    /^spec-unsupported 4:5 services\.web\.image: /,
  );
  assert.match(sdl('    command: [/bin/database]\n', '    args: [x]\n'), /^spec-unsupported 10:5 services\.database\.args: /);
  assert.match(
    sdl('    command: [/bin/database]', '    expose: [{port: 80}, {port: 5432, to: [{service: web}]}]\n    command: [/bin/database]'),
    /^spec-unsupported 10:26 services\.database\.expose\[1\]: a rental has no network, so web would not reach it/,
  );
  assert.match(
    sdl('    command: [/bin/web]', '    expose:\n      - port: 53\n        proto: udp\n    command: [/bin/web]'),
    /^spec-unsupported 6:9 services\.web\.expose\[0\]: a rental is reached by TCP alone/,
  );
  const volume = SDL.replace('storage: {size: 1Gi}', 'storage: [{name: rows, size: 1Gi}]').replace(
    '    command: [/bin/database]',
    '    command: [/bin/database]\n    params: {storage: {rows: {mount: /rows}}}',
  );
  assert.match(refusalOf(volume), /^spec-unsupported 11:14 services\.database\.params\.storage: a rental has no volumes/);
});

test('ports of TCP are the renter’s to forward, and an SDL’s global: true is taken with a warning', () => {
  const [own] = unitsOf(OWN.replace('count: 3', 'ports: [8080, {port: 53, as: 5353}]\ncount: 3'));
  assert.deepEqual(own?.ports, [
    { port: 8080, as: 8080 },
    { port: 53, as: 5353 },
  ]);
  const expose = `expose:
      - {port: 3000, as: 80, proto: tcp, to: [{global: true}]}
      - port: 9100`;
  const text = SDL.replace('    command: [/bin/web]', `    ${expose}\n    command: [/bin/web]`);
  const [database, web] = unitsOf(text);
  assert.deepEqual(database?.ports, []);
  assert.deepEqual(web?.ports, [
    { port: 3000, as: 80 },
    { port: 9100, as: 9100 },
  ]);
  const { warnings } = parseSpec(text) as Extract<ReturnType<typeof parseSpec>, { kind: 'deployment' }>;
  assert.deepEqual(
    warnings.map(({ line, column, field }) => `${line}:${column} ${field}`),
    ['6:9 services.web.expose[0]'],
  );
  assert.match(warnings[0]?.message ?? '', /millrace forward.*no entry from the public internet/);
});

test('a document without a price or a time takes them from the renter, and none is made up', () => {
  const open = OWN.replace('price: 0.5 native\n', '').replace('time: 2h\n', '');
  assert.throws(() => unitsOf(open), { code: 'price-missing', actor: 'caller' });
  const [unit] = unitsOf(open, { ...TERMS, price: { token: 'stable', max: 7n } });
  assert.deepEqual([unit?.wish.seconds, unit?.wish.token, unit?.wish.priceMax], [3600, 'stable', 7n]);
});
