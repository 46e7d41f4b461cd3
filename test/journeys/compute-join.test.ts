import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const CHILD = fileURLToPath(new URL('../compute-join-child.ts', import.meta.url));
/** A network and a mount namespace of its own; as a user who is not root, also one in which that user is root. */
const UNSHARE = ['--net', '--mount', ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'])];

/** Why this machine cannot make the namespaces, or undefined when it can. */
function lacking(): string | undefined {
  const script =
    'mount -t tmpfs none /run && ip link add try0 type bridge && ip netns add try && ip link add try1 type veth peer name eth0 netns try';
  const { error, status, stderr } = spawnSync('unshare', [...UNSHARE, 'sh', '-c', script], { encoding: 'utf8', timeout: 10_000 });
  if (error !== undefined) return `unshare cannot be run: ${error.message}`;
  return status === 0 ? undefined : `this machine allows no network namespaces with bridge and veth: ${stderr.trim()}`;
}

const reason = lacking();
if (reason !== undefined) process.stdout.write(`compute-join is skipped: ${reason}\n`);

test('a bare machine behind a router joins with one command, does a stranger’s paid job within a minute, and leaves with one command', {
  skip: reason,
}, async (context) => {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'NODE_TEST_CONTEXT'));
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    const options = { env, timeout: 600_000, maxBuffer: 16 << 20, killSignal: 'SIGTERM' as const };
    execFile('unshare', [...UNSHARE, '--kill-child', '--fork', process.execPath, CHILD], options, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : error.code, output: `${stdout}${stderr}` }),
    );
  });
  context.diagnostic(output);
  assert.equal(code, 0, output);
  assert.match(output, /compute join: done/);
});
