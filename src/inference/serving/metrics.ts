/** Counters and sums of a miner, one set for each model and way of ending. */
export interface ServingMetrics {
  ended(model: string, end: string): void;
  units(model: string, counts: { input: number; output: number }): void;
  latency(model: string, times: { ttftMs: number; totalMs: number }): void;
  refused(code: string): void;
  /** Prometheus text format, names `millrace_<role>_<noun>_<unit>`. */
  text(gauges: Record<string, number | bigint>): string;
}

const BUCKETS_MS = [10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000];
const MODELS_MAX = 500;
const CODES_MAX = 500;

interface Histogram {
  /** One for each bucket, not cumulative; the last is what is above all. */
  counts: number[];
  sumMs: number;
}

interface ModelSeries {
  ended: Map<string, number>;
  input: number;
  output: number;
  first: Histogram;
  whole: Histogram;
}

/** Metrics of a role; labels are bounded in number, whatever callers send. */
export function createServingMetrics(role: string): ServingMetrics {
  const models = new Map<string, ModelSeries>();
  const refusals = new Map<string, number>();
  const histogram = (): Histogram => ({ counts: BUCKETS_MS.map(() => 0).concat(0), sumMs: 0 });
  const fresh = (): ModelSeries => ({ ended: new Map(), input: 0, output: 0, first: histogram(), whole: histogram() });
  const seriesOf = (model: string): ModelSeries => {
    let known = models.get(model);
    if (known === undefined) {
      known = fresh();
      if (models.size < MODELS_MAX) models.set(model, known);
    }
    return known;
  };
  return {
    ended(model, end) {
      const { ended } = seriesOf(model);
      ended.set(end, (ended.get(end) ?? 0) + 1);
    },
    units(model, { input, output }) {
      const series = seriesOf(model);
      series.input += input;
      series.output += output;
    },
    latency(model, { ttftMs, totalMs }) {
      const series = seriesOf(model);
      observe(series.first, ttftMs);
      observe(series.whole, totalMs);
    },
    refused(code) {
      if (refusals.has(code) || refusals.size < CODES_MAX) refusals.set(code, (refusals.get(code) ?? 0) + 1);
    },
    text(gauges) {
      const lines = [...models].flatMap(([model, series]) => modelLines(role, model, series));
      for (const [code, count] of refusals) lines.push(`millrace_${role}_refusals_total{code="${label(code)}"} ${count}`);
      for (const [name, value] of Object.entries(gauges)) lines.push(`millrace_${role}_${name} ${value}`);
      return `${lines.join('\n')}\n`;
    },
  };
}

function observe(into: Histogram, ms: number): void {
  const index = BUCKETS_MS.findIndex((bucket) => ms <= bucket);
  const at = index === -1 ? BUCKETS_MS.length : index;
  into.counts[at] = (into.counts[at] as number) + 1;
  into.sumMs += ms;
}

function modelLines(role: string, model: string, series: ModelSeries): string[] {
  const name = `model="${label(model)}"`;
  const lines = [...series.ended].map(([end, count]) => `millrace_${role}_requests_total{${name},end="${label(end)}"} ${count}`);
  lines.push(
    `millrace_${role}_input_units_total{${name}} ${series.input}`,
    `millrace_${role}_output_units_total{${name}} ${series.output}`,
  );
  for (const [noun, { counts, sumMs }] of [
    ['first_part_seconds', series.first],
    ['request_seconds', series.whole],
  ] as const) {
    let below = 0;
    counts.forEach((count, index) => {
      below += count;
      const bound = index < BUCKETS_MS.length ? (BUCKETS_MS[index] as number) / 1000 : '+Inf';
      lines.push(`millrace_${role}_${noun}_bucket{${name},le="${bound}"} ${below}`);
    });
    lines.push(`millrace_${role}_${noun}_sum{${name}} ${sumMs / 1000}`, `millrace_${role}_${noun}_count{${name}} ${below}`);
  }
  return lines;
}

function label(text: string): string {
  return text.slice(0, 64).replace(/["\\\n]/g, '_');
}
