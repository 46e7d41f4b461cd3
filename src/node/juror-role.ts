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
  close(): Promise<void>;
}

const NO_BENCH: Bench = { judges: [], close: async () => {} };

/**
 * Starts the role of a juror: its operator's seats at the jury of all networks. It judges the disputes of every contract that it has a judge for by
 * looking at the matter itself, and votes in no other. Without stake for a seat it goes on, and says so.
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
  const { seats, unlocksAt } = await standing();
  // Who has left, or lost a seat, comes back by command only.
  if (seats === 0 && unlocksAt === undefined) await takeSeats(jurorSeats);
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
  return { judges: [judge], close: () => engines.close() };
}

/** Whether a segment of a job was computed as its specification says. A machine that does not calculate as all do judges none; of a job whose
 * engine it lacks it judges nothing. */
async function openJobBench(context: JurorStart): Promise<Bench> {
  const { client, signer, folder, log } = context;
  if (client.manifest.modules.jobDisputes === undefined) return NO_BENCH;
  const { enginesForStrangers, segmentJudge } = await import('../compute/index.ts');
  const { StrictEngine } = await import('../host/index.ts');
  try {
    const strict = await StrictEngine.open();
    const opened = await openComputeEngines(context);
    const executors = await enginesForStrangers(opened, log);
    const ports = { client, signer, folder: join(folder, 'segments'), fetchContent: contentPort(client), log };
    return {
      judges: [segmentJudge({ ...ports, engines: { strict, executors } })],
      close: async () => void (await Promise.all(opened.map((each) => each.close()))),
    };
  } catch (error) {
    log.error('segments-not-judged', { reason: toMillraceError(error).message.slice(0, 300) });
    return NO_BENCH;
  }
}
