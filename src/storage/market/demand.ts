import { hash } from 'node:crypto';
import { bytesToHex, decodeFunctionData, type Hex, hexToBytes } from 'viem';
import { abis, type ChainClient, type Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { fr32Unpad } from '../content/fr32.ts';
import { type DealView, readDeal } from './chain-view.ts';
import { reserveFunds } from './funds.ts';
import { readRules } from './market-rules.ts';

/** How far a demand for bytes is. */
export interface DemandProgress {
  doneBytes: number;
  totalBytes: number;
}

const GROUP_BYTES = 127;
const LEAVES_OF_GROUP = 4;
const LEAF_BYTES = 32;
/** `StorageMarket` takes at most 256 leaves in one demand. */
const GROUPS_AT_ONCE = 64;
const POLL_MS = 500;

/**
 * Makes a provider that serves nothing publish bytes [from, to) of a deal's piece (its CAR) on chain, and gives them verified against the
 * piece's root. Long ranges take several demands, one after another; each costs a bond for every leaf (31.75 bytes), which the provider
 * earns by answering. A provider that does not answer in time is slashed and the deal ended.
 * @throws bad-range, not-client, wrong-state, challenge-open, no-funds, demand-unanswered, demand-answer-wrong
 */
export async function demandBytes(options: {
  client: ChainClient;
  sender: Sender;
  dealId: bigint;
  from: number;
  to: number;
  onProgress?: (progress: DemandProgress) => void;
  signal?: AbortSignal;
}): Promise<Uint8Array> {
  const { client, sender, dealId, from, to } = options;
  const deal = await readDeal(client, dealId);
  if (!(Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= 0 && from < to && BigInt(to) <= deal.rawSize)) {
    throw badRange(options, deal.rawSize);
  }
  const [firstGroup, endGroup] = [Math.floor(from / GROUP_BYTES), Math.ceil(to / GROUP_BYTES)];
  const groups: Uint8Array[] = [];
  for (let group = firstGroup; group < endGroup; group += GROUPS_AT_ONCE) {
    options.signal?.throwIfAborted();
    const first = BigInt(group * LEAVES_OF_GROUP);
    const wanted = Math.min(GROUPS_AT_ONCE, endGroup - group) * LEAVES_OF_GROUP;
    const count = Number(first + BigInt(wanted) > deal.leaves ? deal.leaves - first : BigInt(wanted));
    const fromBlock = await openDemand({ client, sender, dealId, first, count });
    const answer = await awaitAnswer(options, fromBlock);
    groups.push(unpadAnswer(deal, { first, count, answer }));
    options.onProgress?.({ doneBytes: Math.min((group + GROUPS_AT_ONCE) * GROUP_BYTES, to) - from, totalBytes: to - from });
  }
  const start = from - firstGroup * GROUP_BYTES;
  return Buffer.concat(groups).subarray(start, start + to - from);
}

async function openDemand(demand: { client: ChainClient; sender: Sender; dealId: bigint; first: bigint; count: number }): Promise<bigint> {
  const { client, sender, dealId, first, count } = demand;
  const purpose = {};
  try {
    await reserveFunds({ client, sender, amount: (await readRules(client)).challengeBond * BigInt(count), purpose });
    const receipt = await sender.send({ contract: 'storageMarket', functionName: 'demandBytes', args: [dealId, first, count] });
    return receipt.blockNumber;
  } finally {
    await reserveFunds({ client, sender, amount: 0n, purpose });
  }
}

/** The provider's answer as it stands in its transaction; after the deadline the deal is terminated instead. */
async function awaitAnswer(
  options: { client: ChainClient; sender: Sender; dealId: bigint; signal?: AbortSignal },
  fromBlock: bigint,
): Promise<Uint8Array> {
  const { client, sender, dealId, signal } = options;
  const { challengeWindowSeconds } = await readRules(client);
  for (;;) {
    signal?.throwIfAborted();
    const [answered] = await client.events({ name: 'storageMarket', event: 'ChallengeAnswered', args: { dealId }, fromBlock });
    if (answered !== undefined) {
      const { input } = await client.public.getTransaction({ hash: answered.transactionHash });
      const { args } = decodeFunctionData({ abi: abis.storageMarket, data: input });
      return hexToBytes((args as readonly [bigint, Hex])[1]);
    }
    const deal = await readDeal(client, dealId);
    if (deal.state === 'terminated') throw unanswered(dealId);
    if (deal.challengedAt !== 0n && (await client.now()) > deal.challengedAt + challengeWindowSeconds) {
      await sender.send({ contract: 'storageMarket', functionName: 'terminate', args: [dealId] });
      throw unanswered(dealId);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Checks the leaves against the piece's root, as PieceRange.sol does, and takes the padding out. */
function unpadAnswer(deal: DealView, { first, count, answer }: { first: bigint; count: number; answer: Uint8Array }): Uint8Array {
  const words = Array.from({ length: answer.length / LEAF_BYTES }, (_, index) =>
    answer.subarray(index * LEAF_BYTES, (index + 1) * LEAF_BYTES),
  );
  const root = rootOfRange({ row: words.slice(0, count), siblings: words.slice(count), first, height: deal.pieceHeight });
  if (root !== deal.pieceRoot) {
    throw new MillraceError('demand-answer-wrong', {
      actor: 'chain',
      message: `The answer to the demand of deal ${deal.dealId} leads to ${root ?? 'no root'}, its piece is ${deal.pieceRoot}`,
      values: { dealId: deal.dealId, got: root, expected: deal.pieceRoot },
      hint: 'The contract accepts no such answer: check the RPC server that gave it.',
    });
  }
  const padded = new Uint8Array(Math.ceil(count / LEAVES_OF_GROUP) * LEAVES_OF_GROUP * LEAF_BYTES);
  padded.set(answer.subarray(0, count * LEAF_BYTES));
  return fr32Unpad(padded);
}

/** Root of the tree of 2^height leaves from a range of them and the siblings it lacks; undefined when siblings are missing. */
function rootOfRange(range: { row: Uint8Array[]; siblings: Uint8Array[]; first: bigint; height: number }): Hex | undefined {
  const siblings = range.siblings[Symbol.iterator]();
  let { row, first } = range;
  for (let level = 0; level < range.height; level += 1, first >>= 1n) {
    const left = (first & 1n) === 1n ? [siblings.next().value] : [];
    const nodes = [...left, ...row];
    if (nodes.length % 2 === 1) nodes.push(siblings.next().value);
    if (nodes.includes(undefined)) return undefined;
    row = Array.from({ length: nodes.length / 2 }, (_, index) =>
      parentOf(nodes[index * 2] as Uint8Array, nodes[index * 2 + 1] as Uint8Array),
    );
  }
  return row[0] === undefined ? undefined : bytesToHex(row[0]);
}

function parentOf(left: Uint8Array, right: Uint8Array): Uint8Array {
  const node = hash('sha256', Buffer.concat([left, right]), 'buffer');
  node[31] = (node[31] as number) & 0x3f;
  return node;
}

function badRange({ from, to, dealId }: { from: number; to: number; dealId: bigint }, rawSize: bigint): MillraceError {
  return new MillraceError('bad-range', {
    actor: 'caller',
    message: `Got bytes ${from} to ${to} of deal ${dealId}, whose piece has ${rawSize}`,
    values: { dealId, from, to, rawSize },
    hint: 'Give FROM-TO with 0 <= FROM < TO; TO itself is not included.',
  });
}

function unanswered(dealId: bigint): MillraceError {
  return new MillraceError('demand-unanswered', {
    actor: 'peer',
    message: `The provider of deal ${dealId} did not publish the bytes in time; the deal is ended and its collateral slashed`,
    values: { dealId },
    hint: 'The compensation is in `millrace wallet show`. Read the content from another holder.',
  });
}
