import type { Hex } from 'viem';
import type { ChainClient } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { askControl } from '../node/index.ts';
import { formatDuration, parseDuration } from '../units.ts';
import type { CommandContext } from './context.ts';
import { openSession } from './session.ts';

const POLL_MS = 50;
/** A year; every period of it is proven, so it takes long. */
const WARP_SECONDS_MAX = 31_536_000n;
/** How long a provider that proved lately is waited for (a duty that failed looks again within 15 s), and one that did not. */
const PATIENCE_MS = 20_000;
const IMPATIENCE_MS = 1_500;
/** How long one that missed a period is waited for at the start of the next. */
const MENDING_MS = 10_000;
/** A table that has not changed for so long is taken for finished: its provider declares one loss right after the other. */
const STANDSTILL_MS = 1_000;

/**
 * Moves the chain's time forward period by period: to each seed, then waits until the providers have proven, then on. So a day of
 * proofs, payments, misses and slashes happens in a minute, as it would in a day.
 */
export async function warp(context: CommandContext, text: string): Promise<void> {
  const session = await openSession(context);
  if (session.manifest.profile !== 'dev') {
    throw new MillraceError('warp-needs-dev', {
      actor: 'caller',
      message: `The network has profile ${session.manifest.profile}; time is moved in profile dev only`,
    });
  }
  const seconds = BigInt(parseDuration(text));
  if (seconds > WARP_SECONDS_MAX) {
    throw new MillraceError('bad-duration', {
      actor: 'caller',
      message: `Got a duration of ${text}, expected at most ${formatDuration(Number(WARP_SECONDS_MAX))} at once`,
      values: { got: text, secondsMax: WARP_SECONDS_MAX },
      hint: 'Every period on the way is proven, one after another; warp in smaller steps.',
    });
  }
  const progress = context.output.progress('Warping');
  const from = await session.client.now();
  const result = await warpBy(session.client, seconds, {
    signal: context.signal,
    jump: (by) => askControl(session.folder.controlSocket, 'warp', { arguments: { seconds: Number(by) } }),
    onPeriod: (now, period) => progress.update(Number(now - from), Number(seconds), `period ${period}`),
  });
  progress.end();
  context.output.result(
    { from, to: result.now, periods: result.periods, proofs: result.proofs, misses: result.misses },
    () =>
      `Moved ${formatDuration(Number(result.now - from))}: ${result.periods} periods, ${result.proofs} proofs, ${result.misses} misses.`,
  );
}

/**
 * Moves time by `seconds` through every period, waiting for the proofs of each. Whoever missed a period is waited for at the start of
 * the next one, too: before the freeze it takes out of its table what it lost, for which it has minutes where time is not moved.
 */
export async function warpBy(
  client: ChainClient,
  seconds: bigint,
  ports: { jump: (seconds: bigint) => Promise<unknown>; signal: AbortSignal; onPeriod?: (now: bigint, period: bigint) => void },
): Promise<{ now: bigint; periods: number; proofs: number; misses: number }> {
  const target = (await client.now()) + seconds;
  const count = { periods: 0, proofs: 0, misses: 0 };
  const late = new Set<bigint>();
  const jumpTo = async (time: bigint) => {
    const now = await client.now();
    if (time > now) await ports.jump(time - now);
  };
  for (;;) {
    ports.signal.throwIfAborted();
    const now = await client.now();
    if (now >= target) return { now, ...count };
    const period = await client.read('possession', 'periodAt', [now]);
    ports.onPeriod?.(now, period);
    const seedTime = await client.read('possession', 'seedTime', [period]);
    const end = await client.read('possession', 'periodStart', [period + 1n]);
    if (target < seedTime) {
      await jumpTo(target);
      continue;
    }
    await jumpTo(seedTime);
    // The history knows the seed's block from the next one on; nobody waits here for the idle block.
    await ports.jump(1n);
    const { proven, missing } = await untilProven(client, period, late, ports.signal);
    count.periods += 1;
    count.proofs += proven;
    count.misses += missing.length;
    if (target < end) {
      for (const operatorId of missing) late.add(operatorId);
      await jumpTo(target);
      continue;
    }
    const before = await Promise.all(missing.map((operatorId) => client.read('possession', 'table', [operatorId])));
    await jumpTo(end);
    const silent = await untilMended(
      client,
      missing.map((operatorId, index) => ({ operatorId, root: before[index]?.root as Hex, isLate: late.has(operatorId) })),
      ports.signal,
    );
    late.clear();
    for (const operatorId of silent) late.add(operatorId);
  }
}

/** Waits until the tables of these operators have changed and stand still, or patience is over; gives those that changed nothing. */
async function untilMended(
  client: ChainClient,
  missing: readonly { operatorId: bigint; root: Hex; isLate: boolean }[],
  signal: AbortSignal,
): Promise<bigint[]> {
  const outcomes = missing.map(async ({ operatorId, root, isLate }) => {
    let [last, changedAt] = [root, performance.now()];
    const patience = isLate ? IMPATIENCE_MS : MENDING_MS;
    while (performance.now() - changedAt < (last === root ? patience : STANDSTILL_MS)) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const now = await client.read('possession', 'table', [operatorId]);
      if (now.root !== last) [last, changedAt] = [now.root, performance.now()];
    }
    return last === root ? [operatorId] : [];
  });
  return (await Promise.all(outcomes)).flat();
}

/** Waits until every provider with data has proven the period, or its patience is over. */
async function untilProven(
  client: ChainClient,
  period: bigint,
  late: ReadonlySet<bigint>,
  signal: AbortSignal,
): Promise<{ proven: number; missing: bigint[] }> {
  const startedAt = performance.now();
  const operators = await client.read('operators', 'operatorCount');
  const duty: bigint[] = [];
  for (let operatorId = 1n; operatorId <= operators; operatorId += 1n) {
    const [table, standing] = await Promise.all([
      client.read('possession', 'tableOf', [operatorId, period]),
      client.read('possession', 'standing', [operatorId]),
    ]);
    if (table.leaves > 0n && standing.restartedAt >= standing.failedAt) duty.push(operatorId);
  }
  const open = new Set(duty);
  for (;;) {
    signal.throwIfAborted();
    for (const operatorId of [...open]) {
      const standing = await client.read('possession', 'standing', [operatorId]);
      const patience = late.has(operatorId) ? IMPATIENCE_MS : PATIENCE_MS;
      if (standing.provenThrough > period) open.delete(operatorId);
      else if (performance.now() - startedAt > patience) break;
    }
    const waited = performance.now() - startedAt;
    const stillWanted = [...open].some((operatorId) => waited <= (late.has(operatorId) ? IMPATIENCE_MS : PATIENCE_MS));
    if (!stillWanted) return { proven: duty.length - open.size, missing: [...open] };
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
