import {
  deploymentHash,
  type ExplainedUnit,
  explainDeployment,
  listDeviceOffers,
  type ParsedSpec,
  parseSpec,
  specHash,
} from '../compute/index.ts';
import type { CommandContext } from './context.ts';
import { readDocument } from './document-file.ts';
import { table } from './output.ts';
import { decimalsOf, openSession } from './session.ts';

/**
 * Says what a document means (a job, a deployment of our own, an Akash SDL) and, for a deployment, which devices on offer would do and why the
 * others would not.
 * @throws bad-spec, spec-unsupported with field, line and column
 */
export async function explain(context: CommandContext, file: string, options: { market: boolean }): Promise<void> {
  const parsed = parseSpec(readDocument(file));
  if (parsed.kind === 'job') return printJob(context, parsed);
  const { spec, warnings } = parsed;
  const units = options.market ? await askMarket(context, parsed) : [];
  const hash = deploymentHash(spec);
  context.output.result({ kind: 'deployment', hash, spec, warnings, units: units.map(plainUnit) }, () =>
    [
      `A deployment, ${hash}: ${spec.workloads.map(({ name, image }) => `${name} (${image || 'software of the machine'})`).join(', ')}`,
      ...warnings.map(({ line, column, field, message }) => `Line ${line}, column ${column}: ${field}: ${message}`),
      ...units.flatMap(unitText),
    ].join('\n'),
  );
}

function printJob(context: CommandContext, { name, spec, needs, priceMax, count }: Extract<ParsedSpec, { kind: 'job' }>): void {
  const hash = specHash(spec);
  context.output.result({ kind: 'job', hash, name, spec, needs, priceMax: priceMax ?? null, count }, () =>
    [
      `A job, ${name}: ${spec.program.kind} ${spec.program.source}`.trimEnd(),
      `Hash      ${hash} (runtime ${spec.runtime})`,
      `Checked   ${spec.determinism}, ${spec.segments} ${spec.segments === 1 ? 'segment' : 'segments'}, outputs as ${spec.canonicaliser}`,
      `Limits    ${Object.entries(spec.limits)
        .map(([limit, value]) => `${limit} ${value}`)
        .join(', ')}`,
      `Run it:   millrace run FILE`,
    ].join('\n'),
  );
}

async function askMarket(context: CommandContext, { spec }: Extract<ParsedSpec, { kind: 'deployment' }>): Promise<ExplainedUnit[]> {
  const session = await openSession(context);
  const { client, log } = session;
  const [offers, now, noticeSeconds] = await Promise.all([
    listDeviceOffers(client, { log }),
    client.now(),
    client.read('computeMarket', 'noticeSeconds'),
  ]);
  const decimals = { stable: decimalsOf(session, 'stable'), native: decimalsOf(session, 'native') };
  return explainDeployment(spec, { offers, now, noticeSeconds: Number(noticeSeconds), decimals });
}

function unitText({ group, workload, count, answers }: ExplainedUnit): string[] {
  const found = answers.filter(({ place }) => place !== undefined).length;
  const rows = answers.map(({ deviceId, place, refusal }) => [
    String(deviceId),
    place === undefined ? '-' : String(place),
    refusal === undefined ? 'would do' : `${refusal.code}: ${refusal.why}`,
  ]);
  return [
    '',
    `${group}: ${workload} wants ${count} together, ${found === 0 ? 'which cannot be had' : `${found} of ${answers.length} chosen`}`,
  ].concat(rows.length === 0 ? ['Nobody offers a device.'] : [table(['device', 'place', 'why'], rows)]);
}

function plainUnit({ answers, ...rest }: ExplainedUnit): Record<string, unknown> {
  return {
    ...rest,
    answers: answers.map(({ deviceId, place, refusal }) => ({
      deviceId,
      place: place ?? null,
      code: refusal?.code ?? null,
      why: refusal?.why ?? null,
    })),
  };
}
