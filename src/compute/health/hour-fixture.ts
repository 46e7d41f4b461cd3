import { join } from 'node:path';
import type { ChainClient, ChainSupervisor } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { ChallengeClock } from './challenge-time.ts';
import type { HealthView, HourFigures } from './health-view.ts';
import { Observations } from './observations.ts';

/** A network whose hours a test drives. */
export interface DrivenHours {
  chain: Pick<ChainSupervisor, 'warp'>;
  client: ChainClient;
  view: HealthView;
  /** Folder that an operator's part keeps its data in; undefined for one whose node measures nothing now. */
  folderOf(operatorId: bigint): string | undefined;
  /** Protocol time that all nodes were last seen to have come to. */
  followedTo?: bigint;
}

/** Longer than any wait for machines that have much else to do. */
const PATIENCE_MS = 240_000;
const POLL_MS = 100;
/** Requests are signed for protocol time, and one from a minute ahead is refused: nobody may be left behind by more. */
const STEP_SECONDS = 40n;
/** Where a node that says nothing is not waited for. */
const FOLLOW_MS = 6000;
const LOOK_MS = 400;
/** A heartbeat is noted when it is answered. */
const BEAT_SECONDS = 2n;
/** Transfers are due by then, as a share of the hour. */
const TRANSFERS_DUE = { of: 10n, parts: 7n };
/** Seconds of protocol time from one turn of proposers to the next. */
const TURN_SECONDS = 10n;
/** Looks at the chain before the next turn. */
const TURN_LOOKS = 15;

/** Waits until something is so. @throws test-timeout after minutes */
export async function waitUntil(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (performance.now() > deadline) {
      throw new MillraceError('test-timeout', { actor: 'host', message: `Waited for ${PATIENCE_MS / 1000} s: ${what}` });
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Lets protocol time jump, whoever is left behind: what nodes ask of one another meanwhile fails, so not while something is measured. */
export async function jumpTo({ chain, client }: DrivenHours, time: bigint): Promise<void> {
  const now = await client.now();
  if (now < time) await chain.warp(Number(time - now));
}

/** Lets protocol time jump in steps that nodes can follow: each waits until all have noted something from after the one before. */
async function stepTo(hours: DrivenHours, time: bigint): Promise<void> {
  const { chain, client } = hours;
  for (let now = await client.now(); now < time; now = await client.now()) {
    const step = time - now < STEP_SECONDS ? time - now : STEP_SECONDS;
    hours.followedTo ??= now;
    if (now + step > hours.followedTo + STEP_SECONDS) await follow(hours, now);
    await chain.warp(Number(step));
  }
}

async function follow(hours: DrivenHours, now: bigint): Promise<void> {
  const { view, folderOf } = hours;
  const hour = view.hourAt(now);
  const operators = new Set(view.occupantsAt(hour).map(({ operatorId }) => operatorId));
  const deadline = performance.now() + FOLLOW_MS;
  // Who has no seat yet measures nothing; it is given time for a look.
  if (operators.size === 0) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  const isBehind = (operatorId: bigint) => {
    const folder = folderOf(operatorId);
    const noted = folder === undefined ? undefined : new Observations(join(folder, 'observations')).of(hour).at(-1);
    return folder !== undefined && (noted === undefined || BigInt(noted.at) + BEAT_SECONDS < now);
  };
  while ([...operators].some(isBehind) && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  hours.followedTo = now;
}

/** Jumps to the beginning of the next hour, waits until all nodes know of it, and gives it. */
export async function beginHour(hours: DrivenHours): Promise<number> {
  const { client, view } = hours;
  const hour = view.hourAt(await client.now()) + 1;
  await jumpTo(hours, view.startOf(hour));
  await view.refresh();
  await follow(hours, view.startOf(hour));
  return hour;
}

/**
 * Has the nodes measure the hour that runs: jumps from slot to slot until one has the challenge, waits until all have their verdicts, and where all
 * transfers are due for those. While something is measured time passes as a clock does. Nothing here waits for a number of seconds, so it holds
 * on a machine that has much else to do.
 * @returns whether all was measured before the hour was over
 */
export async function measureHour(hours: DrivenHours, hour: number): Promise<boolean> {
  const { client, view } = hours;
  const clock = new ChallengeClock(view);
  const due = view.startOf(hour) + (BigInt(view.rule.hourSeconds) * TRANSFERS_DUE.parts) / TRANSFERS_DUE.of;
  const isOver = async () => view.hourAt(await client.now()) > hour;
  const find = async () => (await clock.until(await client.public.getBlock({ blockTag: 'latest' }))).at(-1);
  const isFound = async () => (await find()) !== undefined;
  const are = async (what: 'challenge' | 'transfer') => (await unmeasured(hours, hour, what)) === 0;
  while (!(await isFound()) && !(await isOver())) {
    if ((await client.now()) >= due) {
      await waitUntil(`transfers of hour ${hour}`, async () => (await are('transfer')) || (await isFound()) || (await isOver()));
    }
    if (!(await isFound())) await stepTo(hours, nextSlot(view, hour, await client.now()));
  }
  // Who has not begun it by the end of its slot will not: it slept.
  const answeredBy = ((await find())?.time ?? 0n) + 2n * BigInt(view.rule.slotSeconds);
  const isLate = async () => (await client.now()) >= answeredBy;
  await waitUntil(`the challenge of hour ${hour} is answered`, async () => (await are('challenge')) || (await isLate()));
  const isAnswered = await are('challenge');
  if (!(await isOver())) await stepTo(hours, due);
  await waitUntil(`all transfers of hour ${hour} are made`, async () => (await are('transfer')) || (await isOver()));
  return isAnswered && !(await isOver());
}

function nextSlot(view: HealthView, hour: number, now: bigint): bigint {
  const slotSeconds = BigInt(view.rule.slotSeconds);
  return view.startOf(hour) + ((now - view.startOf(hour)) / slotSeconds + 1n) * slotSeconds;
}

/** Ends an hour and waits until every node that measured has reported it. */
export async function reportHour(hours: DrivenHours, hour: number): Promise<void> {
  const { client, view, folderOf } = hours;
  await jumpTo(hours, view.startOf(hour + 1));
  const operators = new Set(view.occupantsAt(hour).map(({ operatorId }) => operatorId));
  const until = view.startOf(hour + 1) + BigInt(view.rule.reportSeconds);
  await waitUntil(`hour ${hour} is reported`, async () => {
    await view.refresh();
    const missing = [...operators].filter(
      (operatorId) => folderOf(operatorId) !== undefined && view.report(hour, operatorId, 0) === undefined,
    );
    return missing.length === 0 || (await client.now()) >= until;
  });
}

/** Lets the report time pass, waits until somebody proposes the hour's figures, and gives them; a turn of proposers passes with each look. */
export async function proposeHour(hours: DrivenHours, hour: number): Promise<HourFigures> {
  const { view } = hours;
  await jumpTo(hours, view.startOf(hour + 1) + BigInt(view.rule.reportSeconds));
  await eachTurn(hours, `hour ${hour} is proposed`, () => view.figuresOf(hour) !== undefined);
  return view.figuresOf(hour) as HourFigures;
}

/** Lets the window of a proposed hour pass, and waits until it is final. */
export async function finishHour(hours: DrivenHours, hour: number): Promise<HourFigures> {
  const { view } = hours;
  const proposal = view.figuresOf(hour);
  if (proposal !== undefined) await jumpTo(hours, proposal.finalFrom);
  await eachTurn(hours, `hour ${hour} is final`, () => view.figuresOf(hour)?.ordinal !== undefined);
  return view.figuresOf(hour) as HourFigures;
}

async function eachTurn({ chain, view }: DrivenHours, what: string, isSo: () => boolean): Promise<void> {
  let looks = 0;
  await waitUntil(what, async () => {
    await view.refresh();
    if (isSo()) return true;
    looks += 1;
    // An agent looks about once a second; on a busy machine its turn passes, and the next one has it.
    if (looks % TURN_LOOKS === 0) await chain.warp(Number(TURN_SECONDS));
    return false;
  });
}

/** How many pairs whose word counts have not said yet what they must: the challenge's verdict, or the transfer as well. */
async function unmeasured({ view, folderOf }: DrivenHours, hour: number, what: 'challenge' | 'transfer'): Promise<number> {
  const seed = await view.seedOf(hour);
  if (seed === undefined) return Number.POSITIVE_INFINITY;
  const seen = new Map<bigint, ReturnType<Observations['of']>>();
  const measuredBy = (operatorId: bigint, folder: string) => {
    const known = seen.get(operatorId) ?? new Observations(join(folder, 'observations')).of(hour);
    seen.set(operatorId, known);
    return known;
  };
  return view.occupantsAt(hour).flatMap((device) =>
    view.partnersOf(hour, device.seat, seed).filter(({ round, partner }) => {
      const folder = folderOf(partner.operatorId);
      if (folder === undefined || folderOf(device.operatorId) === undefined) return false;
      const own = measuredBy(partner.operatorId, folder).filter((one) => one.seat === partner.seat && one.round === round);
      return !own.some((one) => one[what] !== undefined) || !own.some(({ ping }) => ping !== undefined);
    }),
  ).length;
}
