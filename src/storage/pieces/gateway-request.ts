import { MillraceError } from '../../errors.ts';

/** What part of a DAG a CAR shall hold. */
export interface CarRequest {
  kind: 'car';
  cid: string;
  path: string[];
  scope: 'block' | 'entity' | 'all';
  /** As asked: negative numbers count from the end; `to` is inclusive, undefined means the end. */
  entityBytes: { from: number; to: number | undefined } | undefined;
  dups: 'y' | 'n';
}

/** A request that the gateway understands. */
export type GatewayRequest = CarRequest | { kind: 'raw'; cid: string; path: string[] } | { kind: 'piece'; pieceCid: string };

const PATH_BYTES_MAX = 4096;

/**
 * Understands a gateway request. `format` in the query goes before `Accept` (IPIP-523).
 * @throws method-not-allowed, not-found, bad-request, not-acceptable
 */
export function parseGatewayRequest(request: Request): GatewayRequest {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    throw new MillraceError('method-not-allowed', {
      actor: 'caller',
      message: `Got ${request.method}, expected GET or HEAD`,
      values: { method: request.method },
    });
  }
  const url = new URL(request.url);
  const steps = stepsOf(url.pathname);
  if (steps[0] === 'piece' && steps.length === 2) return { kind: 'piece', pieceCid: steps[1] as string };
  if (steps[0] !== 'ipfs' || steps[1] === undefined || steps[1] === '') {
    throw new MillraceError('not-found', {
      actor: 'caller',
      message: `Got ${url.pathname.slice(0, 200)}, expected /ipfs/{cid}[/path] or /piece/{pieceCid}`,
      values: { path: url.pathname.slice(0, 200) },
    });
  }
  const [cid, path] = [steps[1], steps.slice(2)];
  const { format, parameters } = formatOf(url, request.headers.get('accept'));
  if (format === 'raw') return { kind: 'raw', cid, path };
  const order = url.searchParams.get('car-order') ?? parameters.get('order');
  const version = url.searchParams.get('car-version') ?? parameters.get('version');
  if ((version !== null && version !== undefined && version !== '1') || (order && order !== 'dfs' && order !== 'unk')) {
    throw notAcceptable(`a CAR of version ${version ?? 1} in order ${order ?? 'dfs'}`);
  }
  const dups = oneOf('dups', url.searchParams.get('car-dups') ?? parameters.get('dups') ?? 'y', ['y', 'n'] as const);
  const scope = oneOf('dag-scope', url.searchParams.get('dag-scope') ?? 'all', ['block', 'entity', 'all'] as const);
  return { kind: 'car', cid, path, scope, dups, entityBytes: entityBytesOf(url.searchParams.get('entity-bytes')) };
}

function stepsOf(pathname: string): string[] {
  if (pathname.length > PATH_BYTES_MAX) throw badRequest('path', `${pathname.length} bytes`, `at most ${PATH_BYTES_MAX}`);
  try {
    const steps = pathname.slice(1).split('/').map(decodeURIComponent);
    if (steps.at(-1) === '') steps.pop();
    return steps;
  } catch {
    throw badRequest('path', pathname.slice(0, 200), 'percent-encoded UTF-8');
  }
}

function formatOf(url: URL, accept: string | null): { format: 'raw' | 'car'; parameters: Map<string, string> } {
  const types = (accept ?? '').slice(0, 1000).split(',').map(parseMediaType);
  const car = types.find(({ type }) => type === 'application/vnd.ipld.car');
  const asked = url.searchParams.get('format');
  if (asked !== null) {
    if (asked !== 'raw' && asked !== 'car') throw notAcceptable(`format=${asked.slice(0, 50)}`);
    return { format: asked, parameters: car?.parameters ?? new Map() };
  }
  const found = types.find(({ type }) => type === 'application/vnd.ipld.car' || type === 'application/vnd.ipld.raw');
  if (found !== undefined) return { format: found.type === 'application/vnd.ipld.raw' ? 'raw' : 'car', parameters: found.parameters };
  if (accept === null || types.some(({ type }) => type === '*/*' || type === 'application/*')) {
    throw badRequest('format', 'none', 'format=car or format=raw, because this gateway serves verifiable content only');
  }
  throw notAcceptable(accept.slice(0, 100));
}

function parseMediaType(text: string): { type: string; parameters: Map<string, string> } {
  const [type, ...rest] = text.split(';').map((part) => part.trim().toLowerCase());
  return { type: type as string, parameters: new Map(rest.map((part) => [part.split('=')[0] as string, part.split('=')[1] ?? ''])) };
}

function entityBytesOf(text: string | null): CarRequest['entityBytes'] {
  if (text === null) return undefined;
  const match = /^(-?\d{1,15}):(-?\d{1,15}|\*)$/.exec(text);
  if (match === null) throw badRequest('entity-bytes', text.slice(0, 50), 'from:to with whole numbers, or * as to');
  const from = Number(match[1]);
  const to = match[2] === '*' ? undefined : Number(match[2]);
  if (to !== undefined && from >= 0 === to >= 0 && from > to) throw badRequest('entity-bytes', text, 'from not greater than to');
  return { from, to };
}

function oneOf<T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((each) => each === value);
  if (found === undefined) throw badRequest(name, value.slice(0, 50), allowed.join(', '));
  return found;
}

function badRequest(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-request', {
    actor: 'caller',
    message: `Got ${name} ${JSON.stringify(got)}, expected ${expected}`,
    values: { name, got, expected },
  });
}

function notAcceptable(got: string): MillraceError {
  return new MillraceError('not-acceptable', {
    actor: 'caller',
    message: `Cannot answer with ${got}`,
    values: { got },
    hint: 'Accept application/vnd.ipld.car or application/vnd.ipld.raw.',
  });
}
