import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import { upgrade } from './upgrade.ts';

const FOLDER = mkdtempSync(join(tmpdir(), 'upgrade-'));
after(() => rmSync(FOLDER, { recursive: true, force: true }));

const NAMES = { GIT_AUTHOR_NAME: 'a', GIT_AUTHOR_EMAIL: 'a@b', GIT_COMMITTER_NAME: 'a', GIT_COMMITTER_EMAIL: 'a@b' };
const git = (folder: string, ...args: string[]) => {
  execFileSync('git', ['-C', folder, ...args], { env: { ...process.env, ...NAMES }, stdio: ['ignore', 'ignore', 'pipe'] });
};

/** An upstream with one version, and a clone of it. */
function clone(name: string): { upstream: string; here: string } {
  const [upstream, here] = [join(FOLDER, name, 'upstream'), join(FOLDER, name, 'here')];
  mkdirSync(upstream, { recursive: true });
  git(upstream, 'init', '--quiet', '--initial-branch=main');
  publish(upstream, 'one');
  execFileSync('git', ['clone', '--quiet', upstream, here], { stdio: 'ignore' });
  return { upstream, here };
}

/** A version whose program notes that it was installed. */
function publish(upstream: string, version: string): void {
  writeFileSync(join(upstream, 'version'), version);
  writeFileSync(join(upstream, 'millrace'), '#!/bin/sh\ncat "$(dirname "$0")/version" >>"$(dirname "$0")/../installed"\n');
  chmodSync(join(upstream, 'millrace'), 0o755);
  git(upstream, 'add', '.');
  git(upstream, 'commit', '--quiet', '--message', version);
}

/** What the command says, in a data folder where no node runs. */
async function upgraded(here: string): Promise<Record<string, unknown>> {
  let said: unknown;
  const output = {
    json: true,
    result: (value: unknown) => {
      said = value;
    },
    line() {},
    piece() {},
    note() {},
    progress: () => ({ update() {}, end() {} }),
  };
  const flags = { data: join(FOLDER, 'data'), network: 'none', json: true, logLevel: 'error' } as const;
  const context: CommandContext = { flags, output, signal: new AbortController().signal };
  await upgrade(context, here);
  return said as Record<string, unknown>;
}

async function refusalOf(here: string): Promise<string> {
  return await upgraded(here).then(
    () => assert.fail('it was upgraded'),
    (error: unknown) => {
      assert.ok(error instanceof MillraceError && error.code === 'upgrade-failed', String(error));
      return error.message;
    },
  );
}

test('a clone is brought to the newest version and its parts are installed; with nothing new nothing is done', async () => {
  const { upstream, here } = clone('forward');
  assert.equal((await upgraded(here)).upgraded, false);
  publish(upstream, 'two');
  const said = await upgraded(here);
  assert.deepEqual([said.upgraded, said.restarted], [true, false]);
  assert.equal(readFileSync(join(here, 'version'), 'utf8'), 'two');
  assert.equal(readFileSync(join(FOLDER, 'forward', 'installed'), 'utf8'), 'two');
});

test('what was changed here is neither lost nor merged', async () => {
  const { upstream, here } = clone('changed');
  publish(upstream, 'two');
  writeFileSync(join(here, 'version'), 'mine');
  assert.match(await refusalOf(here), /files were changed here: M version/);
  git(here, 'commit', '--all', '--quiet', '--message', 'mine');
  assert.match(await refusalOf(here), /fast-forward/i);
  assert.equal(readFileSync(join(here, 'version'), 'utf8'), 'mine');
});

test('without a clone, or without its upstream, it says so', async () => {
  const { upstream, here } = clone('gone');
  rmSync(upstream, { recursive: true });
  assert.match(await refusalOf(here), /does not (?:appear to be a git repository|exist)/);
  assert.match(await refusalOf(FOLDER), /is no git clone/);
});
