import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { backendKey, backendModels, backendUrl, bytesOf, gatewaysOf, optionalCountOf, timeLimitMs } from './inference-settings.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-settings-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('a backend’s key comes from a file or an environment variable, and from nowhere else', () => {
  const path = join(folder, 'key');
  writeFileSync(path, 'sk-one\n');
  assert.equal(backendKey({ inferenceBackendKeyFile: path }), 'sk-one');
  assert.equal(backendKey({ inferenceBackendKeyEnv: 'MILL_KEY' }, { MILL_KEY: 'sk-two' }), 'sk-two');
  assert.equal(backendKey({}), undefined);
  writeFileSync(path, 'two words\n');
  assert.throws(() => backendKey({ inferenceBackendKeyFile: path }), { code: 'backend-key-missing' });
  assert.throws(() => backendKey({ inferenceBackendKeyEnv: 'MILL_KEY' }, {}), { code: 'backend-key-missing' });
  assert.throws(() => backendKey({ inferenceBackendKeyFile: path, inferenceBackendKeyEnv: 'X' }), { code: 'bad-inference-setting' });
});

test('a backend’s URL holds no password, and its models say what they do and what they are called there', () => {
  assert.equal(backendUrl({ inferenceBackend: 'https://gpu.lan/v1' }), 'https://gpu.lan/v1');
  for (const url of ['https://me:secret@gpu.lan/v1', 'ftp://gpu.lan', 'https://gpu.lan/v1?key=1', 'gpu']) {
    assert.throws(
      () => backendUrl({ inferenceBackend: url }),
      (error: Error & { code: string }) => error.code === 'bad-inference-setting' && !error.message.includes('secret'),
    );
  }
  assert.deepEqual(backendModels({ inferenceBackendModels: 'chat:small=llama3.2:1b, embedding:nomic-embed-text,chat:qwen=./m/q.gguf' }), [
    { task: 'chat', id: 'small', theirs: 'llama3.2:1b' },
    { task: 'embedding', id: 'nomic-embed-text', theirs: 'nomic-embed-text' },
    { task: 'chat', id: 'qwen', theirs: './m/q.gguf' },
  ]);
  for (const text of ['llama', 'chat:', 'paint:x', 'chat:a b', 'chat:a=\u0007']) {
    assert.throws(() => backendModels({ inferenceBackendModels: text }), { code: 'bad-inference-setting' }, text);
  }
});

test('limits are within bounds, or as measured when nothing is set', () => {
  assert.equal(optionalCountOf('inferenceQueue', {}, 100), undefined);
  assert.equal(optionalCountOf('inferenceQueue', { inferenceQueue: '7' }, 100), 7);
  assert.throws(() => optionalCountOf('inferenceQueue', { inferenceQueue: '101' }, 100), { code: 'bad-inference-setting' });
  assert.equal(bytesOf('inferenceModelMemory', { inferenceModelMemory: '1GiB' }, { min: 1, max: 2 ** 40 }), 2 ** 30);
  assert.throws(() => bytesOf('inferenceBodies', { inferenceBodies: '1KiB' }, { min: 2048, max: 4096 }), { code: 'bad-inference-setting' });
  assert.equal(timeLimitMs({ inferenceTimeLimit: '2m' }), 120_000);
  assert.throws(() => timeLimitMs({ inferenceTimeLimit: '2h' }), { code: 'bad-inference-setting' });
});

test('gateways with keys come from a file', () => {
  const path = join(folder, 'gateways');
  writeFileSync(path, 'https://sk-millrace-x@one.example:8443\nhttps://two.example\n');
  assert.deepEqual(gatewaysOf({ validatorGatewaysFile: path, validatorGateways: 'https://zero.example' }), [
    { url: 'https://zero.example', key: undefined },
    { url: 'https://one.example:8443', key: 'sk-millrace-x' },
    { url: 'https://two.example', key: undefined },
  ]);
  assert.throws(() => gatewaysOf({ validatorGatewaysFile: join(folder, 'none') }), { code: 'bad-inference-setting' });
});
