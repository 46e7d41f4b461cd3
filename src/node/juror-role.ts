import { join } from 'node:path';
import { toMillraceError } from '../errors.ts';
import type { Judge } from '../governance/index.ts';
import { openComputeEngines } from './compute-role.ts';
import { type ComputeSettings, wholeOf } from './compute-settings.ts';
import { contentPort } from './content-port.ts';
import type { MinerStart } from './miner-role.ts';
import { metricLines } from './relay-role.ts';
import type { Role } from './role.ts';

/** What the juror role is given besides its context. */
export type JurorStart = MinerStart & {
  /** Seats that it takes when it starts and has never held any (`jurorSeats`). */
  compute?: ComputeSettings;
};

/** Of one operator, by the jury's rules. */
const SEATS_MAX = 64;

/** What it can judge, and what must be closed after it. */
interface Bench {
  judges: Judge[];
  /** Engines that jobs of this network are audited with, and that are not here: votes on such jobs could not be cast. */
  lacks(): Promise<string[]>;
  close(): Promise<void>;
}

const NO_BENCH: Bench = { judges: [], lacks: async () => [], close: async () => {} };
/** Between looks at what this network's jobs are audited with. */
const REVIEW_MS = 10 * 60_000;

/**
 * Starts the role of a juror: its operator's seats at the jury of all networks. It judges the disputes of every contract that it has a judge for by
 * looking at the matter itself, and votes in no other. The jury draws for all disputes alike, so while jobs are audited here that this machine
 * cannot run again it holds no seats: silence would cost it stake. Without stake for a seat it goes on, and says so.
 * @throws vote-journal-broken, bad-compute-setting
 */
export async function startJurorRole(context: JurorStart): Promise<Role> {
  const { enrolJuror, leaveJury, openJuror, readJurorStanding } = await import('../governance/index.ts');
  const { client, sender, operatorId, folder, log } = context;
  const bench = await openBench(context);
  const juror = openJuror({ client, sender, operatorId, folder, judges: bench.judges, log });
  const standing = () => readJurorStanding(client, operatorId);
  const attempt = async (event: string, act: () => Promise<unknown>) => {
    try {
      await act();
    } catch (error) {
      const { code, message } = toMillraceError(error);
      log.warn(event, { operatorId, code, reason: message.slice(0, 300) });
    }
  };
  const takeSeats = (wanted: number) =>
    attempt('seats-not-taken', async () => {
      const { seats } = await standing();
      if (seats < wanted) await enrolJuror({ sender, operatorId }, wanted - seats);
    });
  const leaveSeats = async () => {
    const { seats } = await standing();
    if (seats > 0) await leaveJury(client, { sender, operatorId });
    return seats;
  };
  const jurorSeats = wholeOf('jurorSeats', context.compute, SEATS_MAX);
  const review = async () => {
    const { seats, unlocksAt } = await standing();
    const lacks = await bench.lacks();
    if (lacks.length > 0) {
      log.error('juror-lacks-engines', {
        lacks: lacks.join(),
        effect: 'it holds no seats',
        fix: 'see the engines above, then millrace juror enrol',
      });
      if (seats > 0) await leaveSeats();
    } else if (seats === 0 && unlocksAt === undefined) {
      // Who has left, or lost a seat, comes back by command only.
      await takeSeats(jurorSeats);
    }
  };
  await attempt('seats-not-reviewed', review);
  const reviewing = setInterval(() => void attempt('seats-not-reviewed', review), REVIEW_MS);
  const over = new AbortController();
  const running = juror
    .run(over.signal)
    .catch((error) => log.error('juror-ended', { reason: toMillraceError(error).message.slice(0, 300) }));
  return {
    name: 'juror',
    fetch: () => undefined,
    async metrics() {
      const { open, committed, revealed, unanswered } = juror.record();
      const counts = { millrace_juror_disputes_count: open, millrace_juror_unanswered_count: unanswered };
      return metricLines({ ...counts, millrace_juror_commits_total: committed, millrace_juror_reveals_total: revealed }, operatorId);
    },
    status: async () => ({ ...(await standing()), ...juror.record(), judges: bench.judges.map(({ arbitrable }) => arbitrable) }),
    drain: () => void attempt('seats-not-left', leaveSeats),
    resume: () => void takeSeats(jurorSeats),
    leave: async () => ({ seatsLeft: await leaveSeats(), ...(await standing()) }),
    async stop() {
      clearInterval(reviewing);
      over.abort();
      await running;
      await bench.close();
    },
  };
}

/** One judge for each contract of this network that asks the jury and whose questions can be answered here. */
async function openBench(context: JurorStart): Promise<Bench> {
  const benches = [await openReceiptBench(context), await openJobBench(context)];
  return {
    judges: benches.flatMap(({ judges }) => judges),
    lacks: async () => (await Promise.all(benches.map((bench) => bench.lacks()))).flat(),
    close: async () => void (await Promise.all(benches.map((bench) => bench.close()))),
  };
}

/** Whether a receipt of a model lies. */
async function openReceiptBench({ client, dataFolder, log }: JurorStart): Promise<Bench> {
  const { hasReceiptCourt, openEngineSet, receiptJudge, textProgram } = await import('../inference/index.ts');
  if (!hasReceiptCourt(client)) return NO_BENCH;
  const engines = openEngineSet({ dataFolder, programs: [textProgram()], fetchFolder: contentPort(client), logger: log });
  const cards = engines.cards();
  const judge = receiptJudge({
    client,
    modelOf(root) {
      const card = cards.find((one) => one.root === root);
      return card === undefined ? undefined : { engine: engines.engine(card.id) };
    },
    log,
  });
  return { ...NO_BENCH, judges: [judge], close: () => engines.close() };
}

/** Whether a segment of a job was computed as its specification says. */
async function openJobBench(context: JurorStart): Promise<Bench> {
  const { client, signer, folder, log } = context;
  if (client.manifest.modules.jobDisputes === undefined) return NO_BENCH;
  const { auditedElsewhere, openAuditEngines, segmentJudge } = await import('../compute/index.ts');
  const opened = await openComputeEngines(context);
  const engines = await openAuditEngines(opened, log);
  const ports = { client, signer, folder: join(folder, 'segments'), fetchContent: contentPort(client), log };
  return {
    judges: [segmentJudge({ ...ports, engines })],
    lacks: () => auditedElsewhere(client, engines),
    close: async () => void (await Promise.all(opened.map((each) => each.close()))),
  };
}
