import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { openEngineSet } from './embedded-engines.ts';
import { TASK_TYPES } from './engine.ts';
import { cardOf } from './model-card.ts';
import { type FetchFolder, fetchModel } from './model-store.ts';
import { EMBEDDED_MODELS, type ModelEntry } from './models.ts';
import { checkOnnx } from './onnx-check.ts';
import { npmRegistry } from './registry.ts';
import { packTar } from './tarball.cases.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-models-'));
after(() => rmSync(folder, { recursive: true, force: true }));

describe('the list of embedded models', () => {
  it('has licence, limits and an exact package for each, and every file as it says: out of the installed packages, without a network', async () => {
    for (const entry of EMBEDDED_MODELS) {
      assert.ok(TASK_TYPES.includes(entry.task));
      assert.ok(entry.limits.length > 0 && entry.licence !== '' && entry.package.integrity.startsWith('sha512-'));
      for (const { path, sha256, sizeBytes, name } of await fetchModel(entry, { folder, registry: 'none' })) {
        const bytes = readFileSync(path);
        assert.equal(bytes.length, sizeBytes, name);
        assert.equal(createHash('sha256').update(bytes).digest('hex'), sha256, name);
        assert.equal(statSync(path).mode & 0o222, 0);
        if (name.endsWith('.onnx')) checkOnnx(bytes);
      }
    }
  });

  it('gives each model a root that changes with its files and its revision', () => {
    const [entry] = EMBEDDED_MODELS as [ModelEntry];
    const { root } = cardOf(entry);
    assert.match(root, /^0x[0-9a-f]{64}$/);
    assert.notEqual(cardOf({ ...entry, revision: 2 }).root, root);
    const [file] = entry.files as [ModelEntry['files'][0]];
    assert.notEqual(cardOf({ ...entry, files: [{ ...file, sha256: '00'.repeat(32) }] }).root, root);
    const set = openEngineSet({ dataFolder: folder });
    assert.equal(set.cards().length, EMBEDDED_MODELS.length);
    assert.throws(() => set.engine('gpt-9'), { code: 'unknown-model' });
  });
});

describe('a model of the registry', () => {
  const body = Buffer.from('weights');
  const tarball = gzipSync(packTar([{ path: 'package/weights.bin', body }]));
  const entry: ModelEntry = {
    id: 'small',
    content: 'bafybeiabljc2kb3gqbj6z3vmrck5s4pob2sh5qkzyqavnkqjpfbfsxcbli',
    task: 'embedding',
    title: '',
    package: {
      name: '@example/weights',
      version: '1.0.0',
      integrity: `sha512-${createHash('sha512').update(tarball).digest('base64')}`,
      tarballBytesMax: 10_000,
    },
    licence: 'MIT',
    origin: '',
    files: [
      {
        name: 'weights.bin',
        sha256: createHash('sha256').update(body).digest('hex'),
        sizeBytes: body.length,
        conversion: 'none',
        paths: ['package/weights.bin'],
      },
    ],
    revision: 1,
    limits: [],
  };
  let answers: Buffer = tarball;
  let asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    response.end(answers);
  });
  let registry = '';
  before(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    registry = `http://127.0.0.1:${(server.address() as AddressInfo).port}/npm/`;
  });
  after(() => server.close());
  const fresh = () => ({ folder: mkdtempSync(join(folder, 'store-')), packagesFolder: folder, registry });

  it('is fetched once by its tarball and needs no network afterwards', async () => {
    asked = [];
    const store = fresh();
    const [file] = await fetchModel(entry, store);
    assert.deepEqual(readFileSync(file?.path as string), body);
    assert.deepEqual(asked, ['/npm/@example/weights/-/weights-1.0.0.tgz']);
    await fetchModel(entry, { ...store, registry: 'none' });
    assert.equal(asked.length, 1);
  });

  it('is refused when the tarball is another one, too large, or not there, and nothing is kept', async () => {
    const store = fresh();
    answers = gzipSync(packTar([{ path: 'package/weights.bin', body: Buffer.from('poison!') }]));
    await assert.rejects(fetchModel(entry, store), { code: 'model-tampered' });
    answers = Buffer.alloc(20_000);
    await assert.rejects(fetchModel(entry, store), { code: 'model-unavailable' });
    await assert.rejects(fetchModel(entry, { ...store, registry: 'http://example.com/' }), { code: 'model-unavailable' });
    await assert.rejects(fetchModel(entry, { ...store, registry: 'http://127.0.0.1:1/' }), { code: 'model-unavailable' });
    await assert.rejects(fetchModel(entry, { ...store, registry: 'none' }), { code: 'model-unavailable' });
    answers = tarball;
    await assert.rejects(
      fetchModel({ ...entry, files: [{ ...(entry.files[0] as ModelEntry['files'][0]), sha256: '00'.repeat(32) }] }, store),
      {
        code: 'model-tampered',
      },
    );
  });

  it('is taken from the storage network where that has it, and only if it is what the list says', async () => {
    asked = [];
    const store = fresh();
    let given = body;
    const fetchFolder: FetchFolder = async (cid, path, { bytesMax }) => {
      assert.equal(cid, entry.content);
      assert.ok(bytesMax >= body.length);
      mkdirSync(path);
      writeFileSync(join(path, 'weights.bin'), given);
      return given.length;
    };
    const [file] = await fetchModel(entry, { ...store, fetchFolder });
    assert.deepEqual(readFileSync(file?.path as string), body);
    assert.deepEqual(readdirSync(store.folder), [file?.sha256]);
    assert.deepEqual(asked, []);
    given = Buffer.from('poison!');
    await assert.rejects(fetchModel(entry, { ...fresh(), fetchFolder, registry: 'none' }), { code: 'model-unavailable' });
    await fetchModel(entry, { ...fresh(), fetchFolder });
    assert.equal(asked.length, 1);
  });

  it('whose file was changed on the disk is not loaded', async () => {
    const real = EMBEDDED_MODELS.find(({ id }) => id === 'silero-vad-v5') as ModelEntry;
    const dataFolder = mkdtempSync(join(folder, 'data-'));
    const [file] = await fetchModel(real, { folder: join(dataFolder, 'models'), registry: 'none' });
    const path = file?.path as string;
    const bytes = readFileSync(path);
    bytes[1_000] = (bytes[1_000] as number) ^ 1;
    chmodSync(path, 0o600);
    writeFileSync(path, bytes);
    const set = openEngineSet({ dataFolder, registry: 'none', isShared: false });
    const request = { task: 'activity', audio: new Uint8Array(1) } as const;
    await assert.rejects(set.engine(real.id).run(request, { signal: new AbortController().signal }), { code: 'model-tampered' });
    await set.close();
  });

  it('comes from the registry that npm is set to', () => {
    assert.equal(npmRegistry({ npm_config_registry: 'https://npm.example' }), 'https://npm.example/');
    const home = mkdtempSync(join(folder, 'home-'));
    assert.equal(npmRegistry({ HOME: home }), 'https://registry.npmjs.org/');
    writeFileSync(join(home, '.npmrc'), 'fund=false\nregistry = https://mirror.example/npm\n');
    assert.equal(npmRegistry({ HOME: home }), 'https://mirror.example/npm/');
  });
});
