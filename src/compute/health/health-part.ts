import { join } from 'node:path';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { ProtocolClock } from '../leases/protocol-clock.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import { startChallengeEngine } from './challenge-engine.ts';
import { ClaimAgent } from './claim-agent.ts';
import { CopyWatch } from './copy-watch.ts';
import { type HealthSnapshot, healthToJson, readDevices } from './device-health.ts';
import type { Declared } from './figures.ts';
import { HealthView } from './health-view.ts';
import { HourAgent } from './hour-agent.ts';
import { Observations } from './observations.ts';
import { OwnChallenges } from './own-challenges.ts';
import { HEALTH_PATH } from './partner-calls.ts';
import { createPartnerRoutes } from './partner-routes.ts';
import { Prober } from './prober.ts';
import { SeatKeeper } from './seat-keeper.ts';
import { SeedSight } from './seed-sight.ts';

/** What a health part needs of a node. */
export type HealthContext = Pick<ComputeContext, 'client' | 'signer' | 'sender' | 'operatorId' | 'folder' | 'log'>;

/** What an owner may set. */
export interface HealthSettings {
  /** What the machine is said to be able to do, instead of a share of what is measured. Too much, and challenges are missed. */
  declared?: Declared;
  /** Between two heartbeats, milliseconds; default: sixty an hour, at most one a second. */
  beatMs?: number;
  /** Between two looks for offers that want a seat, and for rewards to claim, milliseconds; default: 10 and 15 seconds. */
  lookEveryMs?: number;
  /** Between two looks at the chain, milliseconds; default: as other roles, and a quarter of a second from shortly before each slot. */
  chainLookMs?: number;
}

const SNAPSHOT_KEPT_MS = 2000;
const REFRESH_MS = 1000;
const SLOT_LOOK_MS = 250;
const SLOT_NEAR_SECONDS = 1n;
const HOURS_MAX = 48;

/**
 * A node's part in health: takes seats for its devices on offer, answers partners, measures them, reports, proposes, disputes, claims. What was
 * measured is on disk; a node that was killed goes on with the hour that runs.
 * @throws unknown-module, chain-unreachable
 */
export async function startHealth(context: HealthContext, settings: HealthSettings = {}): Promise<ComputePart> {
  const { client, operatorId, log } = context;
  const view = await HealthView.open(client);
  const protocol = new ProtocolClock();
  const engine = startChallengeEngine();
  const observations = new Observations(join(context.folder, 'observations'));
  const challenges = new OwnChallenges({ engine, rule: view.rule, log, look: () => look() });
  const wallMs = () => Date.now();
  const line = { busy: false, hasChallenge: false };
  const sight = new SeedSight();
  const shared = { ...context, ...settings, view, protocol, challenges, observations, sight, line, wallMs };
  const prober = new Prober(shared);
  const hours = new HourAgent(shared);
  const claims = new ClaimAgent(shared);
  const copies = new CopyWatch(shared);
  const seats = new SeatKeeper({ ...shared, engine });
  const answerPartner = createPartnerRoutes(shared);
  const over = new AbortController();
  const startedAt = performance.now();

  let seen = await client.now();
  protocol.observe(seen);
  const look = once(async () => {
    const sentAtMs = performance.now();
    const block = await client.public.getBlock({ blockTag: 'latest' });
    sight.looked({ sentAtMs, answeredAtMs: performance.now(), timestamp: block.timestamp });
    protocol.observe(block.timestamp);
    if (block.timestamp > seen) seen = block.timestamp;
    await prober.onBlock(block);
  });
  let refreshedAt = Number.NEGATIVE_INFINITY;
  // Beside the blocks: a challenge that begins meanwhile must not wait for it.
  const refresh = once(async () => {
    if (performance.now() - refreshedAt < REFRESH_MS) return;
    refreshedAt = performance.now();
    await view.refresh();
  });
  // Agents wait for transactions; blocks go on being seen meanwhile, since the challenge does not wait.
  const agents = async () => {
    while (!over.signal.aborted) {
      try {
        const now = await client.now();
        // What is proposed or disputed at a time must know all that was said until then.
        await view.refresh();
        await seats.run(now, over.signal);
        await hours.run(now);
        await copies.run(now);
        await claims.run();
      } catch (error) {
        if (!over.signal.aborted) log.warn('health-agents-failed', { message: String(error) });
      }
      await pause(client.pollIntervalMs() * 5, over.signal);
    }
  };
  // A slot may have a challenge from its first block on. Looks are close together from a second before: what lies between the last one without that
  // block and the first one with it is time that this node cannot give to those whom it measures.
  const watchChain = async () => {
    const slotOf = (time: bigint) => (time - view.rule.startTime) / BigInt(view.rule.slotSeconds);
    while (!over.signal.aborted) {
      await look().catch((error) => log.warn('health-block-failed', { message: String(error) }));
      void refresh().catch((error) => log.warn('health-refresh-failed', { message: String(error) }));
      const isNear = slotOf(protocol.now() + SLOT_NEAR_SECONDS) > slotOf(seen);
      const lookMs = settings.chainLookMs ?? client.pollIntervalMs();
      await pause(isNear ? Math.min(SLOT_LOOK_MS, lookMs) : lookMs, over.signal);
    }
  };
  const watching = watchChain();
  engine.warm().catch((error) => log.warn('challenge-engine-cold', { message: String(error) }));
  prober.start();
  const working = agents();
  const show = createSnapshotKeeper(view);

  return {
    fetch(request) {
      const { pathname, searchParams } = new URL(request.url);
      if (request.method === 'GET' && pathname === HEALTH_PATH) return showSnapshot(show, searchParams.get('hours'));
      return answerPartner(request);
    },
    metrics: () =>
      [
        `millrace_compute_health_challenge_seconds ${(challenges.busyMs / 1000).toFixed(3)}`,
        `millrace_compute_health_reports ${hours.counts.reports}`,
        `millrace_compute_health_proposals ${hours.counts.proposals}`,
        `millrace_compute_health_disputes ${hours.counts.disputes}`,
        `millrace_compute_health_unmeasured_statements ${copies.found.length}`,
      ].join('\n'),
    status: async () => ({
      hour: view.hourAt(protocol.now()),
      ...hours.counts,
      challengeShare: challenges.busyMs / (performance.now() - startedAt),
      clockAheadMs: wallMs() - Number(protocol.now()) * 1000,
      unmeasured: copies.found,
      partnersClocks: partnersClocks(observations, view.hourAt(protocol.now())),
      devices: (await show(1)).devices.filter((device) => device.operatorId === operatorId),
    }),
    drain: () => seats.pause(true),
    resume: () => seats.pause(false),
    async leave() {
      seats.pause(true);
      return { seatsLeft: await seats.leaveAll() };
    },
    async stop() {
      over.abort();
      challenges.stop();
      await prober.stop();
      await engine.close();
      await Promise.allSettled([watching, working]);
      observations.close();
    },
  };
}

/** One run at a time: who asks while one runs gets that one. */
function once(run: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  return () => {
    running ??= run().finally(() => {
      running = undefined;
    });
    return running;
  };
}

/** How far partners' clocks are from this machine's, milliseconds: the middle of an hour's heartbeats, by operator. Shown; nothing depends on it. */
function partnersClocks(observations: Observations, hour: number): Record<string, number> {
  const byOperator = Map.groupBy(observations.of(hour), ({ operatorId }) => operatorId);
  return Object.fromEntries(
    [...byOperator].flatMap(([operatorId, all]) => {
      const skews = all.flatMap(({ ping }) => ping?.skewMs ?? []).sort((one, other) => one - other);
      return skews.length === 0 ? [] : [[operatorId, skews[skews.length >> 1] as number]];
    }),
  );
}

/** Reading all devices costs some calls of the chain, and anybody may ask: each answer is kept for two seconds. */
function createSnapshotKeeper(view: HealthView): (hours: number) => Promise<HealthSnapshot> {
  const kept = new Map<number, { readAt: number; snapshot: Promise<HealthSnapshot> }>();
  return (hours) => {
    const known = kept.get(hours);
    if (known !== undefined && performance.now() - known.readAt < SNAPSHOT_KEPT_MS) return known.snapshot;
    const snapshot = readDevices(view, hours);
    snapshot.catch(() => kept.delete(hours));
    kept.set(hours, { readAt: performance.now(), snapshot });
    return snapshot;
  };
}

async function showSnapshot(show: (hours: number) => Promise<HealthSnapshot>, asked: string | null): Promise<Response> {
  try {
    const hours = asked === null ? 1 : Number(asked);
    if (!Number.isSafeInteger(hours) || hours < 1 || hours > HOURS_MAX) {
      throw new MillraceError('bad-health-request', {
        actor: 'caller',
        message: `Got hours=${asked?.slice(0, 20)}, expected 1 to ${HOURS_MAX}`,
        values: { hoursMax: HOURS_MAX },
      });
    }
    return new Response(healthToJson(await show(hours)), { headers: { 'content-type': 'application/json', 'cache-control': 'no-store' } });
  } catch (error) {
    const fault = toMillraceError(error);
    return Response.json(fault.toJSON(), {
      status: fault.actor === 'caller' ? 400 : 503,
      headers: { 'content-type': 'application/problem+json' },
    });
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
