import type { Hex } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { WORK_LEAF } from '../jobs/job-readers.ts';
import { type Commitment, proveLeaf } from '../verify/commitment.ts';
import { readCommittedJob } from './job-case.ts';

/** Whose states may be demanded, and where they are. */
export interface DelivererOptions {
  client: ChainClient;
  /** The operator's node key. */
  sender: Sender;
  operatorId: bigint;
  commitmentOf(jobId: Hex): Commitment | undefined;
  /** A state as it is handed over. */
  stateOf(jobId: Hex, leaf: number): Promise<Uint8Array>;
  log: Logger;
}

/** An agent that brings states on the chain itself where a committee does not confirm their delivery. */
export interface Deliverer {
  /** Looks at the demands that are open. Safe to repeat. */
  tend(): Promise<void>;
}

/** The part of the time to deliver that a committee has before the state goes on chain, which costs much more. */
const COMMITTEE_PARTS = 2n;
const HARMLESS: ReadonlySet<string> = new Set(['demand-closed', 'demand-too-late']);

/**
 * Opens the agent. Committees fetch states by themselves; one that lies about it cannot convict an operator whose state fits on the chain
 * (`stateBytesMax` of `StateDemands`). A larger one rests on the committee's majority.
 */
export function openDeliverer(options: DelivererOptions): Deliverer {
  const { client, operatorId, log } = options;
  const over = new Set<bigint>();
  return {
    async tend() {
      const count = await client.read('stateDemands', 'demandCount');
      for (let demandId = 1n; demandId <= count; demandId += 1n) {
        if (over.has(demandId)) continue;
        const demand = await client.read('stateDemands', 'demandOf', [demandId]);
        // The work fits into no transaction.
        if (demand.closed || demand.operatorId !== operatorId || demand.leaf === WORK_LEAF) over.add(demandId);
        else if (demand.deliverUntil !== 0) await deliver(options, { demandId, ...demand }).catch((error) => refused(error, demandId));
      }
    },
  };
  function refused(error: unknown, demandId: bigint): void {
    const { code, message } = toMillraceError(error);
    if (!HARMLESS.has(code)) log.warn('state-not-delivered-on-chain', { demandId, code, reason: message.slice(0, 300) });
  }
}

async function deliver(
  { client, sender, commitmentOf, stateOf, log }: DelivererOptions,
  demand: { demandId: bigint; jobId: Hex; leaf: number; deliverUntil: number },
): Promise<void> {
  const { demandId, jobId, leaf: index } = demand;
  const { deliverSeconds, stateBytesMax } = await client.read('stateDemands', 'config');
  const left = BigInt(demand.deliverUntil) - (await client.now());
  if (left <= 0n || left > BigInt(deliverSeconds) / COMMITTEE_PARTS) return;
  const commitment = commitmentOf(jobId);
  if (commitment === undefined) return;
  const state = await stateOf(jobId, index);
  if (state.length > stateBytesMax) return;
  const { terms, result } = await readCommittedJob(client, jobId);
  const leaf = proveLeaf(commitment, index);
  const args = [demandId, terms, result, leaf, leaf.proof, `0x${Buffer.from(state).toString('hex')}`] as const;
  await sender.send({ contract: 'stateDemands', functionName: 'deliver', args, key: `demand/deliver/${demandId}` });
  log.warn('state-delivered-on-chain', { demandId, leaf: index, bytes: state.length });
}
