import { Hono } from 'hono';
import type { Address, Hex } from 'viem';
import { recoverAddress } from '../../chain/index.ts';
import { contentDigest, createReplayGuard, verifyRequest } from '../../connect/index.ts';
import { httpStatusOf, MillraceError, toMillraceError } from '../../errors.ts';
import { readRequest } from '../../read-at-most.ts';
import type { ClusterHost } from './cluster-host.ts';

const BODY_BYTES_MAX = 1 << 20;
const WORDS_MAX = 256;

/**
 * What a node answers under `/v1/compute/clusters/CLUSTER`: `POST join`, `PUT members`, `GET members | status | logs`, `POST exec`, `DELETE`.
 * Every request is signed by the renter's agent (RFC 9421) with the digest of its body.
 */
export function clusterRoutes(host: ClusterHost): Hono {
  const app = new Hono();
  const guard = createReplayGuard();
  const at = (path: string) => `/v1/compute/clusters/:cluster{0x[0-9a-f]{64}}${path}`;
  const handle =
    (work: (call: Call) => Promise<unknown>) =>
    async ({ req }: { req: { raw: Request; param(name: string): string | undefined } }): Promise<Response> => {
      try {
        const { agent, body } = await authorise(req.raw, guard);
        const answer = await work({ agent, cluster: req.param('cluster') as Hex, body, query: new URL(req.raw.url).searchParams });
        return Response.json(answer ?? {});
      } catch (error) {
        const fault = toMillraceError(error);
        return Response.json(fault.toJSON(), { status: httpStatusOf(fault), headers: { 'content-type': 'application/problem+json' } });
      }
    };
  app.post(
    at('/join'),
    handle(({ agent, cluster, body }) => {
      const { leaseId, seat, spec } = recordOf(body);
      if (typeof leaseId !== 'string' || !/^[1-9]\d{0,19}$/.test(leaseId)) throw badCall('leaseId is no number');
      if (typeof seat !== 'number' || !Number.isInteger(seat) || seat < 1 || seat > 60_000) throw badCall('seat is not 1 to 60,000');
      return host.join(agent, { cluster, leaseId, seat, spec });
    }),
  );
  app.put(
    at('/members'),
    handle(({ agent, cluster, body }) => host.setMembers(agent, cluster, body)),
  );
  app.get(
    at('/members'),
    handle(async ({ agent, cluster }) => host.part(agent, cluster).membership.signedList() ?? null),
  );
  app.get(
    at('/status'),
    handle(async ({ agent, cluster }) => host.part(agent, cluster).membership.status()),
  );
  app.get(
    at('/logs'),
    handle(async ({ agent, cluster, query }) => {
      const [rank, from] = [Number(query.get('rank')), Number(query.get('from') ?? 0)];
      if (!Number.isSafeInteger(rank) || !Number.isSafeInteger(from)) throw badCall('rank or from is no number');
      return host.part(agent, cluster).membership.log(rank, from);
    }),
  );
  app.post(
    at('/exec'),
    handle(({ agent, cluster, body }) => {
      const { rank, argv } = recordOf(body);
      if (!Array.isArray(argv) || argv.length === 0 || argv.length > WORDS_MAX || argv.some((word) => typeof word !== 'string')) {
        throw badCall(`argv is no list of 1 to ${WORDS_MAX} texts`);
      }
      return host.part(agent, cluster).membership.exec(Number(rank), argv as string[]);
    }),
  );
  app.delete(
    at(''),
    handle(({ agent, cluster }) => host.leave(agent, cluster)),
  );
  return app;
}

interface Call {
  agent: Address;
  cluster: Hex;
  body: unknown;
  query: URLSearchParams;
}

async function authorise(request: Request, guard: ReturnType<typeof createReplayGuard>): Promise<{ agent: Address; body: unknown }> {
  const headers = Object.fromEntries(request.headers);
  const bytes = await readRequest(request, BODY_BYTES_MAX);
  const required = bytes.length === 0 ? [] : ['content-digest'];
  const recover = (digest: Hex, signature: Hex) => recoverAddress(digest, signature);
  const { address } = verifyRequest({ method: request.method, url: request.url, headers }, { recover, guard }, { required });
  if (bytes.length > 0 && headers['content-digest'] !== contentDigest(bytes)) throw badCall('the body is not the one that was signed');
  try {
    return { agent: address, body: bytes.length === 0 ? undefined : JSON.parse(Buffer.from(bytes).toString('utf8')) };
  } catch {
    throw badCall('the body is no JSON');
  }
}

function recordOf(value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw badCall('the body is no object');
}

function badCall(reason: string): MillraceError {
  return new MillraceError('bad-cluster-call', {
    actor: 'caller',
    message: `The call to a cluster’s node cannot be answered: ${reason}`,
    values: { reason },
  });
}
