import type { Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { eventArgs } from '../../token/index.ts';
import { openedNodes, shownLeaves } from '../verify/bisection.ts';
import type { Commitment } from '../verify/commitment.ts';
import { allowBond } from './bonds.ts';
import { readCommittedJob } from './job-case.ts';

/** Who moves in disputes over roots: an operator that defends its commitments, or who challenges with commitments of its own. */
export interface CaseAgentOptions {
  client: ChainClient;
  /** The operator's node key, or the challenger's. */
  sender: Sender;
  /** The operator that is defended; undefined for a challenger. */
  operatorId?: bigint;
  /** The own commitment to a job; undefined where there is none. */
  commitmentOf(jobId: Hex): Promise<Commitment | undefined> | Commitment | undefined;
  log: Logger;
}

/** `IJobDisputes.State`. */
const STATE = { none: 0, operatorOpens: 1, challengerOpens: 2, operatorShows: 3, waiting: 4, judged: 5, closed: 6 } as const;
const HARMLESS: ReadonlySet<string> = new Set(['wrong-state', 'move-too-late', 'move-still-open', 'already-before-jury', 'no-jury']);

/** An agent that makes every move that is its own, in time. */
export interface CaseAgent {
  /** Makes the moves that are due now, and ends cases whose other side has let its time pass. Safe to repeat. */
  tend(): Promise<void>;
}

/** Opens the agent; it looks at every case on chain that names it. */
export function openCaseAgent(options: CaseAgentOptions): CaseAgent {
  const over = new Set<bigint>();
  return {
    async tend() {
      const count = await options.client.read('jobDisputes', 'caseCount');
      for (let caseId = 1n; caseId <= count; caseId += 1n) {
        if (over.has(caseId)) continue;
        try {
          if (await tendCase(options, caseId)) over.add(caseId);
        } catch (error) {
          const { code, message } = toMillraceError(error);
          if (!HARMLESS.has(code)) options.log.warn('case-not-tended', { caseId, code, reason: message.slice(0, 300) });
        }
      }
    },
  };
}

/**
 * Challenges a result with a commitment of one's own to the same job.
 * @returns the case
 * @throws bond-missing, not-yours, same-root, wrong-phase
 */
export async function challengeRoot(client: ChainClient, of: { sender: Sender; jobId: Hex; root: Hex; key?: string }): Promise<bigint> {
  const { sender, jobId, root, key } = of;
  const { terms, result } = await readCommittedJob(client, jobId);
  const [{ bond }, value] = await Promise.all([client.read('jobDisputes', 'config'), client.read('jobDisputes', 'juryFee')]);
  await allowBond(client, { sender, court: 'jobDisputes', amount: bond });
  const args = [terms, result, root] as const;
  return eventArgs(
    await sender.send({ contract: 'jobDisputes', functionName: 'challengeRoot', args, value, key }),
    'jobDisputes',
    'RootChallenged',
  ).caseId;
}

/** @returns whether nothing is to be done in this case any more */
async function tendCase(options: CaseAgentOptions, caseId: bigint): Promise<boolean> {
  const { client, sender, operatorId } = options;
  const seen = await client.read('jobDisputes', 'caseOf', [caseId]);
  const isOperator = seen.operatorId === operatorId;
  const isChallenger = seen.challenger.toLowerCase() === sender.address.toLowerCase();
  if (seen.state === STATE.closed || !(isOperator || isChallenger)) return true;
  if (seen.state === STATE.judged) return false;
  const isTimeOut = (await client.now()) >= BigInt(seen.moveUntil);
  const isOwnMove = seen.state === STATE.challengerOpens ? isChallenger : isOperator;
  if (isTimeOut) {
    // Who let its own time pass gains nothing by ending the case.
    if (!isOwnMove || seen.state === STATE.waiting) await sender.send({ contract: 'jobDisputes', functionName: 'expire', args: [caseId] });
    return false;
  }
  if (seen.state === STATE.waiting) await sender.send({ contract: 'jobDisputes', functionName: 'callJury', args: [caseId] });
  else if (isOwnMove) await move(options, caseId, seen);
  return false;
}

async function move(
  { client, sender, commitmentOf, log }: CaseAgentOptions,
  caseId: bigint,
  seen: { jobId: Hex; state: number; depth: number; index: number },
): Promise<void> {
  const commitment = await commitmentOf(seen.jobId);
  if (commitment === undefined)
    return log.error('case-without-commitment', { caseId, jobId: seen.jobId, effect: 'the case is lost when its time is out' });
  const key = `case/${caseId}/${seen.state}/${seen.depth}`;
  if (seen.state === STATE.operatorOpens) {
    const args = [caseId, openedNodes(commitment, seen)] as const;
    await sender.send({ contract: 'jobDisputes', functionName: 'openNode', args, key });
  } else if (seen.state === STATE.challengerOpens) {
    const opened = await client.events({ name: 'jobDisputes', event: 'NodeOpened', args: { caseId } });
    const theirs = opened.findLast(({ args }) => args.byOperator && args.depth === seen.depth);
    const args = [caseId, openedNodes(commitment, seen), theirs?.args.children ?? []] as const;
    await sender.send({ contract: 'jobDisputes', functionName: 'openOwnNode', args, key });
  } else {
    const { terms, result } = await readCommittedJob(client, seen.jobId);
    const { start, end } = shownLeaves(commitment, seen.index);
    const args = [caseId, terms, result, start, start.proof, end, end.proof] as const;
    await sender.send({ contract: 'jobDisputes', functionName: 'show', args, key });
  }
  log.info('case-move', { caseId, state: seen.state, depth: seen.depth, index: seen.index });
}
