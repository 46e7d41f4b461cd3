import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Command } from 'commander';
import { zeroAddress } from 'viem';
import { openRunJournals, parseJob } from '../compute/index.ts';
import { chooseOutputFolder } from './job-output.ts';
import { statusText } from './jobs.ts';
import { wantedRun } from './run-job.ts';
import { separateCommand } from './separate-command.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-run-job-'));
const here = process.cwd();
process.chdir(folder);
after(() => {
  process.chdir(here);
  rmSync(folder, { recursive: true, force: true });
});

test('a command stands behind --, and a word that is no document is refused, with the document that was meant', () => {
  assert.deepEqual(wantedRun(['job.yaml'], ['run', 'job.yaml', '--time', '5s']), { document: 'job.yaml' });
  assert.deepEqual(wantedRun(['a.json'], ['run', '--', 'a.json']), { command: ['a.json'] });
  assert.deepEqual(wantedRun(['ls', '-l'], ['run', '--', 'ls', '-l']), { command: ['ls', '-l'] });
  for (const words of [[], ['exmples'], ['ls', 'x'], ['a.yaml', 'b.yaml']]) {
    assert.throws(() => wantedRun(words, ['run', ...words]), { code: 'bad-usage', actor: 'caller' }, words.join(' '));
  }
  assert.throws(() => wantedRun(['job.yaml', 'ls'], ['run', 'job.yaml', '--', 'ls']), { code: 'bad-usage' });
  writeFileSync('count.yml', '');
  assert.throws(
    () => wantedRun(['count'], ['run', 'count']),
    (error: { hint: string }) => {
      assert.match(error.hint, /millrace run count\.yml\. .* millrace run -- count$/);
      return true;
    },
  );
});

test('outputs never go among what an earlier run has left, but a run that goes on has its folder', async () => {
  const { spec } = parseJob(JSON.stringify({ job: 1, name: 'a b', command: ['true'] }));
  const journals = openRunJournals(join(folder, 'journals'));
  const choose = (given?: string) =>
    chooseOutputFolder({ given, name: 'a b', specs: [spec], account: zeroAddress, journals }).then((chosen) =>
      chosen.slice(folder.length + 1),
    );
  assert.equal(await choose(), 'a-b-output');
  assert.ok(!readdirSync(folder).includes('a-b-output'), 'a folder is made when there is something to put into it');
  mkdirSync('a-b-output');
  assert.equal(await choose(), 'a-b-output');
  writeFileSync('a-b-output/result', '');
  writeFileSync('a-b-output-2', '');
  assert.equal(await choose(), 'a-b-output-3');
  await assert.rejects(choose('a-b-output'), { code: 'output-exists', actor: 'caller' });
  await assert.rejects(choose('a-b-output-2/below'), { code: 'output-unwritable', actor: 'host' });
  assert.equal(await choose('elsewhere'), 'elsewhere');
  const outputFolder = join(folder, 'a-b-output');
  const begun = {
    runId: 'ab'.repeat(10),
    name: 'a b',
    account: zeroAddress,
    spec,
    files: {},
    attempts: [],
    startedAt: '',
    outputFolder,
  } as const;
  journals.save({ ...begun, attempts: [] });
  assert.equal(await choose(), 'a-b-output');
  assert.equal(await choose('a-b-output'), 'a-b-output');
  journals.save({ ...begun, attempts: [], finishedAt: '2026-01-01' });
  assert.equal(await choose(), 'a-b-output-3');
});

test('options behind the first word of a command that runs elsewhere are its own, those before are ours', () => {
  const program = new Command().option('--json').option('--data <folder>');
  program.command('exec <rental> <command...>').option('-t, --tty').option('-i').option('-w, --workdir <path>').option('-e <pair>');
  program.command('cluster').command('exec <name> <command...>').option('--rank <rank>');
  program.command('get <cid>').option('-o <path>');
  const separated = (line: string) => separateCommand(program, line.split(' ')).join(' ');
  for (const line of [
    'exec 1 | ls -l',
    '--data x exec -it 1 | grep -i foo --json',
    'exec --json -itw /tmp 1 | sh -c -t',
    'exec -w/tmp --workdir=/x -e A=1 1 | env -i -- true',
    'cluster exec --rank 1 train | ls --rank',
  ]) {
    assert.equal(separated(line.replace('| ', '')), line.replace('|', '--'));
  }
  for (const line of ['exec 1 -- ls -l', 'exec -- 1 ls -l', 'get x -o y', 'exec 1', 'nonsense -l']) assert.equal(separated(line), line);
});

test('a job that is over and did not end well says how it ended', () => {
  const ends = ['exit 0', 'exit 1', 'exit 3', 'trap', 'stopped', undefined];
  assert.deepEqual(
    ends.map((end) => statusText({ status: 'done', end })),
    ['done', 'exit 1', 'exit 3', 'trap', 'stopped', 'done'],
  );
  assert.equal(statusText({ status: 'settled', end: 'exit 3' }), 'exit 3');
  assert.equal(statusText({ status: 'window', end: 'exit 3' }), 'window');
});
