import { toMillraceError } from '../errors.ts';
import { type ComputeStart, openComputeEngines, roleOf } from './compute-role.ts';
import { wholeOf } from './compute-settings.ts';
import { contentPort } from './content-port.ts';
import type { Role } from './role.ts';

const SEATS_MAX = 64;

/**
 * Starts the role of an auditor: its operator's seats, from which jobs draw who replays parts of them, and committees that take delivery of demanded
 * states. It takes seats when it has none and has never left, for jobs whose engine this machine has; without stake for one it goes on, and says so.
 * @throws bad-compute-setting, audit-journal-broken
 */
export async function startAuditorRole(context: ComputeStart): Promise<Role> {
  const { openAuditEngines, openAuditSeats, startAuditPart } = await import('../compute/index.ts');
  const { client, log } = context;
  const wanted = wholeOf('auditorSeats', context.compute, SEATS_MAX);
  const executors = await openComputeEngines(context);
  const engines = await openAuditEngines(executors, log);
  const seats = openAuditSeats({ ...context, wanted, engines });
  await seats.begin();
  const part = await startAuditPart({ ...context, engines, fetchContent: contentPort(client) });
  const role = roleOf('auditor', new Map([['audits', part]]), async () => {
    await part.stop();
    for (const executor of executors) await executor.close();
  });
  return {
    ...role,
    status: async () => ({ ...(await part.status()), ...(await seats.standing()) }),
    drain: () => void seats.leave().catch((error) => log.warn('auditor-seats-not-left', { reason: toMillraceError(error).message })),
    resume: () => void seats.take(),
    leave: async () => ({ seatsLeft: await seats.leave(), ...(await part.leave()) }),
  };
}
