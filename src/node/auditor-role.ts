import { toMillraceError } from '../errors.ts';
import { type ComputeStart, openComputeEngines, roleOf } from './compute-role.ts';
import { wholeOf } from './compute-settings.ts';
import { contentPort } from './content-port.ts';
import type { Role } from './role.ts';

const SEATS_MAX = 64;

/**
 * Starts the role of an auditor: its operator's seats, from which jobs draw who replays parts of them, and committees that take delivery of demanded
 * states. It takes seats when it has none and has never left; without stake for one it goes on, and says so.
 * @throws bad-compute-setting, strict-engine-unfit, audit-journal-broken
 */
export async function startAuditorRole(context: ComputeStart): Promise<Role> {
  const { createCapacity, startAuditPart } = await import('../compute/index.ts');
  const { client, sender, operatorId, log } = context;
  const wanted = wholeOf('auditorSeats', context.compute, SEATS_MAX);
  const standing = () => client.read('auditors', 'auditor', [operatorId]);
  const takeSeats = async () => {
    try {
      const { seats } = await standing();
      if (seats >= wanted) return;
      await sender.send({ contract: 'auditors', functionName: 'enrol', args: [operatorId, wanted - seats] });
      log.info('auditor-enrolled', { operatorId, seats: wanted });
    } catch (error) {
      const { code, message } = toMillraceError(error);
      log.warn('auditor-seats-not-taken', { operatorId, code, reason: message.slice(0, 300) });
    }
  };
  const leaveSeats = async (): Promise<number> => {
    const { seats } = await standing();
    if (seats > 0) await sender.send({ contract: 'auditors', functionName: 'leave', args: [operatorId, seats] });
    return seats;
  };
  const { seats, unlocksAt } = await standing();
  // Who has left, or lost a seat, comes back by command only.
  if (seats === 0 && unlocksAt === 0) await takeSeats();
  const executors = await openComputeEngines(context);
  const none = { cpus: 0, memoryBytes: 0, diskBytes: 0, processes: 0 };
  const part = await startAuditPart({ ...context, executors, fetchContent: contentPort(client), capacity: createCapacity(none) });
  const role = roleOf('auditor', new Map([['audits', part]]), async () => {
    await part.stop();
    for (const executor of executors) await executor.close();
  });
  return {
    ...role,
    status: async () => ({ ...(await part.status()), seats: (await standing()).seats }),
    drain: () => void leaveSeats().catch((error) => log.warn('auditor-seats-not-left', { reason: toMillraceError(error).message })),
    resume: () => void takeSeats(),
    leave: async () => ({ seatsLeft: await leaveSeats(), ...(await part.leave()) }),
  };
}
