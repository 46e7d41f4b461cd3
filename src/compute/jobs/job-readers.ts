import type { Address, Hex } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { readJuryCase } from '../../governance/index.ts';
import type { JobRecord } from './job-records.ts';

/** The leaf in demands for the work itself (`IStateDemands`). */
export const WORK_LEAF = 0xffff_ffff;

/** Why somebody may see something of a job. */
export type JobReader = 'renter' | 'auditor' | 'committee' | 'juror';

/** What each may see: the work itself, contents that were handed over, states, outputs and log. */
const MAY: Record<JobReader, readonly JobPart[]> = {
  renter: ['work', 'contents', 'states', 'artefacts', 'log', 'receipt'],
  auditor: ['work', 'contents', 'states'],
  committee: ['work', 'contents', 'states'],
  juror: ['work', 'contents', 'states'],
};

/** A kind of thing that is served of a job. */
export type JobPart = 'work' | 'contents' | 'states' | 'artefacts' | 'log' | 'receipt';

/**
 * Refuses who has no business with a part of a job. Auditors, committees and jurors count once they are drawn, as the chain says it.
 * @throws not-a-reader
 */
export async function requireReader(
  client: ChainClient,
  wanted: { record: JobRecord; part: JobPart; address: Address },
): Promise<JobReader> {
  const { record, part, address } = wanted;
  if (record.terms.renter.toLowerCase() === address.toLowerCase()) return 'renter';
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [address]);
  const readers: JobReader[] = [];
  if (operatorId !== 0n) {
    if (await isAuditor(client, record.jobId, operatorId)) readers.push('auditor');
    else if (await isMember(client, record.jobId, { operatorId, part })) readers.push('committee');
    else if (await isJuror(client, record.jobId, operatorId)) readers.push('juror');
  }
  const reader = readers.find((one) => MAY[one].includes(part));
  if (reader !== undefined) return reader;
  throw new MillraceError('not-a-reader', {
    actor: 'caller',
    message: `${address} may not see the ${part} of this job: it is neither its renter nor drawn for it`,
    values: { jobId: record.jobId, part, address },
    hint: 'Auditors, committees and jurors may once the chain has drawn them.',
  });
}

async function isAuditor(client: ChainClient, jobId: Hex, operatorId: bigint): Promise<boolean> {
  const { auditors } = await client.read('computeJobs', 'job', [jobId]);
  const drawn = await Promise.all(
    Array.from({ length: auditors }, (_, index) => client.read('auditors', 'auditOf', [client.address('computeJobs'), jobId, index])),
  );
  return drawn.some((audit) => audit.operatorId === operatorId);
}

/** Who takes delivery of a state needs no contents. */
async function isMember(client: ChainClient, jobId: Hex, { operatorId, part }: { operatorId: bigint; part: JobPart }): Promise<boolean> {
  const demands = await client.events({ name: 'stateDemands', event: 'StateDemanded', args: { jobId } });
  const theirs = demands.filter(({ args }) => part !== 'contents' || args.leaf === WORK_LEAF);
  const seen = await Promise.all(theirs.map(({ args }) => client.read('stateDemands', 'demandOf', [args.demandId])));
  return seen.some(({ members }) => members.includes(operatorId));
}

async function isJuror(client: ChainClient, jobId: Hex, operatorId: bigint): Promise<boolean> {
  const names = ['SegmentChallenged', 'RootChallenged'] as const;
  const opened = await Promise.all(names.map((event) => client.events({ name: 'jobDisputes', event, args: { jobId } })));
  for (const { args } of opened.flat()) {
    const { disputeId } = await client.read('jobDisputes', 'caseOf', [args.caseId]);
    if (disputeId !== 0n && (await readJuryCase(client, disputeId)).jurors.includes(operatorId)) return true;
  }
  return false;
}
