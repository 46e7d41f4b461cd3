import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseClusterSpec, spreadRanks } from './cluster-spec.ts';
import type { MemberList } from './member-list.ts';
import { hostsFile, mpiHostfile, rankEnvironment } from './rank-environment.ts';

const cluster = `0x${'ab'.repeat(32)}` as const;
const limits = { memoryBytes: 1 << 28, cpus: 1, processes: 64, diskBytes: 1 << 20, wallSeconds: 60, outputBytes: 1 << 20 };
const document = {
  version: 1,
  image: `sha256:${'0'.repeat(64)}`,
  argv: ['/train'],
  env: { MASTER_PORT: '4000', LEVEL: '3' },
  processes: 4,
  machines: 3,
  limits,
  checkpointBytesMax: 1 << 20,
};

const list: MemberList = {
  cluster,
  version: 5,
  members: [
    { seat: 2, ranks: [2] },
    { seat: 3, ranks: [3] },
    { seat: 7, ranks: [0, 1] },
  ].map((each) => ({ cluster, leaseId: String(each.seat), publicKey: '', endpoint: '', signature: '0x' as const, ...each })),
};

test('each process is told its place and where the machine of rank 0 is now', () => {
  const spec = parseClusterSpec(document);
  const env = rankEnvironment(list, spec, { rank: 1, link: 'wg7' });
  const { MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK, GLOO_SOCKET_IFNAME, RAY_ADDRESS, LEVEL } =
    env;
  assert.deepEqual([MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE], ['10.90.0.7', '4000', '1', '4']);
  assert.deepEqual([LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK, GLOO_SOCKET_IFNAME], ['1', '2', '2', 'wg7']);
  assert.deepEqual([RAY_ADDRESS, LEVEL, env.MILLRACE_GENERATION, env.MILLRACE_ADDRESS], ['10.90.0.7:6379', '3', '5', '10.90.0.7']);
});

test('names and places of all machines, as resolvers and mpirun read them', () => {
  assert.equal(
    hostsFile(list, 3, 'job'),
    '127.0.0.1 localhost\n10.90.0.2 seat-2 rank-2\n10.90.0.3 seat-3 rank-3 job\n10.90.0.7 seat-7 rank-0 rank-1 master\n',
  );
  assert.equal(mpiHostfile(list), '10.90.0.2 slots=1\n10.90.0.3 slots=1\n10.90.0.7 slots=2\n');
});

test('ranks are spread evenly over the machines, each once, in order', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 128 }), fc.nat(1000), (machines, more) => {
      const spread = spreadRanks(machines + more, machines);
      assert.deepEqual(
        spread.flat(),
        Array.from({ length: machines + more }, (_, rank) => rank),
      );
      const sizes = spread.map(({ length }) => length);
      assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
    }),
  );
});

test('a specification that cannot be meant is refused with its field', () => {
  const refused = (change: object, field: string) =>
    assert.throws(
      () => parseClusterSpec({ ...document, ...change }),
      (error: { code?: string; values?: { field?: string } }) => error.code === 'bad-cluster-spec' && error.values?.field === field,
    );
  refused({ version: 2 }, 'version');
  refused({ image: 'latest' }, 'image');
  refused({ argv: [] }, 'argv');
  refused({ argv: [7] }, 'argv');
  refused({ argv: ['x'.repeat(70_000)] }, 'argv');
  refused({ env: { 'a b': 'x' } }, 'env');
  refused({ processes: 2 }, 'processes');
  refused({ machines: 0 }, 'machines');
  refused({ machines: 129 }, 'machines');
  refused({ limits: { ...limits, cpus: 'all' } }, 'limits.cpus');
  refused({ checkpointBytesMax: -1 }, 'checkpointBytesMax');
  refused({ colour: 'blue' }, 'colour');
  assert.throws(() => parseClusterSpec(null), /is no object/);
  assert.equal(parseClusterSpec(document).restartsMax, 3);
});
