import { mkdir } from 'node:fs/promises';
import { peerFetch } from '../../connect/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import { fetchWork, type JobCaller, SEALED_TYPE } from '../jobs/job-api.ts';
import { contentBytesMax, isFileName, keepContent, missingContents, prepareContents, sourcesOf } from '../jobs/job-contents.ts';
import { foldersAt } from '../jobs/job-records.ts';
import { open, openBytes } from '../jobs/sealed-box.ts';
import type { FetchContent } from '../part.ts';
import { decodeJobSpec, type JobSpec, specHash } from '../spec/job-spec.ts';
import type { JobWork } from '../verify/work.ts';
import { deliveredWorkOf } from './demand-steps.ts';
import { bringWork, type CommittedJob, peerOf, spareBytes } from './job-case.ts';
import { DEMANDS_PATH, signedHeaders } from './member-states.ts';

/** What a job's work is brought with. */
export interface WorkPorts {
  caller: JobCaller;
  fetchContent: FetchContent;
  folder: string;
  signal: AbortSignal;
}

const SPEC_BYTES_MAX = 1 << 20;
const TIMEOUT_MS = 15_000;
/** Nobody has it, and its provider need not. */
const CONTENT_GONE = 'content-gone';

/** What a sealed part of a work that was delivered belongs to: `work`, or `contents NAME`. */
export function workContext(demandId: bigint, part: string): string {
  return `demand ${demandId} ${part}`;
}

/**
 * A job's program and inputs: from the committee where one has taken delivery of them, else from the provider; what no party hands over is in the
 * network. Called again it goes on.
 * @throws as bringWork, and work-not-handed-on
 */
export async function bringWorkFromAny(job: CommittedJob, ports: WorkPorts): Promise<JobWork> {
  const demandId = await deliveredWorkOf(ports.caller.client, job.jobId);
  if (demandId === undefined) return await bringWork(job, ports);
  try {
    return await bringFromMembers(job, { ...ports, demandId });
  } catch {
    ports.signal.throwIfAborted();
    return await bringWork(job, ports);
  }
}

/**
 * Takes delivery of a job's work for its auditors: the specification, and every file that it names by a digest. What the provider need not hand over and
 * nobody has is no fault of its.
 * @throws as bringWork, but content-gone
 */
export async function takeWork(job: CommittedJob, ports: WorkPorts): Promise<JobSpec> {
  const { spec } = await fetchWork(ports.caller, job.provider, job.jobId, ports.signal);
  await bringWork(job, ports).catch((error) => {
    if (toMillraceError(error).code !== CONTENT_GONE) throw error;
  });
  return spec;
}

/** Members that have signed have it; one that hands on nothing is passed over. */
async function bringFromMembers(job: CommittedJob, of: WorkPorts & { demandId: bigint }): Promise<JobWork> {
  const { caller, demandId, signal } = of;
  const { members } = await caller.client.read('stateDemands', 'demandOf', [demandId]);
  let last: unknown;
  for (const member of members) {
    try {
      return await bringFromMember(job, { ...of, member });
    } catch (error) {
      signal.throwIfAborted();
      last = error;
    }
  }
  throw last;
}

async function bringFromMember(job: CommittedJob, of: WorkPorts & { demandId: bigint; member: bigint }): Promise<JobWork> {
  const { caller, fetchContent, demandId, signal } = of;
  const folders = foldersAt(of.folder);
  const answer = await askMember(of, 'work');
  const sealed = await readAtMost(answer, SPEC_BYTES_MAX);
  const spec = decodeJobSpec(await openBytes(sealed, { key: caller.key, context: workContext(demandId, 'work') }));
  if (specHash(spec) !== job.terms.specHash) throw notHandedOn(of, 'what it calls the specification is another');
  const handed = sourcesOf(spec).filter(isFileName);
  await mkdir(folders.root, { recursive: true, mode: 0o700 });
  const bytesMax = Math.min(contentBytesMax(spec), await spareBytes(of.folder));
  for (const source of missingContents(handed, folders)) {
    const body = await askMember(of, `contents/${source}`);
    const bytes = open(body, { key: caller.key, context: workContext(demandId, `contents ${source}`) });
    await keepContent(bytes, { folders, source, bytesMax });
  }
  return { spec, ...(await prepareContents({ spec, handed, folders }, { fetchContent, signal, bytesMax })) };
}

async function askMember(
  { caller, demandId, member, signal }: { caller: JobCaller; demandId: bigint; member: bigint; signal: AbortSignal },
  part: string,
): Promise<ReadableStream<Uint8Array>> {
  const peer = await peerOf(caller.client, member);
  const path = `${DEMANDS_PATH}/${demandId}/${part}`;
  const headers = await signedHeaders(caller, new URL(path, peer.endpoint).href);
  const response = await peerFetch(peer, path, { headers, signal, headersTimeoutMs: TIMEOUT_MS });
  const isSealed = response.headers.get('content-type') === SEALED_TYPE;
  if (response.status === 200 && isSealed && response.body !== null) return response.body;
  await response.body?.cancel();
  throw notHandedOn({ demandId, member }, `it answered with status ${response.status}`);
}

function notHandedOn({ demandId, member }: { demandId: bigint; member: bigint }, reason: string): MillraceError {
  return new MillraceError('work-not-handed-on', {
    actor: 'peer',
    message: `Operator ${member} does not hand on the work of demand ${demandId}: ${reason}`,
    values: { member, demandId, reason },
    hint: 'Another member of the committee may have it.',
  });
}
