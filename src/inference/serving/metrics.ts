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
const SERIES_MAX = 2000;

/** Metrics of a role; labels are bounded in number, whatever callers send. */
export function createServingMetrics(role: string): ServingMetrics {
  const series = new Map<string, number>();
  const add = (name: string, labels: string, value: number) => {
    const key = `millrace_${role}_${name}${labels === '' ? '' : `{${labels}}`}`;
    const known = series.get(key);
    if (known === undefined && series.size >= SERIES_MAX) return;
    series.set(key, (known ?? 0) + value);
  };
  const observe = (name: string, model: string, ms: number) => {
    for (const bucket of BUCKETS_MS) if (ms <= bucket) add(`${name}_bucket`, `${model},le="${bucket / 1000}"`, 1);
    add(`${name}_bucket`, `${model},le="+Inf"`, 1);
    add(`${name}_sum`, model, ms / 1000);
    add(`${name}_count`, model, 1);
  };
  return {
    ended: (model, end) => add('requests_total', `model="${label(model)}",end="${end}"`, 1),
    units(model, { input, output }) {
      add('input_units_total', `model="${label(model)}"`, input);
      add('output_units_total', `model="${label(model)}"`, output);
    },
    latency(model, { ttftMs, totalMs }) {
      observe('first_part_seconds', `model="${label(model)}"`, ttftMs);
      observe('request_seconds', `model="${label(model)}"`, totalMs);
    },
    refused: (code) => add('refusals_total', `code="${label(code)}"`, 1),
    text(gauges) {
      const lines = [...series].map(([key, value]) => `${key} ${value}`);
      for (const [name, value] of Object.entries(gauges)) lines.push(`millrace_${role}_${name} ${value}`);
      return `${lines.join('\n')}\n`;
    },
  };
}

function label(text: string): string {
  return text.slice(0, 64).replace(/["\\\n]/g, '_');
}
