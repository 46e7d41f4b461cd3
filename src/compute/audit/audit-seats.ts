import type { ChainClient, Sender } from '../../chain/index.ts';
import { toMillraceError } from '../../errors.ts';
import type { Executor } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import { auditableHere, ENGINE_NUMBER, enginesForStrangers, type JobEngine, type JobEngines, openStrictEngine } from '../verify/engines.ts';

/** Whose seats they are, and how many it wants. */
export interface AuditSeatsOptions {
  client: ChainClient;
  /** The node key's. */
  sender: Sender;
  operatorId: bigint;
  /** Seats that it takes; each locks stake. */
  wanted: number;
  engines: JobEngines;
  log: Logger;
}

/** An operator's seats as auditor, as the chain has them. */
export interface AuditSeats {
  /** At the start of a node: takes seats where it never had any, and lets those that it holds be for the engines that are here now. */
  begin(): Promise<void>;
  /** Takes the seats that are wanting. */
  take(): Promise<void>;
  /** Leaves all; audits that were drawn stay its duty. @returns seats left */
  leave(): Promise<number>;
  standing(): Promise<{ seats: number; engines: JobEngine[] }>;
}

/** What runs jobs again on this machine; what hinders an engine is logged with its remedy. */
export async function openAuditEngines(executors: readonly Executor[], log: Logger): Promise<JobEngines> {
  const [strict, able] = await Promise.all([openStrictEngine(log, 'no seat is for strict jobs'), enginesForStrangers(executors, log)]);
  return { strict, executors: able };
}

/**
 * The seats of an auditor. They are for jobs that this machine can run again: of others none is drawn for it, so it never owes an audit that it could
 * only be silent about.
 */
export function openAuditSeats(options: AuditSeatsOptions): AuditSeats {
  const { client, sender, operatorId, wanted, log } = options;
  const here = auditableHere(options.engines);
  const mask = maskOf(here);
  const read = () => client.read('auditors', 'auditor', [operatorId]);
  const attempt = async (act: () => Promise<void>) => {
    try {
      await act();
    } catch (error) {
      const { code, message } = toMillraceError(error);
      log.warn('auditor-seats-not-taken', { operatorId, code, reason: message.slice(0, 300) });
    }
  };
  const leave = async () => {
    const { seats } = await read();
    if (seats > 0) await sender.send({ contract: 'auditors', functionName: 'leave', args: [operatorId, seats] });
    return seats;
  };
  const change = async () => {
    const { seats, engines } = await read();
    if (seats === 0 || engines === mask) return;
    if (mask === 0) await leave();
    else await sender.send({ contract: 'auditors', functionName: 'changeEngines', args: [operatorId, mask] });
    log.warn('auditor-engines-changed', { operatorId, before: kindsOf(engines).join(), now: here.join() });
  };
  const take = () =>
    attempt(async () => {
      await change();
      const { seats } = await read();
      if (seats >= wanted || mask === 0) return;
      await sender.send({ contract: 'auditors', functionName: 'enrol', args: [operatorId, wanted - seats, mask] });
      log.info('auditor-enrolled', { operatorId, seats: wanted, engines: here.join() });
    });
  return {
    async begin() {
      const { seats, unlocksAt } = await read();
      // Who has left, or lost a seat, comes back by command only.
      if (seats === 0 && unlocksAt === 0) await take();
      else await attempt(change);
    },
    take,
    leave,
    async standing() {
      const { seats, engines } = await read();
      return { seats, engines: seats === 0 ? [] : kindsOf(engines) };
    },
  };
}

/** Engines that are not here, and that enough auditors have for jobs of this network to be audited with them: disputes may need them too. */
export async function auditedElsewhere(client: ChainClient, engines: JobEngines): Promise<JobEngine[]> {
  const here = auditableHere(engines);
  const missing = (['strict', 'module', 'image'] as const).filter((kind) => !here.includes(kind));
  const { auditorsMin } = await client.read('jobRules', 'config');
  const counts = await Promise.all(missing.map((kind) => client.read('auditors', 'auditorCount', [ENGINE_NUMBER[kind]])));
  return missing.filter((_, at) => (counts[at] ?? 0n) >= BigInt(auditorsMin));
}

/** Bit n stands for engine n (`IAuditors.enrol`). */
function maskOf(kinds: readonly JobEngine[]): number {
  return kinds.reduce((mask, kind) => mask | (1 << ENGINE_NUMBER[kind]), 0);
}

function kindsOf(mask: number): JobEngine[] {
  return (Object.keys(ENGINE_NUMBER) as JobEngine[]).filter((kind) => (mask >> ENGINE_NUMBER[kind]) & 1);
}
