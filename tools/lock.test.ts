import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { completeLock, type LockFile, missingOptional, platformOf } from './lock.ts';

const lock = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package-lock.json'), 'utf8')) as LockFile;

test('package-lock.json holds every optional package of every platform (mend with: sh tools/node.sh tools/lock.ts)', () => {
  assert.deepEqual(missingOptional(lock), []);
});

test('a lock from a registry that lacks a platform is completed', () => {
  const packages = Object.fromEntries(Object.entries(lock.packages).filter(([path]) => !/darwin|musl/.test(path)));
  const stripped = { ...lock, packages };
  assert.ok(missingOptional(stripped).length > 5);
  const completed = completeLock(stripped);
  assert.deepEqual(missingOptional(completed), []);
  assert.deepEqual(completed.packages['node_modules/@biomejs/cli-darwin-arm64'], {
    version: lock.packages['node_modules/@biomejs/biome']?.version,
    os: ['darwin'],
    cpu: ['arm64'],
    optional: true,
  });
});

test('the platform is read from the name', () => {
  assert.deepEqual(platformOf('@oxc-parser/binding-linux-arm64-musl'), { os: ['linux'], cpu: ['arm64'], libc: ['musl'] });
  assert.deepEqual(platformOf('@oxc-parser/binding-linux-arm-gnueabihf'), { os: ['linux'], cpu: ['arm'], libc: ['glibc'] });
  assert.deepEqual(platformOf('@foundry-rs/forge-darwin-amd64'), { os: ['darwin'], cpu: ['x64'] });
  assert.deepEqual(platformOf('@x/windows-x64'), { os: ['win32'], cpu: ['x64'] });
});
