import { createHash, randomBytes } from 'node:crypto';
import type { Hex } from 'viem';
import { recoverAddress } from '../../chain/index.ts';
import { contentDigest, createReplayGuard, type ReplayGuard, verifyRequest } from '../../connect/index.ts';
import { httpStatusOf, MillraceError, toMillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import type { WantedLeaf } from './challenge-check.ts';
import { littleEndian } from './challenge-work.ts';
import type { HealthView } from './health-view.ts';
import type { OwnChallenge, OwnChallenges } from './own-challenges.ts';
import { ANSWER_HEADER, answerDigest, HEALTH_PATH, NETWORK_HEADER, networkName, type PartnerCaller } from './partner-calls.ts';
import { signReceipt } from './receipt.ts';

/** The node's link, which has one transfer at a time, its own or a partner's: two at once would halve each other. */
export interface TransferLine {
  busy: boolean;
  /** A challenge runs: no transfer begins beside it, on a slow link answers would be late for that. */
  hasChallenge: boolean;
}

/** What the routes stand on. */
export interface PartnerRoutesOptions extends PartnerCaller {
  view: HealthView;
  operatorId: bigint;
  challenges: OwnChallenges;
  line: TransferLine;
  /** This machine's clock, milliseconds since 1970; told to partners, trusted by nobody. */
  wallMs(): number;
}

const BODY_BYTES_MAX = 1 << 16;
const CHUNK_BYTES = 1 << 16;
const LEAVES_MAX = 64;
/** Challenges that one partner may watch at a time: one a seat and round, asked again now and then. */
const WATCHING_MAX = 256;
/** Transfers of one partner in an hour; an honest one makes three attempts of two a seat and round at most. */
const TRANSFERS_MAX = 64;
const KEY_KEPT_MS = 60_000;
const TRANSFER_MS_MAX = 20_000;

/**
 * What a node answers to the partners that the hour's randomness gave it: `POST /v1/compute/health/{ping,download,upload,challenge,opening}`. Each
 * request is signed (RFC 9421) for this network and protocol time, each answer by this node's key; who is no partner of this hour or the
 * last is refused.
 */
export function createPartnerRoutes(options: PartnerRoutesOptions): (request: Request) => Promise<Response> | undefined {
  const guard = createReplayGuard(() => Number(options.protocol.now()));
  const operatorOf = keepOperators(options);
  const transfers = new Map<string, number>();
  const watching = new Map<bigint, number>();
  return (request) => {
    const { pathname } = new URL(request.url);
    const name = pathname.startsWith(`${HEALTH_PATH}/`) ? pathname.slice(HEALTH_PATH.length + 1) : '';
    if (request.method !== 'POST' || !/^(ping|download|upload|challenge|opening)$/.test(name)) return undefined;
    return answer(options, request, { name, guard, operatorOf, transfers, watching }).catch((error) => {
      const fault = toMillraceError(error);
      return Response.json(fault.toJSON(), { status: httpStatusOf(fault), headers: { 'content-type': 'application/problem+json' } });
    });
  };
}

interface Desk {
  name: string;
  guard: ReplayGuard;
  operatorOf: (address: Hex) => Promise<bigint>;
  transfers: Map<string, number>;
  /** How many challenges each partner watches. */
  watching: Map<bigint, number>;
}

async function answer(options: PartnerRoutesOptions, request: Request, desk: Desk): Promise<Response> {
  const { view, protocol } = options;
  const operatorId = await admit(options, request, desk);
  const hour = view.hourAt(protocol.now());
  if (desk.name === 'download' || desk.name === 'upload') {
    if (options.line.busy || options.line.hasChallenge) return Response.json({ code: 'transfer-busy' }, { status: 503 });
    countTransfer(desk.transfers, hour, operatorId);
    return serveTransfer(options, request, desk.name);
  }
  const body = await readBody(request, BODY_BYTES_MAX);
  const asked = parseBody(body);
  if (desk.name === 'ping') return signed(options, request, { timeMs: options.wallMs(), hour });
  const own = { hour: Number(asked.hour), slot: Number(asked.slot), seat: Number(asked.seat) };
  if (view.occupantAt(own.seat, own.hour)?.operatorId !== options.operatorId) {
    throw refused('bad-health-request', `Seat ${own.seat} is not of this node`);
  }
  if (desk.name === 'opening') return signed(options, request, await openLeaves(options, own, { asked, operatorId }));
  return watchChallenge(options, own, { watching: desk.watching, operatorId });
}

async function openLeaves(
  { challenges, client, signer }: PartnerRoutesOptions,
  own: OwnChallenge,
  { asked, operatorId }: { asked: Record<string, unknown>; operatorId: bigint },
): Promise<object> {
  const isLeaf = (leaf: unknown) => {
    const { place, leaf: index } = (leaf ?? {}) as Record<string, unknown>;
    return Number.isSafeInteger(place) && Number.isSafeInteger(index);
  };
  if (!Array.isArray(asked.leaves) || asked.leaves.length > LEAVES_MAX || !asked.leaves.every(isLeaf)) {
    throw refused('bad-health-request', `Expected up to ${LEAVES_MAX} leaves`);
  }
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const opened = await challenges.open(own, Number(asked.done), asked.leaves as WantedLeaf[]);
  const leaves = opened.map(({ place, leaf, words, proof, unitRoot, unitProof }) => ({
    place,
    leaf,
    words: base64(littleEndian(words)),
    proof: proof.map(base64),
    unitRoot: base64(unitRoot),
    unitProof: unitProof.map(base64),
  }));
  return { leaves, receipt: await signReceipt(client, signer, { hour: own.hour, seat: own.seat, askerId: operatorId }) };
}

/** A line for each commitment, as the work comes on. They are signed for with the opening, which names the one that counted. */
async function watchChallenge(
  { challenges }: PartnerRoutesOptions,
  own: OwnChallenge,
  { watching, operatorId }: { watching: Map<bigint, number>; operatorId: bigint },
): Promise<Response> {
  const open = watching.get(operatorId) ?? 0;
  if (open >= WATCHING_MAX) throw refused('too-many-transfers', `Operator ${operatorId} watches ${open} challenges already`);
  watching.set(operatorId, open + 1);
  const commitments = challenges.progressOf(own);
  const end = () => {
    const left = (watching.get(operatorId) ?? 1) - 1;
    if (left === 0) watching.delete(operatorId);
    else watching.set(operatorId, left);
  };
  const first = await commitments.next().catch((error) => {
    end();
    throw error;
  });
  return new Response(
    new ReadableStream<Uint8Array>({
      async start(stream) {
        try {
          for (let next = first; !next.done; next = await commitments.next()) {
            const { done, root } = next.value;
            stream.enqueue(Buffer.from(`${JSON.stringify({ done, root: Buffer.from(root).toString('base64') })}\n`));
          }
          stream.close();
        } catch {
          // Who watched is gone, or the run failed, which its own line of the log says.
        } finally {
          end();
        }
      },
      async cancel() {
        await commitments.return(undefined);
      },
    }),
    { headers: { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' } },
  );
}

async function serveTransfer(options: PartnerRoutesOptions, request: Request, name: 'download' | 'upload'): Promise<Response> {
  const { line, view } = options;
  line.busy = true;
  const free = () => {
    line.busy = false;
  };
  // A partner that hangs does not keep the line.
  const late = setTimeout(free, TRANSFER_MS_MAX);
  late.unref();
  try {
    const body = await readBody(request, name === 'upload' ? sampleBytes(view.rule) : BODY_BYTES_MAX);
    if (name === 'download') return new Response(randomStream(sampleBytes(view.rule), free));
    const answered = await signed(options, request, { sha256: createHash('sha256').update(body).digest('hex') });
    free();
    return answered;
  } catch (error) {
    free();
    throw error;
  }
}

/** How many bytes a transfer has: half a second's at the speed from which on more counts no more. */
export function sampleBytes({ bandwidthRef }: { bandwidthRef: number }): number {
  return Math.min(1 << 26, Math.max(1 << 16, bandwidthRef * 500));
}

/** Whose request it is. @throws wrong-network, not-a-partner, the errors of verifyRequest */
async function admit(options: PartnerRoutesOptions, request: Request, { guard, operatorOf }: Desk): Promise<bigint> {
  const { client, view, protocol } = options;
  const headers = Object.fromEntries(request.headers);
  const { address } = verifyRequest(
    { method: request.method, url: request.url, headers },
    { recover: recoverAddress, guard },
    { required: ['content-digest', NETWORK_HEADER], nowSeconds: Number(protocol.now()) },
  );
  if (headers[NETWORK_HEADER] !== networkName(client)) throw refused('wrong-network', `Expected network ${networkName(client)}`);
  const operatorId = await operatorOf(address);
  const hour = view.hourAt(protocol.now());
  if (operatorId !== 0n && ((await isPartner(options, operatorId, hour)) || (await isPartner(options, operatorId, hour - 1))))
    return operatorId;
  throw refused('not-a-partner', `Operator ${operatorId} has no seat that this hour's randomness paired with one of this node`);
}

async function isPartner({ view, operatorId: own }: PartnerRoutesOptions, operatorId: bigint, hour: number): Promise<boolean> {
  const seed = hour < 1 ? undefined : await view.seedOf(hour);
  if (seed === undefined) return false;
  return view
    .occupantsAt(hour)
    .filter((one) => one.operatorId === own)
    .some(({ seat }) => view.drawnPartners(hour, seat, seed).some(({ partner }) => partner.operatorId === operatorId));
}

function keepOperators({ client }: PartnerCaller): (address: Hex) => Promise<bigint> {
  const known = new Map<string, { readAt: number; operatorId: bigint }>();
  return async (address) => {
    const kept = known.get(address);
    if (kept !== undefined && performance.now() - kept.readAt < KEY_KEPT_MS) return kept.operatorId;
    const operatorId = await client.read('operators', 'operatorOfNodeKey', [address]);
    if (known.size > 10_000) known.clear();
    known.set(address, { readAt: performance.now(), operatorId });
    return operatorId;
  };
}

function countTransfer(transfers: Map<string, number>, hour: number, operatorId: bigint): void {
  const key = `${hour}/${operatorId}`;
  const count = (transfers.get(key) ?? 0) + 1;
  if (count > TRANSFERS_MAX)
    throw refused('too-many-transfers', `Operator ${operatorId} has had ${TRANSFERS_MAX} transfers in hour ${hour}`);
  if (transfers.size > 10_000) transfers.clear();
  transfers.set(key, count);
}

async function signed({ signer }: PartnerCaller, request: Request, value: object): Promise<Response> {
  const text = JSON.stringify(value);
  const signature = await signer.signDigest(answerDigest(request.headers.get('signature') ?? '', text));
  return new Response(text, { headers: { 'content-type': 'application/json', 'cache-control': 'no-store', [ANSWER_HEADER]: signature } });
}

/** Random bytes, the same block over and over: TLS does not compress, and making them must not be what is measured. */
function randomStream(bytes: number, onEnd: () => void): ReadableStream<Uint8Array> {
  const block = randomBytes(CHUNK_BYTES);
  let left = bytes;
  return new ReadableStream({
    pull(stream) {
      const part = block.subarray(0, Math.min(left, CHUNK_BYTES));
      left -= part.length;
      stream.enqueue(new Uint8Array(part));
      if (left > 0) return;
      stream.close();
      onEnd();
    },
    cancel: onEnd,
  });
}

async function readBody(request: Request, bytesMax: number): Promise<Buffer> {
  const body = await readAtMost(request.body, bytesMax);
  if (contentDigest(body) !== request.headers.get('content-digest'))
    throw refused('bad-health-request', 'The body is not the one that was signed');
  return body;
}

function parseBody(body: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {}
  throw refused('bad-health-request', 'The body is no JSON object');
}

function refused(code: string, message: string): MillraceError {
  return new MillraceError(code, { actor: 'caller', message, hint: 'Partners are drawn anew each hour; read the seats from the chain.' });
}
