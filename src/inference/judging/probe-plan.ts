import { createHash } from 'node:crypto';
import { type CorpusRequest, type CorpusSession, jitterGap, type ProbeCorpus, sentencesOf, varyRequest } from './probe-corpus.ts';
import { secretRandom } from './secret-random.ts';
import { WHOLE } from './text-distance.ts';

/** A miner to be probed, and where it takes requests. */
export interface ProbeTarget {
  uid: number;
  /** Paths of the models that it serves. */
  paths: readonly string[];
  /** By path: the name that is put where users name a model. */
  models?: Readonly<Record<string, string>>;
}

/** A hidden challenge: to the miner a request like any other. */
export interface PlannedProbe extends CorpusRequest {
  /** Names it in the validator's state and evidence; never leaves the validator. */
  id: string;
  uid: number;
  /** Milliseconds of protocol time. */
  dueMs: number;
  /** The account, of those that the validator has at gateways, that sends it: whole sessions come from one. */
  account: number;
  headers: Readonly<Record<string, string>>;
}

/** What a plan is made of. */
export interface PlanOptions {
  corpus: ProbeCorpus;
  targets: readonly ProbeTarget[];
  window: { fromMs: number; toMs: number };
  /** Requests to each target, at least, as far as the corpus goes; sessions are not cut short. */
  perTarget: number;
  /** Weights of the accounts: how much of the users' traffic goes the same way. */
  accounts: readonly number[];
  /** Known to nobody else; the same seed and corpus give the same plan. */
  seed: Uint8Array;
}

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
const TRIES = 32;

/**
 * The probes of a stretch of time: for each miner whole sessions out of the corpus, each once and none that it has seen, with texts put together anew, at times of the day at which
 * users come, with their gaps, from ordinary accounts, with users' headers as often as users send them. In the order of their times.
 */
export function planProbes(options: PlanOptions): PlannedProbe[] {
  const probes = options.targets.flatMap((target) => planTarget(target, options));
  return probes.sort((one, other) => one.dueMs - other.dueMs || (one.id < other.id ? -1 : 1));
}

function planTarget(target: ProbeTarget, options: PlanOptions): PlannedProbe[] {
  const { corpus, window, perTarget, seed } = options;
  const random = secretRandom(seed, `target ${target.uid}`);
  const unseen = corpus.sessions.filter(({ servedBy }) => servedBy?.includes(target.uid) !== true);
  const sentences = sentencesOf(unseen);
  const fitting = unseen.filter(({ requests }) => requests.every(({ path }) => target.paths.includes(path)));
  const probes: PlannedProbe[] = [];
  while (fitting.length > 0 && probes.length < perTarget) {
    const session = fitting.splice(random.integer(0, fitting.length - 1), 1)[0] as CorpusSession;
    const account = pickWeighted(options.accounts, random.fraction());
    let dueMs = startWithin(session, window, random);
    for (const request of session.requests) {
      const { path, contentType, body } = varyRequest(request, { sentences, model: target.models?.[request.path], random });
      dueMs += jitterGap(request.gapMs, random);
      const id = createHash('sha256').update(seed).update(`|${target.uid}|${probes.length}`).digest('hex').slice(0, 32);
      probes.push({ id, uid: target.uid, dueMs, account, path, contentType, body, headers: headersOf(corpus, random.fraction()) });
    }
  }
  return probes.filter(({ dueMs }) => dueMs < window.toMs);
}

/** A time within the window, near the time of the day of a session where the window has it. */
function startWithin(
  session: CorpusSession,
  { fromMs, toMs }: PlanOptions['window'],
  random: { fraction(): number; normal(): number },
): number {
  const length = Math.max(1, toMs - fromMs - lengthOf(session));
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const day = Math.floor(fromMs / DAY_MS) + Math.floor(random.fraction() * (1 + length / DAY_MS));
    const at = day * DAY_MS + session.secondOfDay * 1000 + Math.round(10 * MINUTE_MS * random.normal());
    if (at >= fromMs && at < fromMs + length) return at;
  }
  return fromMs + Math.floor(random.fraction() * length);
}

function lengthOf({ requests }: CorpusSession): number {
  return requests.reduce((sum, { gapMs }) => sum + gapMs, 0);
}

function headersOf({ replayShare, forgetShare }: ProbeCorpus, drawn: number): Record<string, string> {
  if (drawn * WHOLE < forgetShare) return { 'millrace-retention': 'none' };
  return drawn * WHOLE < forgetShare + replayShare ? { 'millrace-replay': 'allow' } : {};
}

function pickWeighted(weights: readonly number[], drawn: number): number {
  const sum = weights.reduce((total, weight) => total + weight, 0);
  let left = drawn * sum;
  const found = weights.findIndex((weight) => {
    left -= weight;
    return left < 0;
  });
  return found === -1 ? 0 : found;
}
