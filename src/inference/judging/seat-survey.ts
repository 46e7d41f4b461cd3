import { type Address, getAddress, isAddressEqual } from 'viem';
import type { ChainClient, ReceiptDomain } from '../../chain/index.ts';
import { peerFetch } from '../../connect/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { readAtMost } from '../../read-at-most.ts';
import type { TaskType } from '../engines/engine.ts';
import { type Offer, readOffer } from '../serving/offer.ts';
import { readUids, type Uid } from '../subnets/metagraph.ts';
import { findUid } from '../subnets/own-uids.ts';
import type { JudgedMiner } from './judging-ports.ts';

/** A uid that serves: where it is reached, and what it offers. */
export interface Seat extends JudgedMiner {
  endpoint: string;
  transportKey: string;
  /** Undefined while nobody could read it. */
  offer: Offer | undefined;
}

/** A subnet's uids as a validator sees them. */
export interface Survey {
  seats: Seat[];
  /** The uid whose operator's beneficiary is nobody: the lowest, where there are several. */
  sink: number | undefined;
}

/** How seats are surveyed. */
export interface SurveyOptions {
  subnetId: bigint;
  /** The subnet's: models for other tasks are not judged in it. */
  kind: string;
  domain: ReceiptDomain;
  /** What was found before, by `uid|operator`. */
  before: ReadonlyMap<string, Seat>;
  log: Logger;
}

/** Whose tokens nobody can move: an operator with this beneficiary is a subnet's sink. */
export const NOBODY: Address = getAddress('0x000000000000000000000000000000000000dead');
/** Where models of a task are asked. */
export const PATH_OF_TASK: Record<TaskType, string> = {
  chat: '/v1/chat/completions',
  embedding: '/v1/embeddings',
  detection: '/v1/tasks/detection',
  ocr: '/v1/tasks/ocr',
  'image-generation': '/v1/images/generations',
  speech: '/v1/audio/speech',
  transcription: '/v1/audio/transcriptions',
  activity: '/v1/tasks/activity',
  command: '/v1/tasks/command',
  moderation: '/v1/moderations',
};

/** What belongs to a subnet by its kind; a kind that is not here is a task, or everything. */
const TASKS_OF_KIND: Record<string, readonly TaskType[]> = {
  text: ['chat', 'embedding', 'moderation'],
  image: ['detection', 'ocr', 'image-generation'],
  voice: ['speech', 'transcription', 'activity', 'command'],
};
const OFFER_MS = 5_000;
const OFFER_BYTES_MAX = 1 << 20;
const AT_ONCE = 16;

/**
 * Who holds which uid of a subnet, whose they are, what they serve (their offers, signed) and what was burnt on their payments. Validators that
 * serve nothing are seats without an offer. A seat whose offer cannot be read keeps its last one, so that it is probed and found silent.
 * @throws chain-unreachable
 */
export async function surveySeats(client: ChainClient, options: SurveyOptions): Promise<Survey> {
  const uids = (await readUids(client, options.subnetId)).filter(({ operatorId }) => operatorId !== 0n);
  const now = await client.now();
  const survey: Survey = { seats: [], sink: undefined };
  const others = await otherSubnets(client, options.subnetId);
  for (let from = 0; from < uids.length; from += AT_ONCE) {
    const seats = await Promise.all(uids.slice(from, from + AT_ONCE).map((uid) => surveySeat(client, uid, { ...options, now, others })));
    for (const { seat, isSink } of seats) {
      if (!isSink) survey.seats.push(seat);
      else survey.sink ??= seat.uid;
    }
  }
  return survey;
}

async function surveySeat(
  client: ChainClient,
  { uid, operatorId, registeredAt }: Uid,
  { domain, before, log, now, kind, others }: SurveyOptions & { now: bigint; others: readonly bigint[] },
): Promise<{ seat: Seat; isSink: boolean }> {
  const operator = await client.read('operators', 'operator', [operatorId]);
  const { endpoint, transportKey, owner, beneficiary, nodeKey } = operator;
  const isSink = beneficiary === NOBODY;
  let offer = before.get(`${uid}|${operatorId}`)?.offer;
  if (!isSink && endpoint.startsWith('https:')) {
    try {
      const read = await fetchOffer({ endpoint, transportKey }, domain, now);
      if (read.operatorId === operatorId && read.miner.toLowerCase() === nodeKey.toLowerCase()) offer = read;
    } catch (error) {
      log.debug('offer-not-read', { uid, reason: toMillraceError(error).message.slice(0, 200) });
    }
  }
  const fitting = (offer?.models ?? []).filter(({ task }) => isOfKind(kind, task));
  const models = Object.fromEntries(fitting.map(({ task, id }) => [PATH_OF_TASK[task], id]));
  const paths = Object.keys(models);
  const receiver = offer?.receiver ?? nodeKey;
  const hasOwnPurse = isAddressEqual(receiver, nodeKey);
  const [burnt, held] = await Promise.all([
    client.read('channels', 'feesBurntOf', [nodeKey]),
    Promise.all(others.map((one) => findUid(client, { subnetId: one, operatorId }))),
  ]);
  const subnets = 1 + held.filter((other) => other !== undefined).length;
  // One machine, owner, purse: one miner, however many uids. Hosts are not told apart by port.
  const marks = [`owner ${owner}`, `purse ${beneficiary}`, `purse ${receiver}`, `key ${transportKey}`];
  const paid = { burnt, hasOwnPurse, subnets };
  return { seat: { uid, operatorId, nodeKey, registeredAt, marks, paths, models, ...paid, endpoint, transportKey, offer }, isSink };
}

/** Subnets besides one that are not dissolved. */
async function otherSubnets(client: ChainClient, subnetId: bigint): Promise<bigint[]> {
  const count = Number(await client.read('subnets', 'subnetCount'));
  const others = Array.from({ length: count }, (_, at) => BigInt(at + 1)).filter((one) => one !== subnetId);
  const found = await Promise.all(others.map((one) => client.read('subnets', 'subnet', [one])));
  return others.filter((_, at) => found[at]?.dissolved === false);
}

/** Whether requests at a path are judged in a subnet of a kind. */
export function isJudgedIn(kind: string, path: string): boolean {
  return Object.entries(PATH_OF_TASK).some(([task, of]) => of === askedPath(path) && isOfKind(kind, task as TaskType));
}

/** Two paths, one task. */
export function askedPath(path: string): string {
  return path === '/v1/responses' ? PATH_OF_TASK.chat : path;
}

function isOfKind(kind: string, task: TaskType): boolean {
  const tasks = TASKS_OF_KIND[kind];
  if (tasks !== undefined) return tasks.includes(task);
  return kind === task || !Object.hasOwn(PATH_OF_TASK, kind);
}

async function fetchOffer(peer: { endpoint: string; transportKey: string }, domain: ReceiptDomain, now: bigint): Promise<Offer> {
  const signal = AbortSignal.timeout(OFFER_MS);
  const response = await peerFetch(peer, '/v1/inference/offer', { signal, headersTimeoutMs: OFFER_MS, idleTimeoutMs: OFFER_MS });
  const text = (await readAtMost(response.body, OFFER_BYTES_MAX)).toString('utf8');
  return readOffer(domain, text, now).offer;
}
