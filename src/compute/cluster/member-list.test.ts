import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createSigner } from '../../chain/index.ts';
import { makeWireguardKeys } from '../../host/index.ts';
import { ranksMaxOf, spreadRanks } from './cluster-spec.ts';
import {
  type ClusterMember,
  checkRanks,
  isKeySignedBy,
  isListSignedBy,
  type MemberList,
  meshAddress,
  parseSignedList,
  signMemberList,
  signMeshKey,
  supersedes,
} from './member-list.ts';
import { rankTakeover } from './replacement.ts';

const domain = { chainId: 31_337, market: '0x00000000000000000000000000000000000000c0' as const };
const cluster = `0x${'ab'.repeat(32)}` as const;
const agent = createSigner(`0x${'11'.repeat(32)}`);
const node = createSigner(`0x${'22'.repeat(32)}`);

async function member(seat: number, ranks: number[]): Promise<ClusterMember> {
  const unsigned = {
    cluster,
    leaseId: String(seat),
    seat,
    publicKey: makeWireguardKeys().publicKey,
    endpoint: `node-${seat}.example:${4000 + seat}`,
  };
  return { ...(await signMeshKey(unsigned, domain, node)), ranks };
}

const listOf = async (version = 1): Promise<MemberList> => ({ cluster, version, members: [await member(1, [0, 1]), await member(2, [2])] });

test('a list that its agent signed comes back from JSON as it was, and proves who signed it and each machine’s key', async () => {
  const signed = await signMemberList(await listOf(), domain, agent);
  const read = parseSignedList(JSON.parse(JSON.stringify(signed)));
  assert.deepEqual(read, signed);
  assert.ok(isListSignedBy(agent.address, read, domain));
  assert.ok(!isListSignedBy(node.address, read, domain));
  for (const each of read.list.members) {
    assert.ok(isKeySignedBy(node.address, each, domain));
    assert.ok(!isKeySignedBy(agent.address, each, domain));
  }
});

test('a list in which anything was changed is signed by nobody, and so is one for another market', async () => {
  const signed = await signMemberList(await listOf(), domain, agent);
  const change = (edit: (list: MemberList) => void) => {
    const copy = structuredClone(signed);
    edit(copy.list);
    return copy;
  };
  const first = (list: MemberList) => list.members[0] as ClusterMember;
  const changed = [
    change((list) => (list.version = 2)),
    change((list) => (first(list).endpoint = 'victim.example:53')),
    change((list) => (first(list).publicKey = makeWireguardKeys().publicKey)),
    change((list) => (first(list).ranks = [1, 0])),
    change((list) => (first(list).leaseId = '9')),
    change((list) => list.members.pop()),
  ];
  for (const each of changed) assert.ok(!isListSignedBy(agent.address, each, domain));
  assert.ok(!isListSignedBy(agent.address, signed, { ...domain, chainId: 1 }));
  assert.ok(!isListSignedBy(agent.address, signed, { ...domain, market: '0x00000000000000000000000000000000000000c1' }));
  for (const field of ['endpoint', 'publicKey', 'leaseId'] as const) {
    const key = {
      ...first(signed.list),
      [field]: field === 'leaseId' ? '9' : field === 'endpoint' ? 'victim.example:53' : makeWireguardKeys().publicKey,
    };
    assert.ok(!isKeySignedBy(node.address, key, domain), field);
  }
});

test('what no honest coordinator sends is refused by name', async () => {
  const signed = await signMemberList(await listOf(), domain, agent);
  const refused = (edit: (list: MemberList) => void, reason: RegExp) => {
    const copy = structuredClone(signed);
    edit(copy.list);
    assert.throws(() => parseSignedList(copy), reason);
  };
  const at = (list: MemberList, index: number) => list.members[index] as ClusterMember;
  refused((list) => (at(list, 1).ranks = [1]), /ranks are not 0 to n - 1/);
  refused((list) => (at(list, 1).ranks = [3]), /ranks are not 0 to n - 1/);
  refused((list) => list.members.reverse(), /seats are not in order/);
  refused((list) => (at(list, 1).publicKey = at(list, 0).publicKey), /the same publicKey/);
  refused((list) => (at(list, 1).endpoint = at(list, 0).endpoint), /the same endpoint/);
  refused((list) => (at(list, 0).endpoint = 'a b:1'), /endpoint is not host:port/);
  refused((list) => (at(list, 0).endpoint = 'a:70000'), /endpoint is not host:port/);
  refused((list) => (at(list, 0).endpoint = 'a:1\nAllowedIPs = 0.0.0.0/0'), /endpoint is not host:port/);
  refused((list) => (at(list, 0).publicKey = 'x'), /publicKey is not 32 bytes/);
  refused((list) => (list.version = 0), /version is no whole number/);
  refused((list) => (list.members = []), /members are not 1 to/);
  refused((list) => (at(list, 0).cluster = `0x${'00'.repeat(32)}`), /of another cluster/);
  for (const value of [null, 7, [], {}, { list: {}, signature: '0x' }]) assert.throws(() => parseSignedList(value), /cannot be used/);
});

test('any two lists of a cluster are in one order, whoever sees them in whatever order: all who have seen the same end with the same', async () => {
  const members = await Promise.all([1, 2, 3, 4].map((seat) => member(seat, [0])));
  const lists = fc.array(
    fc.record({ version: fc.integer({ min: 1, max: 3 }), index: fc.integer({ min: 0, max: 3 }) }).map(({ version, index }) => ({
      cluster,
      version,
      members: [members[index] as ClusterMember],
    })),
    { minLength: 1, maxLength: 8 },
  );
  const last = (seen: readonly MemberList[]) =>
    seen.reduce<MemberList | undefined>((held, list) => (supersedes(list, held) ? list : held), undefined);
  fc.assert(
    fc.property(lists, fc.infiniteStream(fc.nat()), (seen, random) => {
      const shuffled = [...seen].map((list) => ({ list, key: random.next().value as number })).sort((one, other) => one.key - other.key);
      assert.deepEqual(last(shuffled.map(({ list }) => list)), last(seen));
      for (const list of seen) assert.ok(!supersedes(list, list));
    }),
  );
});

test('a machine takes the ranks that it has room for, by the specification and after any loss, and no list with more of them or another total', () => {
  const sizes = fc.record({
    machines: fc.integer({ min: 1, max: 12 }),
    more: fc.nat(40),
    lost: fc.nat(11),
    at: fc.nat(11),
    extra: fc.integer({ min: 1, max: 30 }),
  });
  fc.assert(
    fc.property(sizes, ({ machines, more, lost, at, extra }) => {
      const spec = { processes: machines + more, machines };
      const [least, most] = [Math.floor(spec.processes / machines), ranksMaxOf(spec)];
      const ranksOf = spreadRanks(spec.processes, machines);
      const members = ranksOf.map((ranks, index) => ({ seat: index + 1, ranks }) as ClusterMember);
      const list: MemberList = { cluster, version: 1, members };
      for (const own of members) checkRanks(list, own, spec);
      const { keep, freed } = rankTakeover(list, [1 + (lost % machines)]);
      const later = { ...list, version: 2, members: [...keep, ...freed.map((ranks) => ({ seat: machines + 1, ranks }) as ClusterMember)] };
      for (const own of later.members) checkRanks(later, own, spec);
      // The attacks: all ranks here, more ranks than the specification has, here or elsewhere.
      const own = members[at % machines] as ClusterMember;
      const refused = (changed: ClusterMember[]) =>
        assert.throws(() => checkRanks({ ...list, members: changed }, changed[0] as ClusterMember, spec), { code: 'bad-member-list' });
      const [here, elsewhere] = [own, { ...own, seat: 99, ranks: Array.from({ length: extra }, (_, rank) => spec.processes + rank) }];
      refused([here, ...members.filter((each) => each !== own), elsewhere]);
      refused([{ ...here, ranks: [...here.ranks, ...elsewhere.ranks] }, ...members.filter((each) => each !== own)]);
      if (machines > 1) refused([{ ...here, ranks: ranksOf.flat() }]);
      assert.ok(most - least <= 1);
    }),
  );
});

test('every seat has an address of its own in the mesh', () => {
  const addresses = Array.from({ length: 60_000 }, (_, index) => meshAddress(index + 1));
  assert.equal(new Set(addresses).size, 60_000);
  assert.equal(addresses[0], '10.90.0.1');
  assert.equal(addresses[299], '10.90.1.44');
});
