import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { bytesToHex, type Hex, zeroHash } from 'viem';
import { allowBond } from '../../src/compute/audit/bonds.ts';
import { PHASE } from '../../src/compute/jobs/job-chain.ts';
import { proveLeaf } from '../../src/compute/verify/commitment.ts';
import type { CheatJob, CheatNetwork, Watcher } from './compute-cheats-network.ts';

/**
 * How an auditor plays. `rubber-stamp`: finds everything right without looking; `liar`: finds the first segment wrong and opens a case; `copier`: seals
 * what another auditor has sealed, and shows that one's opening; `absent`: does nothing.
 */
export type Play = 'honest' | 'rubber-stamp' | 'liar' | 'copier' | 'absent';

const NO_SALT: Hex = `0x${'11'.repeat(32)}`;
const RIGHT = 1;
const WRONG = 2;

/** Plays one auditor's part in a job, badly. Gives the code with which the contract refused it, if it did. */
export async function playAuditor(
  network: CheatNetwork,
  watcher: Watcher,
  { job, play }: { job: CheatJob; play: Play },
): Promise<string | undefined> {
  const { client } = network;
  const jobs = client.address('computeJobs');
  const { jobId } = job;
  const [phase] = await client.read('computeJobs', 'phaseOf', [jobId]);
  const { auditors } = await client.read('computeJobs', 'job', [jobId]);
  const audits = await Promise.all(
    Array.from({ length: auditors }, (_, index) => client.read('auditors', 'auditOf', [jobs, jobId, index])),
  );
  const index = audits.findIndex(({ operatorId }) => operatorId === watcher.operatorId);
  const own = audits[index];
  if (own === undefined || play === 'absent') return undefined;
  const finding = play === 'liar' ? WRONG : RIGHT;
  const stateHash = play === 'liar' ? NO_SALT : zeroHash;
  const isSealed = BigInt(own.seal) !== 0n;
  if (phase === PHASE.sealing && !isSealed) {
    const copied = audits.find((audit, at) => at !== index && BigInt(audit.seal) !== 0n)?.seal;
    if (play === 'copier' && copied === undefined) return undefined;
    const seal = await client.read('auditors', 'sealOf', [jobs, jobId, watcher.operatorId, finding, 0, stateHash, NO_SALT]);
    return await refusal(
      watcher.sender.send({
        contract: 'auditors',
        functionName: 'sealAudits',
        args: [jobs, [jobId], [index], [play === 'copier' ? (copied as Hex) : seal]],
      }),
    );
  }
  if (phase === PHASE.revealing && isSealed && own.finding === 0) {
    const opening = play === 'copier' ? openingOfAnother(network, jobId, watcher) : { finding, segment: 0, stateHash, salt: NO_SALT };
    const args = [jobs, [{ jobId, index, ...opening }]] as const;
    return await refusal(watcher.sender.send({ contract: 'auditors', functionName: 'revealAudits', args }));
  }
  if (phase === PHASE.window && play === 'liar' && own.finding === WRONG) return await accuse(network, watcher, job);
  return undefined;
}

function openingOfAnother(network: CheatNetwork, jobId: Hex, watcher: Watcher) {
  for (const other of network.watchers) {
    const path = join(other.folder, 'audits', `${jobId}.json`);
    if (other === watcher || !existsSync(path)) continue;
    const { found } = JSON.parse(readFileSync(path, 'utf8')) as { found?: { salt: Hex } };
    if (found !== undefined) return { finding: RIGHT, segment: 0, stateHash: zeroHash as Hex, salt: found.salt };
  }
  return { finding: RIGHT, segment: 0, stateHash: zeroHash as Hex, salt: NO_SALT };
}

/** Challenges the first segment of a job, with the bond and the jury's fee. */
export async function accuse({ client }: CheatNetwork, { sender }: Pick<Watcher, 'sender'>, job: CheatJob): Promise<string | undefined> {
  const { openCases } = await client.read('computeJobs', 'job', [job.jobId]);
  if (openCases > 0) return undefined;
  const [{ bond }, value] = await Promise.all([client.read('jobDisputes', 'config'), client.read('jobDisputes', 'juryFee')]);
  await allowBond(client, { sender, court: 'jobDisputes', amount: bond });
  const [start, end] = [proveLeaf(job.commitment, 0), proveLeaf(job.commitment, 1)];
  const args = [job.terms, job.result, start, start.proof, end, end.proof, 'it is wrong, I say'] as const;
  return await refusal(sender.send({ contract: 'jobDisputes', functionName: 'challengeSegment', args, value, key: `liar/${job.jobId}` }));
}

/** A random word. */
export const randomWord = (): Hex => bytesToHex(randomBytes(32));

async function refusal(sending: Promise<unknown>): Promise<string | undefined> {
  try {
    await sending;
    return undefined;
  } catch (error) {
    return (error as { code: string }).code;
  }
}
