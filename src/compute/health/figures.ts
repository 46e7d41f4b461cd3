/** What a partner says of a device. The contract numbers them so. */
export const VERDICTS = ['none', 'unreachable', 'missed', 'wrong', 'passed'] as const;
/** A name of a verdict. */
export type Verdict = (typeof VERDICTS)[number];

/** Why a device has no performance in an hour, or lost its seat; `none` where it has. The contract numbers them so. */
export const REASONS = [
  'none',
  'too-few-statements',
  'unreachable',
  'challenge-missed',
  'challenge-wrong',
  'no-bandwidth',
  'not-on-offer',
  'class-changed',
  'left',
  'vacant',
] as const;
/** A name of a reason. */
export type Reason = (typeof REASONS)[number];

/** What one partner measured of a device in an hour. */
export interface Statement {
  verdict: Verdict;
  /** What of the declared machine was there, of 10,000: the share of heartbeats answered, times the share of the challenges' work done in time. */
  upBps: number;
  latencyUs: number;
  /** Kilobytes a second, the slower of both directions. */
  bandwidthKbs: number;
  /** 16 bits of the receipt that the device's node gave for its challenge, 0: none; for who looks for copies, no figure depends on it. */
  receiptTag: number;
  /** The share of the challenges' work alone, of 10,000; for people, no figure depends on it. */
  doneBps: number;
}

/** What a partner says of a device, and what the device's operator says of the partner. */
export interface PairStatement {
  said: Statement | undefined;
  back: Statement | undefined;
}

/** The numbers of `IComputeHealth.Config` that a figure depends on. */
export interface FigureRule {
  statementsMin: number;
  rateWeight: number;
  memoryWeight: number;
  bandwidthRef: number;
  latencyRef: number;
}

/** What a device is said to have: millions of multiply-adds a second in the prime field, megabytes of memory a second. */
export interface Declared {
  rate: number;
  memoryMbs: number;
}

/** An hour's performance of a device; `reason` is `none` where it has some. */
export interface Figure {
  performance: bigint;
  reason: Reason;
}

const BPS = 10_000n;
const PERFORMANCE_MAX = 2n ** 48n - 1n;
const LATENCY_WORST = 0xffff_ffff;
/** Bytes of a figure where it stands among all. */
export const FIGURE_BYTES = 8;
/** Bytes of a statement in a report. */
export const STATEMENT_BYTES = 15;

/**
 * What statements make of a device, bit by bit as `HealthFigures`: medians, of an even number the one that is worse for the device; of what both
 * ends of a pair say of it the worse; one division, rounded down. One element for each partner that counts.
 */
export function figureOf(rule: FigureRule, { rate, memoryMbs }: Declared, pairs: readonly PairStatement[]): Figure {
  const counted = pairs.flatMap(({ said, back }) => (said === undefined || said.verdict === 'none' ? [] : [worseOf(said, back)]));
  const count = counted.length;
  if (count === 0 || count < rule.statementsMin) return without('too-few-statements');
  const having = (verdict: Verdict) => counted.filter((one) => one.verdict === verdict).length;
  if (having('passed') * 2 <= count) return without(mostOf(having('unreachable'), having('missed'), having('wrong')));
  const median = (values: number[], index: number) => BigInt(values.sort((left, right) => left - right)[index] as number);
  const low = (count - 1) >> 1;
  const bandwidth = least(
    median(
      counted.map((one) => one.bandwidthKbs),
      low,
    ),
    BigInt(rule.bandwidthRef),
  );
  if (bandwidth === 0n) return without('no-bandwidth');
  const hardware = least(BigInt(rate) * BigInt(rule.rateWeight) + BigInt(memoryMbs) * BigInt(rule.memoryWeight), PERFORMANCE_MAX);
  const up = median(
    counted.map((one) => one.upBps),
    low,
  );
  const seen = median(
    counted.map((one) => one.latencyUs),
    count >> 1,
  );
  const latencyRef = BigInt(rule.latencyRef);
  const latency = seen > latencyRef ? seen : latencyRef;
  return { performance: (hardware * up * bandwidth * latencyRef) / (BPS * BigInt(rule.bandwidthRef) * latency), reason: 'none' };
}

function worseOf(said: Statement, back: Statement | undefined): Statement {
  if (said.verdict === 'unreachable') return { ...said, upBps: 0, latencyUs: LATENCY_WORST, bandwidthKbs: 0 };
  const upBps = Math.min(said.upBps, Number(BPS));
  if (back === undefined || back.verdict === 'none' || back.verdict === 'unreachable') return { ...said, upBps };
  return {
    ...said,
    upBps,
    latencyUs: Math.max(said.latencyUs, back.latencyUs),
    bandwidthKbs: Math.min(said.bandwidthKbs, back.bandwidthKbs),
  };
}

/** What most say; of as many the first. */
function mostOf(unreachable: number, missed: number, wrong: number): Reason {
  if (unreachable >= missed && unreachable >= wrong) return 'unreachable';
  return missed >= wrong ? 'challenge-missed' : 'challenge-wrong';
}

function without(reason: Reason): Figure {
  return { performance: 0n, reason };
}

function least(left: bigint, right: bigint): bigint {
  return left < right ? left : right;
}

/** A figure as it stands among all: `performance:u48 reason:u16`, big-endian. */
export function encodeFigure({ performance, reason }: Figure): Uint8Array {
  const bytes = Buffer.alloc(FIGURE_BYTES);
  bytes.writeBigUInt64BE((performance << 16n) | BigInt(REASONS.indexOf(reason)));
  return bytes;
}

/** The figure of a seat among all. A code that means nothing, which a wrong proposal may hold, reads as `vacant`. */
export function decodeFigure(figures: Uint8Array, seat: number): Figure {
  const word = Buffer.from(figures.buffer, figures.byteOffset, figures.byteLength).readBigUInt64BE(seat * FIGURE_BYTES);
  return { performance: word >> 16n, reason: REASONS[Number(word & 0xffffn)] ?? 'vacant' };
}
