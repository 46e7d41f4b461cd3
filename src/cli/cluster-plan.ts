import { type ClusterSpec, clusterOfDeployment, parseClusterSpec, parseSpec, priceUnits } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { parseAmount } from '../units.ts';
import { readDocument } from './document-file.ts';

/** What of a cluster's machines is said by flags. */
export interface PlanOptions {
  class?: string;
  maxPrice?: string;
  hours?: string;
  token?: string;
}

/** What is to run on machines of which kind, at which price, for how long. */
export interface ClusterPlan {
  spec: ClusterSpec;
  deviceClass: string;
  token: 'stable' | 'native';
  /** Base units an hour and machine. */
  priceMax: bigint;
  seconds: number;
  warnings: string[];
}

const HOUR_SECONDS = 3600;
const HOURS_MAX = 10_000;

/**
 * A cluster from a file: a deployment (YAML of our own, Akash SDL), or a specification in JSON. What the document says is not said again by flags.
 * @throws bad-spec, spec-unsupported with field, line and column; bad-cluster-spec, bad-option, document-unreadable
 */
export function readPlan(path: string, options: PlanOptions, decimals: Readonly<Record<'stable' | 'native', number>>): ClusterPlan {
  const { spec, deviceClass, priceMax, seconds, warnings } = readFile(path);
  refuseTwice('--class', options.class, deviceClass);
  refuseTwice('--max-price', options.maxPrice, priceMax);
  refuseTwice('--token', options.token, priceMax);
  refuseTwice('--hours', options.hours, seconds);
  const token = priceMax?.token ?? options.token ?? 'native';
  if (token !== 'native' && token !== 'stable') throw badOption('--token', token, 'native or stable');
  const hours = Number(options.hours ?? '1');
  if (!(hours > 0 && hours <= HOURS_MAX)) throw badOption('--hours', String(options.hours), `more than 0, at most ${HOURS_MAX}`);
  return {
    spec,
    deviceClass: options.class ?? deviceClass ?? missing('--class', 'the class of the machines (device.class of the document)'),
    token,
    priceMax:
      priceMax === undefined
        ? parseAmount(options.maxPrice ?? missing('--max-price', 'the greatest price of a machine and hour'), decimals[token])
        : priceUnits(priceMax.amount, decimals[token]),
    seconds: seconds ?? Math.ceil(hours * HOUR_SECONDS),
    warnings,
  };
}

type FilePlan = Pick<ReturnType<typeof clusterOfDeployment>, 'spec'> &
  Partial<Omit<ReturnType<typeof clusterOfDeployment>, 'spec'>> & { warnings: string[] };

function readFile(path: string): FilePlan {
  const text = readDocument(path);
  const specification = specificationIn(text);
  if (specification !== undefined) return { spec: parseClusterSpec(specification), warnings: [] };
  const parsed = parseSpec(text);
  if (parsed.kind === 'job') throw badOption('the document', 'a job', 'a deployment; a job is run by millrace run FILE');
  const warnings = parsed.warnings.map(({ line, column, field, message }) => `Line ${line}, column ${column}: ${field}: ${message}`);
  return { ...clusterOfDeployment(parsed), warnings };
}

/** JSON that is no deployment. */
function specificationIn(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    const isDeployment = typeof value === 'object' && value !== null && ('services' in value || 'deployment' in value || 'job' in value);
    return isDeployment ? undefined : value;
  } catch {
    return undefined;
  }
}

function refuseTwice(flag: string, given: string | undefined, said: unknown): void {
  if (given !== undefined && said !== undefined) throw badOption(flag, given, 'nothing: the document says it');
}

function missing(flag: string, what: string): never {
  throw badOption(flag, 'none', what);
}

function badOption(option: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${JSON.stringify(got.slice(0, 80))} for ${option}, expected ${expected}`,
    values: { option, got: got.slice(0, 80), expected },
  });
}
