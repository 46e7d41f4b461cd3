import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Manifest, manifestId, parseManifest, readManifest, signManifest, type UnsignedManifest, writeManifest } from './manifest.ts';
import { developmentSigner } from './signer.ts';

const signer = developmentSigner(0, 'dev');
const unsigned: UnsignedManifest = {
  version: 1,
  name: 'laptop',
  chainId: 31337,
  genesisHash: `0x${'12'.repeat(32)}`,
  profile: 'dev',
  notSecure: true,
  genesis: 1_700_000_000,
  randomness: { source: 'trusted-operator', beacon: null, history: 'eip-2935' },
  modules: { rails: { address: '0x5FbDB2315678afecb367f032d93F642f64180aa3', codeHash: `0x${'ab'.repeat(32)}`, deployBlock: 3 } },
  tokens: { network: { address: '0x5FbDB2315678afecb367f032d93F642f64180aa3', name: 'Millrace', symbol: 'MILL', decimals: 18 } },
  deployer: signer.address,
};

test('a manifest survives the disk unchanged, and its id is its hash', async () => {
  const path = join(mkdtempSync(join(tmpdir(), 'millrace-manifest-')), 'network.json');
  const manifest = await signManifest(unsigned, signer);
  writeManifest(path, manifest);
  assert.deepEqual(readManifest(path), manifest);
  assert.deepEqual(readManifest(path, manifestId(unsigned)), manifest);
  assert.match(manifestId(manifest), /^0x[0-9a-f]{64}$/);
  const shuffled = Object.fromEntries(Object.entries(JSON.parse(readFileSync(path, 'utf8'))).reverse());
  assert.equal(manifestId(parseManifest(shuffled)), manifestId(manifest));
});

test('a module of a later version is kept, so that manifests grow by addition', async () => {
  const later = { ...unsigned, modules: { ...unsigned.modules, computeMarket: unsigned.modules.rails as never } };
  const manifest = parseManifest(JSON.parse(JSON.stringify(await signManifest(later, signer))));
  assert.deepEqual(Object.keys(manifest.modules), ['rails', 'computeMarket']);
});

test('the manifest of another network is refused by its id', async () => {
  const manifest = await signManifest(unsigned, signer);
  const other = manifestId({ ...unsigned, name: 'other' });
  assert.throws(() => parseManifest(manifest, other), { code: 'wrong-network' });
});

test('every single change of a signed manifest is refused', async () => {
  const manifest = await signManifest(unsigned, signer);
  const changes: [string, unknown][] = [
    ['version', 2],
    ['name', 'Other'],
    ['name', 'other'],
    ['chainId', 1],
    ['chainId', '31337'],
    ['chainId', -1],
    ['genesisHash', '0x12'],
    ['profile', 'production'],
    ['notSecure', false],
    ['genesis', 1.5],
    ['randomness', { source: 'beacon', beacon: null, history: 'eip-2935' }],
    ['randomness', { source: 'prev-randao', beacon: unsigned.deployer, history: 'eip-2935' }],
    ['modules', {}],
    ['modules', { rails: { ...unsigned.modules.rails, extra: 1 } }],
    ['modules', { __proto__x: unsigned.modules.rails }],
    ['tokens', { network: { ...unsigned.tokens.network, decimals: 256 } }],
    ['tokens', []],
    ['deployer', developmentSigner(1, 'dev').address],
    ['deployer', signer.address.replace('f39F', 'F39F')],
    ['signature', `0x${'00'.repeat(65)}`],
    ['unknown', 1],
  ];
  for (const [key, value] of changes) {
    assert.throws(() => parseManifest({ ...manifest, [key]: value }), { code: 'manifest-invalid' }, `${key} = ${JSON.stringify(value)}`);
  }
  for (const key of Object.keys(manifest)) {
    const { [key as keyof Manifest]: _, ...rest } = manifest;
    assert.throws(() => parseManifest(rest), { code: 'manifest-invalid' }, `without ${key}`);
  }
});

test('any JSON at all gives a manifest or a typed error', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      assert.throws(() => parseManifest(value), { code: 'manifest-invalid' });
      assert.throws(() => parseManifest({ ...unsigned, modules: value }), { code: 'manifest-invalid' });
    }),
  );
});

test('a missing, broken or huge file is a typed error', () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-manifest-'));
  const path = join(folder, 'network.json');
  assert.throws(() => readManifest(path), { code: 'manifest-missing' });
  writeFileSync(path, '{');
  assert.throws(() => readManifest(path), { code: 'manifest-invalid' });
  writeFileSync(path, ' '.repeat(300_000));
  assert.throws(() => readManifest(path), { code: 'manifest-invalid' });
});
