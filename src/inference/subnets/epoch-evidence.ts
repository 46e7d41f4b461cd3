import { bytesToHex, concatHex, encodeAbiParameters, type Hex, hexToBytes, keccak256, numberToHex, zeroHash } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { SparseRow } from '../consensus/epoch-input.ts';
import { packRows, unpackRows } from '../consensus/packed-rows.ts';
import { type ClosedMetagraph, decodeMetagraph } from './metagraph.ts';

/** What an epoch decides, packed as `ISubnetEpochs` says. */
export interface EpochDecision {
  payments: Hex;
  ranks: Hex;
  state: Hex;
}

/** What an epoch's decision depends on, as `SubnetEpochs.settle` takes it. */
export interface EpochEvidence {
  metagraph: Hex;
  rows: Hex;
  /** As the last epoch left it; empty when there is none. */
  state: Hex;
}

const NO_OWNER_UID = 65_535;
const WORD_BYTES = 32;
const UIDS_MAX = 256;

/** The hash that stands for a decision on chain. */
export function rootOf({ payments, ranks, state }: EpochDecision): Hex {
  const parts = [payments, ranks, state].map((part) => keccak256(part));
  return keccak256(encodeAbiParameters([{ type: 'bytes32' }, { type: 'bytes32' }, { type: 'bytes32' }], parts as [Hex, Hex, Hex]));
}

/**
 * Gathers from the chain's events what the next epoch of a subnet depends on, which must be closed with its reveals over.
 * @throws evidence-missing, chain-unreachable
 */
export async function gatherEvidence(client: ChainClient, place: { subnetId: bigint; epoch: bigint }): Promise<EpochEvidence> {
  const { subnetId, epoch } = place;
  const [closed] = await client.events({ name: 'subnets', event: 'EpochClosed', args: { subnetId, epoch } });
  if (closed === undefined) throw missing('the metagraph', place);
  const { metagraph } = closed.args;
  const { uids, hashes } = await readBoard(client, place, decodeMetagraph(hexToBytes(metagraph)));
  const revealed = await client.events({ name: 'weightsBoard', event: 'Revealed', args: { subnetId, epoch } });
  const rows = uids.flatMap((uid, at): Hex[] => {
    if (hashes[at] === zeroHash) return [];
    const row = revealed.find(({ args }) => args.uid === uid && keccak256(args.row) === hashes[at])?.args.row;
    if (row === undefined) throw missing(`the weights of uid ${uid}`, place);
    return [numberToHex(uid, { size: 2 }), numberToHex((row.length - 2) / 8, { size: 2 }), row];
  });
  return { metagraph, rows: concatHex(['0x', ...rows]), state: (await lastState(client, subnetId)).state };
}

/**
 * Decides an epoch from its evidence by the library that the chain would run, as a call that costs nothing.
 * @throws the contract's errors
 */
export async function decideEpoch(
  client: ChainClient,
  { subnetId, epoch }: { subnetId: bigint; epoch: bigint },
  evidence: EpochEvidence,
): Promise<EpochDecision> {
  const bytes = hexToBytes(evidence.metagraph);
  const metagraph = decodeMetagraph(bytes);
  const [rules, { tempoSeconds }, time, { lastEpochAt }, [totalEmission], board] = await Promise.all([
    client.read('subnets', 'hyperparametersAt', [subnetId, epoch]),
    client.read('subnets', 'subnet', [subnetId]),
    client.read('subnets', 'epochStart', [subnetId, epoch + 1n]),
    client.read('subnetEpochs', 'accountOf', [subnetId]),
    client.read('subnetEpochs', 'stakesOf', [subnetId, epoch]),
    readBoard(client, { subnetId, epoch }, metagraph),
  ]);
  const input = {
    parameters: { ...rules, activityCutoff: tempoSeconds },
    time: Number(time),
    lastEpochAt: Number(lastEpochAt),
    ownerUid: NO_OWNER_UID,
    totalEmission,
  };
  const { consensus, bonds } = splitState(evidence.state, metagraph, Number(lastEpochAt));
  const args = [input, uidWords(metagraph, board), evidence.rows, consensus, bonds] as const;
  const [payments, ranks, state] = await client.read('yumaCore', 'decide', args);
  return { payments: nameOperators(metagraph, payments), ranks, state };
}

interface BoardView {
  uids: number[];
  hashes: readonly Hex[];
  committedAt: readonly number[];
  unrevealed: bigint;
}

async function readBoard(client: ChainClient, place: { subnetId: bigint; epoch: bigint }, metagraph: ClosedMetagraph): Promise<BoardView> {
  const uids = metagraph.permits.flatMap((hasPermit, uid) => (hasPermit ? [uid] : []));
  const registeredAt = uids.map((uid) => metagraph.holders[uid]?.registeredAt ?? 0);
  const [hashes, committedAt, unrevealed] = await client.read('weightsBoard', 'rowsOf', [place.subnetId, place.epoch, uids, registeredAt]);
  return { uids, hashes, committedAt, unrevealed };
}

/** The words that Yuma takes: stake:u128, committedAt:u40, registeredAt:u40 …, bit 1 unrevealed, bit 0 permit (see YumaTypes.sol). */
function uidWords({ holders }: ClosedMetagraph, { uids, committedAt, unrevealed }: BoardView): Hex {
  const words = holders.map(({ stake, registeredAt }) => (stake << 128n) | (BigInt(registeredAt) << 48n));
  uids.forEach((uid, at) => {
    const isShut = (unrevealed >> BigInt(uid)) & 1n;
    words[uid] = (words[uid] as bigint) | (BigInt(committedAt[at] as number) << 88n) | (isShut << 1n) | 1n;
  });
  return concatHex(['0x', ...words.map((word) => numberToHex(word, { size: WORD_BYTES }))]);
}

/** The consensus and the bonds of the last epoch, without those of validators that came after it. */
function splitState(state: Hex, { holders }: ClosedMetagraph, lastEpochAt: number): { consensus: Hex; bonds: Hex } {
  const bytes = hexToBytes(state);
  if (bytes.length === 0) return { consensus: '0x', bonds: '0x' };
  const end = consensusEnd(bytes);
  const rows = unpackRows(bytes.subarray(end), UIDS_MAX).map((row, uid) => ((holders[uid]?.registeredAt ?? 0) < lastEpochAt ? row : []));
  return { consensus: bytesToHex(bytes.subarray(2, end)), bonds: bytesToHex(packRows(rows)) };
}

/** Where the consensus of a state ends and its bonds begin: the number of uids, two bytes, then two bytes of each. */
function consensusEnd(bytes: Uint8Array): number {
  return 2 + 2 * (((bytes[0] as number) << 8) | (bytes[1] as number));
}

/** What the newest final epoch of a subnet that was not passed over left for the next. */
export interface DecidedState {
  epoch: bigint;
  /** By uid, parts of 65,535. */
  consensus: number[];
  /** By uid: what a validator holds of each miner, parts of 65,535. */
  bonds: SparseRow[];
}

/**
 * Consensus and bonds as the last final epoch left them; undefined where there is none, or bonds were reset since.
 * @throws evidence-missing, chain-unreachable
 */
export async function readDecidedState(client: ChainClient, subnetId: bigint): Promise<DecidedState | undefined> {
  const { epoch, state } = await lastState(client, subnetId);
  const bytes = hexToBytes(state);
  if (bytes.length === 0) return undefined;
  const end = consensusEnd(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, end);
  const consensus = Array.from({ length: (end - 2) / 2 }, (_, uid) => view.getUint16(2 + 2 * uid));
  return { epoch, consensus, bonds: unpackRows(bytes.subarray(end), UIDS_MAX) };
}

function nameOperators({ holders }: ClosedMetagraph, payments: Hex): Hex {
  const bytes = hexToBytes(payments);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const [uid, { operatorId }] of holders.entries()) view.setBigUint64((uid + 1) * WORD_BYTES, operatorId);
  return bytesToHex(bytes);
}

/** What the last decided epoch left, and which it was (later ones were passed over), found by its hash in what was logged. @throws evidence-missing */
async function lastState(client: ChainClient, subnetId: bigint): Promise<{ epoch: bigint; state: Hex }> {
  const { next, stateHash } = await client.read('subnetEpochs', 'accountOf', [subnetId]);
  if (stateHash === zeroHash) return { epoch: next, state: '0x' };
  for (let epoch = next - 1n; epoch >= 0n; epoch -= 1n) {
    const found = (await loggedDecisions(client, { subnetId, epoch })).find(({ state }) => keccak256(state) === stateHash);
    if (found !== undefined) return { epoch, state: found.state };
  }
  throw missing('the bonds of the last epoch', { subnetId, epoch: next });
}

/** Decisions of an epoch that were proposed or settled and logged in full. */
export async function loggedDecisions(client: ChainClient, args: { subnetId: bigint; epoch: bigint }): Promise<EpochDecision[]> {
  const [settled, proposed] = await Promise.all([
    client.events({ name: 'subnetEpochs', event: 'Settled', args }),
    client.events({ name: 'subnetEpochs', event: 'Proposed', args }),
  ]);
  return [...settled, ...proposed].map(({ args: { result } }) => result).filter(({ payments }) => payments !== '0x');
}

/** Uids that a decision pays, with the operator that held each, and what it got as miner and as validator. */
export function paymentsOf(payments: Hex): { uid: number; operatorId: bigint; miner: bigint; validator: bigint }[] {
  const bytes = hexToBytes(payments);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const big = (at: number) => (BigInt(view.getUint32(at)) << 64n) | view.getBigUint64(at + 4);
  return Array.from({ length: bytes.length / WORD_BYTES - 1 }, (_, uid) => {
    const at = (uid + 1) * WORD_BYTES;
    return { uid, operatorId: view.getBigUint64(at), miner: big(at + 8), validator: big(at + 20) };
  });
}

function missing(what: string, { subnetId, epoch }: { subnetId: bigint; epoch: bigint }): MillraceError {
  return new MillraceError('evidence-missing', {
    actor: 'chain',
    message: `The chain's events do not show ${what} for epoch ${epoch} of subnet ${subnetId}`,
    values: { subnetId, epoch },
    hint: 'Use a node that keeps old logs; else the epoch is passed over after some epochs, and nothing is lost but its bonds.',
  });
}
