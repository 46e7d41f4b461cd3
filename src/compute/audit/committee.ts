import { createReadStream, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Hex, zeroHash } from 'viem';
import { type ChainClient, recoverAddress, type Sender, type Signer } from '../../chain/index.ts';
import { createReplayGuard, peerFetch, verifyRequest } from '../../connect/index.ts';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { readJuryCase } from '../../governance/index.ts';
import type { Logger } from '../../log.ts';
import { readAtMost } from '../../read-at-most.ts';
import { BOX_HEADER, fetchWork, JOBS_HEADER, jobsHeader, packState, SEALED_TYPE } from '../jobs/job-api.ts';
import { WORK_LEAF } from '../jobs/job-readers.ts';
import { contentName, foldersAt } from '../jobs/job-records.ts';
import { seal, sealBytes } from '../jobs/sealed-box.ts';
import type { FetchContent } from '../part.ts';
import { encodeJobSpec } from '../spec/job-spec.ts';
import type { LeafProof } from '../verify/commitment.ts';
import { type CommittedJob, callerOf, peerOf, providerStates, readCommittedJob, takeState } from './job-case.ts';
import { DEMANDS_PATH, demandContext } from './member-states.ts';
import { takeWork, workContext } from './member-work.ts';

/** Who serves in committees. */
export interface CommitteeOptions {
  client: ChainClient;
  /** The node key: its signature is what counts. */
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  folder: string;
  fetchContent: FetchContent;
  log: Logger;
}

/** An operator's agent for the committees that it is drawn into. */
export interface Committee {
  /** Takes delivery where it is due, signs, and brings the signatures of the majority to the chain. Safe to repeat and to interrupt. */
  tend(): Promise<void>;
  /** Hands on states and signatures; undefined for other paths. */
  fetch(request: Request): Promise<Response> | undefined;
  counts(): { open: number; delivered: number };
  /** Work that is on its way to here when this is called is fetched again after the next start. */
  stop(): Promise<void>;
}

/** A demand whose committee this operator is in. */
interface Membership {
  demandId: string;
  /** What was delivered, once it was: leaf (of the work: one that is in no tree), and this member's signature of it. */
  delivered?: { leaf: LeafProof; signature: Hex };
}

const PATH = new RegExp(`^${DEMANDS_PATH}/([1-9]\\d{0,18})/(state|signature|work|contents/([A-Za-z0-9:]{1,128}))$`);
const RECORD = /^([1-9]\d{0,18})\.json$/;
const CURSOR = 'next-block.json';
const SPEC = 'spec.json';
const SIGNATURE_BYTES_MAX = 64 << 10;
const TIMEOUT_MS = 20_000;
/** How long what was delivered is kept, seconds of chain time after the time to deliver. */
const KEEP_SECONDS = 86_400n;
const DELIVERED_FIELDS = [
  { name: 'demandId', type: 'uint64' },
  { name: 'jobId', type: 'bytes32' },
  { name: 'leaf', type: 'uint32' },
  { name: 'chainHash', type: 'bytes32' },
  { name: 'stateHash', type: 'bytes32' },
];
const HARMLESS: ReadonlySet<string> = new Set(['demand-closed', 'demand-too-late', 'too-few-signatures', 'not-drawn']);

/** Opens the agent; it takes delivery of states and works that were demanded, signs what it has checked, and hands it on to who demanded it. */
export function openCommittee(options: CommitteeOptions): Committee {
  return new OpenCommittee(options);
}

class OpenCommittee implements Committee {
  readonly #options: CommitteeOptions;
  readonly #folder: string;
  readonly #open = new Map<string, Membership>();
  readonly #guard = createReplayGuard();
  /** Works on their way: files may be large, and other demands do not wait for them. */
  readonly #fetching = new Map<string, Promise<void>>();
  readonly #stopping = new AbortController();
  #delivered = 0;

  constructor(options: CommitteeOptions) {
    this.#options = options;
    this.#folder = join(options.folder, 'demands');
    for (const name of existsSync(this.#folder) ? readdirSync(this.#folder) : []) {
      const [, demandId] = RECORD.exec(name) ?? [];
      if (demandId !== undefined) this.#open.set(demandId, JSON.parse(readFileSync(join(this.#folder, name), 'utf8')) as Membership);
    }
  }

  counts(): { open: number; delivered: number } {
    return { open: this.#open.size, delivered: this.#delivered };
  }

  async tend(): Promise<void> {
    await this.#learnDraws();
    for (const membership of this.#open.values()) {
      try {
        await this.#tendDemand(membership);
      } catch (error) {
        const { code, message } = toMillraceError(error);
        if (HARMLESS.has(code)) continue;
        this.#options.log.warn('demand-not-tended', { demandId: membership.demandId, code, reason: message.slice(0, 300) });
      }
    }
  }

  async #learnDraws(): Promise<void> {
    const { client, operatorId } = this.#options;
    const toBlock = await client.public.getBlockNumber({ cacheTime: 0 });
    const cursor = join(this.#folder, CURSOR);
    const fromBlock = existsSync(cursor) ? BigInt((JSON.parse(readFileSync(cursor, 'utf8')) as { block: string }).block) : undefined;
    if (fromBlock !== undefined && fromBlock > toBlock) return;
    for (const { args } of await client.events({ name: 'stateDemands', event: 'CommitteeDrawn', fromBlock, toBlock })) {
      const demandId = args.demandId.toString();
      if (args.members.includes(operatorId) && !this.#open.has(demandId)) this.#save({ demandId });
    }
    writeFileDurably(cursor, `${JSON.stringify({ block: (toBlock + 1n).toString() })}\n`);
  }

  async #tendDemand(membership: Membership): Promise<void> {
    const { client, sender, operatorId, log } = this.#options;
    const demandId = BigInt(membership.demandId);
    const demand = await client.read('stateDemands', 'demandOf', [demandId]);
    const now = await client.now();
    if (now > BigInt(demand.deliverUntil) + KEEP_SECONDS) return this.#forget(membership.demandId);
    if (demand.closed || now >= BigInt(demand.deliverUntil)) return;
    const job = await readCommittedJob(client, demand.jobId);
    if (membership.delivered === undefined) {
      if (demand.leaf === WORK_LEAF) this.#beginWork(membership, job, BigInt(demand.deliverUntil) - now);
      else await this.#takeDelivery(membership, job, demand.leaf);
    }
    const { delivered } = membership;
    if (delivered === undefined) return;
    const { leaf } = delivered;
    const signatures = await Promise.all(
      demand.members.map((member) =>
        member === operatorId ? delivered.signature : this.#askSignature(member, { demandId, leaf, jobId: demand.jobId }),
      ),
    );
    if (signatures.filter((signature) => signature !== '0x').length <= demand.members.length / 2) return;
    const args = [demandId, job.terms, job.result, leaf, leaf.proof as Hex[], signatures] as const;
    await sender.send({ contract: 'stateDemands', functionName: 'confirm', args, key: `demand/confirm/${demandId}` });
    log.info('delivery-confirmed', { demandId, leaf: leaf.index });
  }

  /** From the provider; what is not what it committed to is no delivery. */
  async #takeDelivery(membership: Membership, job: CommittedJob, index: number): Promise<void> {
    const { client, signer, log } = this.#options;
    const demandId = BigInt(membership.demandId);
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const caller = await callerOf(client, signer);
    const { spec } = await fetchWork(caller, job.provider, job.jobId, signal);
    const { leaf, state } = await takeState(job, { spec }, providerStates(caller, job), { index, signal });
    const signature = await this.#sign(demandId, job, leaf);
    writeFileDurably(join(this.#folder, `${demandId}.state`), state);
    this.#save(Object.assign(membership, { delivered: { leaf, signature } }));
    this.#delivered += 1;
    log.info('state-delivered', { demandId, leaf: index, bytes: state.length });
  }

  #beginWork(membership: Membership, job: CommittedJob, leftSeconds: bigint): void {
    const { demandId } = membership;
    if (this.#fetching.has(demandId)) return;
    const signal = AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(Number(leftSeconds) * 1000)]);
    const fetching = this.#takeWork(membership, job, signal)
      .catch((error) => {
        const { code, message } = toMillraceError(error);
        if (!this.#stopping.signal.aborted) this.#options.log.warn('work-not-delivered', { demandId, code, reason: message.slice(0, 300) });
      })
      .finally(() => this.#fetching.delete(demandId));
    this.#fetching.set(demandId, fetching);
  }

  /** Specification and files, from the provider; what was fetched of them stays for the next try. */
  async #takeWork(membership: Membership, job: CommittedJob, signal: AbortSignal): Promise<void> {
    const { client, signer, fetchContent, log } = this.#options;
    const { demandId } = membership;
    const folder = this.#workFolder(demandId);
    const spec = await takeWork(job, { caller: await callerOf(client, signer), fetchContent, folder, signal });
    const leaf: LeafProof = { index: WORK_LEAF, chainHash: zeroHash, stateHash: job.terms.specHash, proof: [] };
    const signature = await this.#sign(BigInt(demandId), job, leaf);
    writeFileDurably(join(folder, SPEC), encodeJobSpec(spec));
    this.#save(Object.assign(membership, { delivered: { leaf, signature } }));
    this.#delivered += 1;
    log.info('work-delivered', { demandId, jobId: job.jobId });
  }

  async #sign(demandId: bigint, { jobId }: CommittedJob, { index: leaf, chainHash, stateHash }: LeafProof): Promise<Hex> {
    const { client, signer } = this.#options;
    return await signer.signTypedData({
      domain: { name: 'Millrace State Demands', version: '1', chainId: client.chainId, verifyingContract: client.address('stateDemands') },
      types: { Delivered: DELIVERED_FIELDS },
      primaryType: 'Delivered',
      message: { demandId, jobId, leaf, chainHash, stateHash },
    });
  }

  #workFolder(demandId: string): string {
    return join(this.#folder, `${demandId}.work`);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#fetching.values());
  }

  /** Another member's signature of the same leaf; empty where it has none, or one that is not its own. */
  async #askSignature(member: bigint, of: { demandId: bigint; leaf: LeafProof; jobId: Hex }): Promise<Hex> {
    const { client } = this.#options;
    try {
      const peer = await peerOf(client, member);
      const response = await peerFetch(peer, `${DEMANDS_PATH}/${of.demandId}/signature`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      const bytes = await readAtMost(response.body, SIGNATURE_BYTES_MAX);
      if (response.status !== 200) return '0x';
      const { signature } = JSON.parse(bytes.toString('utf8')) as { signature: Hex };
      const digest = await client.read('stateDemands', 'deliveredDigest', [of.demandId, of.leaf]);
      return recoverAddress(digest, signature).toLowerCase() === peer.nodeKey.toLowerCase() ? signature : '0x';
    } catch {
      return '0x'; // it may have it later
    }
  }

  fetch(request: Request): Promise<Response> | undefined {
    const found = PATH.exec(new URL(request.url).pathname);
    if (found === null || request.method !== 'GET') return undefined;
    const [, demandId, part, source] = found as unknown as [string, string, string, string | undefined];
    const delivered = this.#open.get(demandId)?.delivered;
    if (delivered === undefined || (part !== 'signature' && (part === 'state') === (delivered.leaf.index === WORK_LEAF)))
      throw notDelivered(demandId);
    if (part === 'signature') return Promise.resolve(Response.json({ leaf: delivered.leaf, signature: delivered.signature }));
    return this.#handOn(request, { demandId, leaf: delivered.leaf, part, source });
  }

  /** To who demanded it, and to auditors and jurors of the job: operators with a duty in it. */
  async #handOn(
    request: Request,
    { demandId, leaf, part, source }: { demandId: string; leaf: LeafProof; part: string; source: string | undefined },
  ): Promise<Response> {
    const { client } = this.#options;
    const headers = Object.fromEntries(request.headers);
    const signed = { method: request.method, url: request.url, headers };
    const { address } = verifyRequest(signed, { recover: recoverAddress, guard: this.#guard }, { required: [JOBS_HEADER, BOX_HEADER] });
    const box = headers[BOX_HEADER] ?? '';
    const demand = await client.read('stateDemands', 'demandOf', [BigInt(demandId)]);
    const isTheirs = demand.from.toLowerCase() === address.toLowerCase() || (await this.#isDrawn(demand.jobId, address as Hex));
    if (!isTheirs || headers[JOBS_HEADER] !== jobsHeader(client) || !/^0x[0-9a-f]{64}$/.test(box)) {
      throw new MillraceError('not-a-reader', {
        actor: 'caller',
        message: `${address} may not have what was delivered for demand ${demandId}`,
        values: { demandId, address },
        hint: 'Who demanded it, and auditors and jurors of the job, may have it.',
      });
    }
    if (leaf.index === WORK_LEAF) return this.#handOnWork({ demandId, part, source, box: box as Hex });
    const state = readFileSync(join(this.#folder, `${demandId}.state`));
    const sealed = await sealBytes(packState(leaf, state), { recipient: box as Hex, context: demandContext(BigInt(demandId)) });
    return new Response(Buffer.from(sealed), { headers: { 'content-type': SEALED_TYPE, 'cache-control': 'no-store' } });
  }

  /** The specification, or one of its files. */
  #handOnWork({ demandId, part, source, box }: { demandId: string; part: string; source: string | undefined; box: Hex }): Response {
    const folder = this.#workFolder(demandId);
    const path = source === undefined ? join(folder, SPEC) : join(foldersAt(folder).contents, contentName(source));
    if (!existsSync(path)) throw notDelivered(demandId);
    const body = seal(createReadStream(path), { recipient: box, context: workContext(BigInt(demandId), part.replace('/', ' ')) });
    const stream = ReadableStream.from(body) as ReadableStream<Uint8Array>;
    return new Response(stream, { headers: { 'content-type': SEALED_TYPE, 'cache-control': 'no-store' } });
  }

  /** As an auditor of the job, or as a juror of a case about it. */
  async #isDrawn(jobId: Hex, address: Hex): Promise<boolean> {
    const { client } = this.#options;
    const operatorId = await client.read('operators', 'operatorOfNodeKey', [address]);
    if (operatorId === 0n) return false;
    const drawn = await client.events({ name: 'computeJobs', event: 'AuditorsDrawn', args: { jobId } });
    if (drawn.some(({ args }) => args.auditors.includes(operatorId))) return true;
    for (const { args } of await client.events({ name: 'jobDisputes', event: 'SegmentChallenged', args: { jobId } })) {
      const { disputeId } = await client.read('jobDisputes', 'caseOf', [args.caseId]);
      if (disputeId !== 0n && (await readJuryCase(client, disputeId)).jurors.includes(operatorId)) return true;
    }
    return false;
  }

  #save(membership: Membership): void {
    writeFileDurably(join(this.#folder, `${membership.demandId}.json`), `${JSON.stringify(membership)}\n`);
    this.#open.set(membership.demandId, membership);
  }

  #forget(demandId: string): void {
    this.#open.delete(demandId);
    for (const suffix of ['json', 'state', 'work']) rmSync(join(this.#folder, `${demandId}.${suffix}`), { recursive: true, force: true });
  }
}

function notDelivered(demandId: string): MillraceError {
  return new MillraceError('state-not-delivered', {
    actor: 'caller',
    message: `Nothing like that was delivered here for demand ${demandId}`,
    values: { demandId },
    hint: 'Ask another member of the committee.',
  });
}
