import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { findCgroups } from './cgroup.ts';

// The kernel's files are copied here as folders of plain files: what is asked of them, and how their answers are read. On the machine itself
// the tests of the executors use whichever version it has.
const folder = mkdtempSync(join(tmpdir(), 'millrace-cgroup-test-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const LIMITS = { memoryBytes: 64 << 20, cpus: 0.5, processes: 12 };

function put(path: string, files: Record<string, string>): void {
  mkdirSync(path, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
}

test('version 2: controllers are handed down where they are missing, and a group without limits is never used', () => {
  const mount = join(folder, 'two');
  const base = join(mount, 'millrace');
  const controllers = 'cpuset cpu io memory hugetlb pids\n';
  put(mount, { 'cgroup.controllers': controllers, 'cgroup.subtree_control': 'memory\n' });
  put(base, { 'cgroup.controllers': controllers, 'cgroup.subtree_control': '', 'cgroup.procs': '' });
  const first = findCgroups({ mount, own: '0::/user.slice\n', uid: 0 });
  assert.equal(readFileSync(join(mount, 'cgroup.subtree_control'), 'utf8'), '+memory +pids +cpu');
  assert.equal(first, undefined, 'a kernel that does not hand them down is not believed');
  for (const place of [mount, base]) writeFileSync(join(place, 'cgroup.subtree_control'), 'cpu memory pids\n');
  const root = findCgroups({ mount, own: '0::/user.slice\n', uid: 0 });
  assert.equal(root?.version, 2);
  assert.throws(() => root?.create('a', LIMITS), { code: 'sandbox-failed' });
});

test('an ordinary user has the group that was delegated, else none', () => {
  const mount = join(folder, 'user');
  put(mount, { 'cgroup.controllers': 'cpu memory pids', 'cgroup.subtree_control': 'cpu memory pids' });
  const own = join(mount, 'user.slice/run.scope');
  put(own, { 'cgroup.controllers': 'memory pids\n', 'cgroup.procs': '' });
  const places = { mount: join(mount), own: '0::/user.slice/run.scope\n', uid: 4321 };
  put(join(mount, 'millrace-4321'), {});
  assert.equal(findCgroups(places), undefined, 'the scope has no processors, and the top no group to enter');
  put(own, { 'cgroup.controllers': 'cpu memory pids\n', 'cgroup.subtree_control': 'cpu memory pids' });
  put(join(own, 'millrace-4321'), { 'cgroup.subtree_control': 'cpu memory pids', 'cgroup.procs': '' });
  assert.equal(findCgroups(places)?.version, 2);
  assert.ok(existsSync(join(own, 'millrace-node')), 'the node itself moves into a leaf');
});

test('version 1 is used where it has memory; without processes or processors there is nothing', () => {
  const mount = join(folder, 'one');
  for (const name of ['memory', 'pids', 'cpu']) put(join(mount, name, 'millrace'), { tasks: '' });
  assert.equal(findCgroups({ mount, own: '', uid: 0 })?.version, 1);
  rmSync(join(mount, 'pids'), { recursive: true });
  assert.equal(findCgroups({ mount, own: '', uid: 0 }), undefined);
});
