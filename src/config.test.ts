import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { dataFolder, readConfigFile, readSetting } from './config.ts';

test('the data folder follows flag, MILLRACE_HOME, root, XDG in this order', () => {
  assert.equal(dataFolder('/a', { MILLRACE_HOME: '/b' }, 0), '/a');
  assert.equal(dataFolder(undefined, { MILLRACE_HOME: '/b' }, 0), '/b');
  assert.equal(dataFolder(undefined, {}, 0), '/var/lib/millrace');
  assert.equal(dataFolder(undefined, { XDG_DATA_HOME: '/x' }, 1000), '/x/millrace');
  assert.equal(dataFolder(undefined, { HOME: '/home/ann' }, 1000), '/home/ann/.local/share/millrace');
});

test('a setting comes from the first source that has it, and says which', () => {
  const sources = { flags: {}, env: { MILLRACE_RPC_URL: 'http://e' }, file: { rpcUrl: 'http://f' }, profile: { rpcUrl: 'http://p' } };
  assert.deepEqual(readSetting('rpcUrl', { ...sources, flags: { rpcUrl: 'http://g' } }), { value: 'http://g', from: 'flag' });
  assert.deepEqual(readSetting('rpcUrl', sources), { value: 'http://e', from: 'environment' });
  assert.deepEqual(readSetting('rpcUrl', { ...sources, env: {} }), { value: 'http://f', from: 'file' });
  assert.equal(readSetting('absent', sources), undefined);
});

test('a config file that is not an object is refused with its path', () => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-config-'));
  assert.deepEqual(readConfigFile(folder), {});
  writeFileSync(join(folder, 'config.json'), '[1]');
  assert.throws(() => readConfigFile(folder), { code: 'bad-config-file' });
});
