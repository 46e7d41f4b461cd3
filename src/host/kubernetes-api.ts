import https, { type RequestOptions } from 'node:https';
import { MillraceError } from '../errors.ts';

/** How an API server of Kubernetes is reached, and as whom. */
export interface KubernetesAccess {
  /** `https://host:port`. */
  server: string;
  /** PEM of the authority that signed the server's certificate; the system's authorities when left out. */
  certificateAuthority?: string;
  /** A service account's token. */
  token: string;
}

/** Calls of the API; bodies and answers are JSON. */
export interface KubernetesApi {
  /** @throws kubernetes-refused with the status and the server's reason; kubernetes-unreachable */
  call<Answer>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<Answer>;
  /** Streams an answer that is text, as the log of a pod is. */
  stream(path: string, onBytes: (bytes: Buffer) => void, signal: AbortSignal): Promise<void>;
}

const CALL_TIMEOUT_MS = 30_000;
const ANSWER_BYTES_MAX = 8 << 20;

/**
 * Speaks with an API server by plain HTTPS. The seven calls that jobs need are documented and stable (Kubernetes API v1, batch/v1); the official
 * client (2.0.1) has 16 direct dependencies for them, among them an HTTP client, OpenID, SOCKS and JSONPath.
 */
export function openKubernetesApi({ server, certificateAuthority, token }: KubernetesAccess): KubernetesApi {
  const agent = new https.Agent({ keepAlive: true, ca: certificateAuthority, minVersion: 'TLSv1.2' });
  const send = (method: string, path: string, body?: string) =>
    new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
      const options: RequestOptions = {
        method,
        agent,
        headers: {
          accept: 'application/json',
          authorization: `Bearer ${token}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
        },
      };
      const request = https.request(new URL(path, server), options, resolve);
      const late = setTimeout(() => request.destroy(new RangeError(`no answer within ${CALL_TIMEOUT_MS} ms`)), CALL_TIMEOUT_MS);
      request.once('close', () => clearTimeout(late)).once('response', () => clearTimeout(late));
      request.on('error', (cause) => reject(unreachable(server, cause)));
      request.end(body);
    });
  return {
    async call<Answer>(method: string, path: string, body?: unknown) {
      const response = await send(method, path, body === undefined ? undefined : JSON.stringify(body));
      const answer = parse(await readAll(response, server));
      if ((response.statusCode ?? 500) >= 300) throw refused(method, path, response.statusCode ?? 500, answer);
      return answer as Answer;
    },
    async stream(path, onBytes, signal) {
      const response = await send('GET', path);
      // Not the request's own signal: one that fires between the last byte and the end would meet a connection that is in other hands already.
      const stop = () => void response.destroy();
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) stop();
      if (response.statusCode !== 200) throw refused('GET', path, response.statusCode ?? 500, parse(await readAll(response, server)));
      try {
        for await (const bytes of response) onBytes(bytes as Buffer);
      } catch (cause) {
        if (!signal.aborted) throw unreachable(server, cause as Error);
      }
    },
  };
}

async function readAll(response: AsyncIterable<Buffer>, server: string): Promise<string> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const bytes of response) {
    length += bytes.length;
    if (length > ANSWER_BYTES_MAX) throw unreachable(server, new RangeError(`an answer has more than ${ANSWER_BYTES_MAX} bytes`));
    pieces.push(bytes);
  }
  return Buffer.concat(pieces).toString('utf8');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return { message: text.slice(0, 500) };
  }
}

/** The server's `Status` object says why (meta/v1). */
function refused(method: string, path: string, status: number, answer: unknown): MillraceError {
  const { reason, message } = (answer ?? {}) as { reason?: unknown; message?: unknown };
  const [why, said] = [reason, message].map((each) => (typeof each === 'string' ? each.slice(0, 500) : undefined));
  return new MillraceError('kubernetes-refused', {
    actor: status >= 500 ? 'peer' : 'host',
    message: `Kubernetes answered ${method} ${path} with ${status}${why === undefined ? '' : ` ${why}`}: ${said ?? ''}`,
    values: { status, reason: why },
    hint:
      status === 401 || status === 403
        ? 'Give the service account create, get, list and delete of jobs, and get and list of pods, pods/log and networkpolicies in the namespace.'
        : 'Read the message of the API server.',
  });
}

function unreachable(server: string, cause: Error): MillraceError {
  return new MillraceError('kubernetes-unreachable', {
    actor: 'peer',
    message: `The API server ${server} did not answer: ${cause.message}`,
    values: { server },
    hint: 'Check the address, the certificate authority, and the network.',
    cause,
  });
}
