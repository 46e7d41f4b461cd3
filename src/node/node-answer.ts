import { httpStatusOf, MillraceError, toMillraceError } from '../errors.ts';
import type { Role } from './role.ts';

/** Answers a request to a node: its health and numbers itself, the rest by the first role that serves the path. Never throws. */
export async function answerRequest(request: Request, roles: readonly Role[], stopping: AbortSignal): Promise<Response> {
  const path = new URL(request.url).pathname;
  try {
    if (path === '/healthz' || path === '/metrics') {
      if (request.method !== 'GET' && request.method !== 'HEAD') return methodNotAllowed(request.method, path);
      return path === '/healthz' ? healthOf(roles, stopping) : await metricsOf(roles);
    }
    for (const role of roles) {
      const response = role.fetch(request);
      if (response !== undefined) return await response;
    }
    return problem(404, new MillraceError('no-such-path', { actor: 'caller', message: `Nothing is served at ${path}`, values: { path } }));
  } catch (error) {
    return problem(httpStatusOf(error), toMillraceError(error));
  }
}

function healthOf(roles: readonly Role[], stopping: AbortSignal): Response {
  return Response.json({ status: stopping.aborted ? 'stopping' : 'ok', roles: roles.map((role) => role.name) });
}

async function metricsOf(roles: readonly Role[]): Promise<Response> {
  const texts = await Promise.all(roles.map((role) => role.metrics()));
  return new Response(texts.join(''), { headers: { 'content-type': 'text/plain; version=0.0.4' } });
}

function methodNotAllowed(method: string, path: string): Response {
  const message = `Got ${method} ${path}, expected GET or HEAD`;
  const response = problem(405, new MillraceError('method-not-allowed', { actor: 'caller', message, values: { method, path } }));
  response.headers.set('allow', 'GET, HEAD');
  return response;
}

function problem(status: number, error: MillraceError): Response {
  const { code, actor, ...detail } = error.toJSON();
  // What went wrong inside is nobody's business but the log's.
  const shown =
    actor === 'bug' || actor === 'host' ? { title: 'Something went wrong inside this node' } : { title: error.message, ...detail };
  return new Response(JSON.stringify({ type: 'about:blank', status, code, actor, ...shown }), {
    status,
    headers: { 'content-type': 'application/problem+json' },
  });
}
