import { createHash, randomUUID } from 'node:crypto';
import { copyFile, mkdir, open as openFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import { type Artefact, cidOfDigest } from '../../host/index.ts';
import { withinTotal } from '../../total-time.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import { digestRun, JOB_END, type JobEnd } from '../verify/canonical-output.ts';
import { fetchFile, type JobCaller, type JobPeer, totalMsOf } from './job-api.ts';

/** What a provider says it has, and what it is held to. */
export interface ClaimedOutputs {
  jobId: Hex;
  spec: JobSpec;
  end: string;
  artefacts: readonly Artefact[];
  /** As the chain has it. */
  outputDigest: Hex;
}

const ARTEFACTS_MAX = 10_000;
const PATH = /^(?!.*(?:^|\/)\.{0,2}(?:\/|$))[^\p{Cc}\\]{1,1024}$/u;

/**
 * Fetches a job's outputs into a folder, each under its CID, and checks them: every file against its CID, all together against the digest that the
 * provider committed to on chain.
 * @throws output-differs, and the errors of peers
 */
export async function fetchOutputs(
  caller: JobCaller,
  peer: JobPeer,
  claimed: ClaimedOutputs,
  { folder, signal }: { folder: string; signal?: AbortSignal },
): Promise<void> {
  const { jobId, spec, artefacts, end, outputDigest } = claimed;
  const total = artefacts.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const isSize = (bytes: number) => Number.isSafeInteger(bytes) && bytes >= 0;
  const isPlain = artefacts.length <= ARTEFACTS_MAX && artefacts.every(({ path, sizeBytes }) => PATH.test(path) && isSize(sizeBytes));
  if (!isPlain || !JOB_END.test(end)) throw differs(jobId, 'its list of outputs is malformed');
  if (!(total <= spec.limits.diskBytes + spec.limits.outputBytes))
    throw differs(jobId, `its outputs have ${total} bytes, more than it may write`);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const artefact of artefacts) {
    await withinTotal(totalMsOf(artefact.sizeBytes), signal, (ending) =>
      fetchOne(caller, peer, { jobId, artefact, folder, signal: ending }),
    );
  }
  const got = await digestRun(spec, { end: end as JobEnd, artefacts, folder });
  if (got !== outputDigest) throw differs(jobId, `they give the digest ${got}, committed was ${outputDigest}`);
}

/** Puts fetched outputs at their paths below a folder of the caller's. */
export async function placeOutputs(artefacts: readonly Artefact[], { from, to }: { from: string; to: string }): Promise<void> {
  for (const { path, cid } of artefacts) {
    const target = join(to, path);
    await mkdir(dirname(target), { recursive: true });
    await copyFile(join(from, cid), target);
  }
}

async function fetchOne(
  caller: JobCaller,
  peer: JobPeer,
  wanted: { jobId: Hex; artefact: Artefact; folder: string; signal: AbortSignal },
): Promise<void> {
  const { jobId, artefact, folder, signal } = wanted;
  const { cid, sizeBytes } = artefact;
  const temporary = join(folder, `.${randomUUID()}`);
  const file = await openFile(temporary, 'wx', 0o600);
  try {
    const hash = createHash('sha256');
    let taken = 0;
    for await (const part of await fetchFile(caller, peer, { jobId, part: 'artefacts', name: cid, signal })) {
      taken += part.length;
      if (taken > sizeBytes) throw differs(jobId, `${artefact.path} has more than ${sizeBytes} bytes`);
      hash.update(part);
      await file.writeFile(part);
    }
    const got = cidOfDigest(hash.digest());
    if (got !== cid) throw differs(jobId, `${artefact.path} is ${got}, promised was ${cid}`);
    await rename(temporary, join(folder, cid));
  } finally {
    await file.close();
    await rm(temporary, { force: true });
  }
}

function differs(jobId: Hex, reason: string): MillraceError {
  return new MillraceError('output-differs', {
    actor: 'peer',
    message: `What the provider hands out is not the result of job ${jobId}: ${reason}`,
    values: { jobId, reason },
    hint: 'It is asked again; `millrace job show` says how the job stands on chain.',
  });
}
