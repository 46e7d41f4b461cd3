import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { MillraceError } from '../../errors.ts';
import { parseSpec } from '../spec/parse-deployment.ts';
import { parseClusterSpec } from './cluster-spec.ts';
import { clusterOfDeployment } from './deployment-cluster.ts';

const EXAMPLE = readFileSync(join(import.meta.dirname, '../../../examples/training.yaml'), 'utf8');

const SDL = `version: "2.0"
services:
  trainer:
    image: sha256:${'ab'.repeat(32)}
    command: [/bin/train]
    expose: [{port: 29500, to: [{service: trainer}]}]
profiles:
  compute:
    small: {resources: {cpu: {units: 2}, memory: {size: 1Gi}, storage: {size: 64Mi}}}
  placement:
    anywhere: {pricing: {small: {denom: uact, amount: 100}}}
deployment:
  trainer: {anywhere: {profile: small, count: 4}}
`;

function clusterOf(text: string) {
  const parsed = parseSpec(text);
  assert.equal(parsed.kind, 'deployment');
  return clusterOfDeployment(parsed as Extract<typeof parsed, { kind: 'deployment' }>);
}

function refusalOf(text: string): string {
  try {
    clusterOf(text);
  } catch (error) {
    const { code, values } = error as MillraceError;
    return `${code} ${values.line}:${values.column} ${values.field}: ${values.what}`;
  }
  return assert.fail('it was taken');
}

test('the example is a cluster of three machines with one process each, whose checkpoints have a quarter of the memory', () => {
  const { spec, deviceClass, priceMax, seconds } = clusterOf(EXAMPLE);
  assert.deepEqual(parseClusterSpec(JSON.parse(JSON.stringify(spec))), spec, 'machines take it');
  assert.deepEqual([spec.machines, spec.processes, spec.argv.join(' ')], [3, 3, '/usr/bin/python3 /train.py']);
  assert.deepEqual([spec.limits.memoryBytes, spec.checkpointBytesMax, spec.limits.cpus], [768 << 20, 256 << 20, 1]);
  assert.deepEqual([deviceClass, priceMax, seconds], ['cpu-2', { amount: '0.5', token: 'native' }, 8 * 3600]);
});

test('an SDL of one service is a cluster whose class its renter says', () => {
  const { spec, deviceClass, priceMax } = clusterOf(SDL);
  assert.deepEqual(
    [spec.machines, spec.image, deviceClass, priceMax],
    [4, `sha256:${'ab'.repeat(32)}`, undefined, { amount: '0.06', token: 'stable' }],
  );
});

test('what a cluster cannot do is refused where the document says it', () => {
  const changed = (from: string | RegExp, to: string) => refusalOf(SDL.replace(from, to));
  assert.match(changed(/sha256:\w+/, 'nginx:1.25'), /^spec-unsupported 4:5 services\.trainer\.image: no machine pulls/);
  assert.match(changed('    command: [/bin/train]\n', ''), /^spec-unsupported 4:5 services\.trainer\.image: an image here/);
  assert.match(changed('port: 29500', 'port: 29500, as: 80'), /^spec-unsupported 6:5 services\.trainer\.expose: in a mesh/);
  assert.match(
    changed('pricing:', 'attributes: {region: us-west}, pricing:'),
    /^spec-unsupported 3:3 services\.trainer: the machines of a cluster are found/,
  );
  assert.match(
    changed('services:', 'reclamation: {min_window: 1h}\nservices:').replace(/ \d+:/, ' 0:'),
    /^spec-unsupported 0:\d+ services\.trainer: the machines of a cluster are leased firmly/,
  );
  const two = SDL.replace('profiles:', '  web: {image: nginx}\nprofiles:').concat('  web: {anywhere: {profile: small, count: 1}}\n');
  assert.match(refusalOf(two), /^spec-unsupported 7:3 services\.web: a cluster runs one program/);
});
