import type { Hex } from 'viem';
import { type ChainClient, fixSeed, type Sender } from '../../chain/index.ts';
import { eventArgs } from '../../token/index.ts';
import { WORK_LEAF } from '../jobs/job-readers.ts';
import { allowBond } from './bonds.ts';
import type { CommittedJob } from './job-case.ts';

/** Who demands. */
interface Demanding {
  client: ChainClient;
  sender: Sender;
}

/** Draws the committee of an open demand, and ends it when its time is over. Safe to repeat. @throws what the contracts refuse, as too-few-members */
export async function pushDemand({ client, sender }: Demanding, demandId: bigint): Promise<void> {
  const { closed, seedTime, deliverUntil } = await client.read('stateDemands', 'demandOf', [demandId]);
  if (closed) return;
  const { drawSeconds } = await client.read('stateDemands', 'config');
  const until = deliverUntil === 0 ? BigInt(seedTime) + BigInt(drawSeconds) : BigInt(deliverUntil);
  if ((await client.now()) >= until) {
    await sender.send({ contract: 'stateDemands', functionName: 'expire', args: [demandId] });
  } else if (deliverUntil === 0 && (await fixSeed(client, { sender, time: BigInt(seedTime) }))) {
    await sender.send({ contract: 'stateDemands', functionName: 'drawMembers', args: [demandId] });
  }
}

/**
 * Demands the work of a job of which the sender is an auditor: without a bond, for the fee of the committee.
 * @throws bond-missing, work-is-demanded, and what the contracts refuse
 */
export async function demandWork({ client, sender }: Demanding, { terms, result }: CommittedJob): Promise<bigint> {
  const { fee, members } = await client.read('stateDemands', 'config');
  await allowBond(client, { sender, court: 'stateDemands', amount: fee * BigInt(members) });
  const args = [terms, result, WORK_LEAF] as const;
  // Without a key: one that no committee could be drawn for is made again, and of two at one time the contract refuses the second.
  const receipt = await sender.send({ contract: 'stateDemands', functionName: 'demand', args });
  return eventArgs(receipt, 'stateDemands', 'StateDemanded').demandId;
}

/** The demand for a job's work, by whichever of its auditors; undefined where there is none, or none that a committee could be drawn for. */
export async function workDemandOf(client: ChainClient, jobId: Hex): Promise<bigint | undefined> {
  const demandId = await client.read('stateDemands', 'workDemandOf', [jobId]);
  return demandId === 0n ? undefined : demandId;
}

/** The demand whose committee has taken delivery of a job's work; undefined while there is none. */
export async function deliveredWorkOf(client: ChainClient, jobId: Hex): Promise<bigint | undefined> {
  const demandId = await workDemandOf(client, jobId);
  if (demandId === undefined) return undefined;
  const [delivered] = await client.events({ name: 'stateDemands', event: 'StateDelivered', args: { demandId } });
  return delivered === undefined ? undefined : demandId;
}
