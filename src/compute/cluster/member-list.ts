import { createHash } from 'node:crypto';
import type { Address, Hex } from 'viem';
import { isSignedBy, type Signer, type TypedDataShape, typedDataDigest } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { type ClusterSpec, MACHINES_MAX, ranksMaxOf } from './cluster-spec.ts';

/** What a machine says of itself when it joins: its end of the mesh, signed by the node key of its operator. */
export interface MeshKey {
  cluster: Hex;
  leaseId: string;
  /** Its place in the cluster, from 1, never given twice: the address in the mesh comes from it. */
  seat: number;
  /** Of WireGuard, made on that machine; base64. */
  publicKey: string;
  /** `host:port`, UDP. */
  endpoint: string;
  signature: Hex;
}

/** A machine of a cluster. */
export interface ClusterMember extends MeshKey {
  /** Which processes run on it. */
  ranks: number[];
}

/** Who belongs to a cluster. A new version is a new start of its processes. */
export interface MemberList {
  cluster: Hex;
  /** From 1. */
  version: number;
  members: ClusterMember[];
}

/** A list, and the signature of the renter's agent that makes it valid, whoever passes it on. */
export interface SignedMemberList {
  list: MemberList;
  signature: Hex;
}

/** The market whose leases the machines are: signatures are good for no other. */
export interface ClusterDomain {
  chainId: number;
  market: Address;
}

/** Most machines that one cluster ever has, lost ones included. */
/** Greatest number of a seat: addresses in the mesh come from it. */
export const SEATS_MAX = 60_000;
const ENDPOINT = /^(?:[A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,39}\]):(\d{1,5})$/;
const shapes = new Map<string, { list: TypedDataShape; key: TypedDataShape }>();

/** Address in the mesh by seat; every rental's mesh is a network of its own, so all have the same addresses. */
export function meshAddress(seat: number): string {
  return `10.90.${seat >> 8}.${seat & 255}`;
}

/** The length of a mesh's network. */
export const MESH_PREFIX = 16;

/** Signs a list as the renter's agent. */
export async function signMemberList(
  list: MemberList,
  domain: ClusterDomain,
  signer: Pick<Signer, 'signDigest'>,
): Promise<SignedMemberList> {
  return { list, signature: await signer.signDigest(listDigest(list, domain)) };
}

/** Signs one's own end of a mesh with the operator's node key. */
export async function signMeshKey(
  key: Omit<MeshKey, 'signature'>,
  domain: ClusterDomain,
  signer: Pick<Signer, 'signDigest'>,
): Promise<MeshKey> {
  return { ...key, signature: await signer.signDigest(keyDigest(key, domain)) };
}

/** Whether the renter's agent signed this list. */
export function isListSignedBy(agent: Address, { list, signature }: SignedMemberList, domain: ClusterDomain): boolean {
  return isSignedBy(agent, listDigest(list, domain), signature);
}

/** Whether an operator's node key stands behind this end of the mesh. */
export function isKeySignedBy(nodeKey: Address, key: MeshKey, domain: ClusterDomain): boolean {
  return isSignedBy(nodeKey, keyDigest(key, domain), key.signature);
}

/**
 * Which of two lists of a cluster counts: the later version; of one version, whose digest is less. So all who have seen the same lists agree,
 * also when two of the renter's coordinators signed at the same time.
 */
export function supersedes(one: MemberList, other: MemberList | undefined): boolean {
  if (other === undefined) return true;
  return one.version === other.version ? contentsOf(one) < contentsOf(other) : one.version > other.version;
}

/**
 * Reads a signed list from untrusted JSON. Ranks and seats occur once, seats are in order, and ranks are 0 to n - 1.
 * @throws bad-member-list
 */
export function parseSignedList(value: unknown): SignedMemberList {
  const { list, signature } = recordOf(value);
  const { cluster, version, members } = recordOf(list);
  if (!isHex(cluster, 32) || !isHex(signature, 65)) throw badList('cluster or signature has not the right length');
  if (typeof version !== 'number' || !Number.isSafeInteger(version) || version < 1) throw badList('version is no whole number from 1');
  if (!Array.isArray(members) || members.length === 0 || members.length > MACHINES_MAX)
    throw badList(`members are not 1 to ${MACHINES_MAX}`);
  const parsed = members.map((member) => parseMember(member, cluster));
  const seats = parsed.map(({ seat }) => seat);
  if (seats.some((seat, index) => index > 0 && seat <= (seats[index - 1] as number))) throw badList('seats are not in order');
  const ranks = parsed.flatMap((member) => member.ranks).sort((one, other) => one - other);
  if (ranks.some((rank, index) => rank !== index)) throw badList('ranks are not 0 to n - 1, each once');
  for (const field of ['leaseId', 'publicKey', 'endpoint'] as const) {
    if (new Set(parsed.map((member) => member[field])).size < parsed.length) throw badList(`two members have the same ${field}`);
  }
  return { list: { cluster, version, members: parsed }, signature };
}

/**
 * Reads one end of a mesh from untrusted JSON.
 * @throws bad-member-list
 */
export function parseMeshKey(value: unknown, cluster: Hex): MeshKey {
  const { leaseId, seat, publicKey, endpoint, signature, ...rest } = recordOf(value);
  if (rest.cluster !== cluster) throw badList('a member is of another cluster');
  if (typeof leaseId !== 'string' || !/^[1-9]\d{0,19}$/.test(leaseId)) throw badList('leaseId is no number');
  if (typeof seat !== 'number' || !Number.isInteger(seat) || seat < 1 || seat > SEATS_MAX) throw badList(`seat is not 1 to ${SEATS_MAX}`);
  if (typeof publicKey !== 'string' || !/^[A-Za-z0-9+/]{43}=$/.test(publicKey)) throw badList('publicKey is not 32 bytes of base64');
  const port = typeof endpoint === 'string' ? Number(ENDPOINT.exec(endpoint)?.[1]) : 0;
  if (!(port >= 1 && port <= 65_535)) throw badList('endpoint is not host:port');
  if (!isHex(signature, 65)) throw badList('a member’s signature has not 65 bytes');
  return { cluster, leaseId, seat, publicKey, endpoint: endpoint as string, signature };
}

function parseMember(value: unknown, cluster: Hex): ClusterMember {
  const { ranks } = recordOf(value);
  if (!Array.isArray(ranks) || ranks.length > 4096 || ranks.some((rank) => !Number.isInteger(rank) || rank < 0)) {
    throw badList('ranks are no list of whole numbers');
  }
  return { ...parseMeshKey(value, cluster), ranks: ranks as number[] };
}

/** SHA-256 of a list's canonical form: arrays of the fields in a fixed order. */
function contentsOf({ cluster, version, members }: MemberList): Hex {
  const rows = members.map(({ leaseId, seat, publicKey, endpoint, signature, ranks }) => [
    leaseId,
    seat,
    publicKey,
    endpoint,
    signature.toLowerCase(),
    ranks,
  ]);
  return `0x${createHash('sha256')
    .update(JSON.stringify([cluster.toLowerCase(), version, rows]))
    .digest('hex')}`;
}

function listDigest(list: MemberList, domain: ClusterDomain): Hex {
  return typedDataDigest(shapesOf(domain).list, { cluster: list.cluster, version: BigInt(list.version), contents: contentsOf(list) });
}

function keyDigest(key: Omit<MeshKey, 'signature'>, domain: ClusterDomain): Hex {
  const publicKey: Hex = `0x${Buffer.from(key.publicKey, 'base64').toString('hex')}`;
  const { cluster, seat, endpoint } = key;
  return typedDataDigest(shapesOf(domain).key, { cluster, leaseId: BigInt(key.leaseId), seat, publicKey, endpoint });
}

function shapesOf({ chainId, market }: ClusterDomain): { list: TypedDataShape; key: TypedDataShape } {
  const name = `${chainId} ${market.toLowerCase()}`;
  const known = shapes.get(name);
  if (known !== undefined) return known;
  const domain = { name: 'Millrace Cluster', version: '1', chainId, verifyingContract: market };
  const field = (type: string, fieldName: string) => ({ name: fieldName, type });
  const made = {
    list: {
      domain,
      primaryType: 'MemberList',
      types: { MemberList: [field('bytes32', 'cluster'), field('uint64', 'version'), field('bytes32', 'contents')] },
    },
    key: {
      domain,
      primaryType: 'MeshKey',
      types: {
        MeshKey: [
          field('bytes32', 'cluster'),
          field('uint64', 'leaseId'),
          field('uint32', 'seat'),
          field('bytes32', 'publicKey'),
          field('string', 'endpoint'),
        ],
      },
    },
  };
  shapes.set(name, made);
  return made;
}

function isHex(value: unknown, bytes: number): value is Hex {
  return typeof value === 'string' && value.length === 2 + 2 * bytes && /^0x[0-9a-fA-F]+$/.test(value);
}

function recordOf(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badList('something that should be an object is none');
  return value as Record<string, unknown>;
}

/**
 * Holds a list to the specification by which a machine joined: as many ranks in all, and here no more than it has room for. Whoever signs lists has
 * paid for that room and no other.
 * @throws bad-member-list
 */
export function checkRanks(list: MemberList, own: ClusterMember, spec: Pick<ClusterSpec, 'processes' | 'machines'>): void {
  const total = list.members.reduce((sum, { ranks }) => sum + ranks.length, 0);
  if (total !== spec.processes) throw badList(`it has ${total} ranks, the specification ${spec.processes}`);
  const most = ranksMaxOf(spec);
  if (own.ranks.length > most) throw badList(`it gives this machine ${own.ranks.length} ranks, there is room for ${most}`);
}

/** A list, or a part of one, that no honest coordinator or node would send. */
export function badList(reason: string): MillraceError {
  return new MillraceError('bad-member-list', {
    actor: 'peer',
    message: `The list of the cluster’s members cannot be used: ${reason}`,
    values: { reason },
    hint: 'Ask another member for the list.',
  });
}
