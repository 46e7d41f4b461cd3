import https from 'node:https';
import type { AddressInfo } from 'node:net';

/** Key and certificate of the test's API server, for 127.0.0.1 alone; worth nothing elsewhere. */
const KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgyduUDddom7Gwyd6n
M8aZUwfkkOh2UB3T/vCr+bP3Q52hRANCAASbU5Af/UF1RJ7gMcYE7EP5P2WSN60b
bk7wJY/zQzVE2fh+0UG7ff3csmRcnELoqJjVDJcva+qPYRVgn4I3yCMj
-----END PRIVATE KEY-----`;
/** The authority that a client of it is given. */
export const TEST_CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBnTCCAUKgAwIBAgIUSEJcWhEL/n7SGURf5dIeWAqCUKowCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPa3ViZXJuZXRlcy10ZXN0MCAXDTI2MTEyMzA2NDExNFoYDzIx
MjYxMDMwMDY0MTE0WjAaMRgwFgYDVQQDDA9rdWJlcm5ldGVzLXRlc3QwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAASbU5Af/UF1RJ7gMcYE7EP5P2WSN60bbk7wJY/z
QzVE2fh+0UG7ff3csmRcnELoqJjVDJcva+qPYRVgn4I3yCMjo2QwYjAdBgNVHQ4E
FgQUAZwRkF1nE1kUvb9sKrhN9MzXRJYwHwYDVR0jBBgwFoAUAZwRkF1nE1kUvb9s
KrhN9MzXRJYwDwYDVR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqG
SM49BAMCA0kAMEYCIQDoo7wuNzq6GimhJxyat5H6J9GyxbTwCE1jaYYQ+ePKQAIh
ANDTrxgWffQaQLRhvLivYEPdC1rJTZz9JDFJadpp+eON
-----END CERTIFICATE-----`;

/** What the pod of a job does once it is asked for, in the words of the API (v1, PodStatus). */
export interface ScriptedPod {
  /** Statuses that it goes through, one for each look; the last one stays. */
  statuses: object[];
  log: string;
  /** Called when the job is made: what its program would do to the shared folder. */
  onStart?: (job: Recorded) => void;
}

/** A job as it was sent. */
// biome-ignore lint/suspicious/noExplicitAny: a test reads what was sent, whatever it is
export type Recorded = any;

/** An API server of Kubernetes as far as jobs need it: it takes what the documented contract allows and nothing else. No cluster is behind it. */
export interface TestApiServer {
  url: string;
  token: string;
  jobs: Recorded[];
  deleted: string[];
  policies: object[];
  /** What the next job's pod does. */
  next: ScriptedPod;
  /** Every request that broke the contract, with why. */
  breaches: string[];
  close(): Promise<void>;
}

/** Fields by object, after the API's OpenAPI document (v1.30): `!` required. An object that has another field is refused, as with strict validation. */
const FIELDS: Record<string, readonly string[]> = {
  Job: ['apiVersion!', 'kind!', 'metadata!ObjectMeta', 'spec!JobSpec'],
  ObjectMeta: ['name', 'labels'],
  JobSpec: ['backoffLimit', 'activeDeadlineSeconds', 'ttlSecondsAfterFinished', 'template!PodTemplateSpec'],
  PodTemplateSpec: ['metadata?ObjectMeta', 'spec!PodSpec'],
  PodSpec: [
    ...['restartPolicy!', 'automountServiceAccountToken', 'enableServiceLinks', 'hostUsers', 'dnsPolicy', 'dnsConfig?PodDNSConfig'],
    ...['terminationGracePeriodSeconds', 'securityContext?PodSecurityContext', 'containers![]Container', 'volumes?[]Volume'],
  ],
  PodDNSConfig: ['nameservers'],
  PodSecurityContext: ['runAsNonRoot', 'runAsUser', 'runAsGroup', 'seccompProfile?SeccompProfile'],
  SeccompProfile: ['type!'],
  Container: [
    ...['name!', 'image!', 'imagePullPolicy', 'command', 'args', 'workingDir', 'env?[]EnvVar', 'resources?ResourceRequirements'],
    ...['securityContext?SecurityContext', 'volumeMounts?[]VolumeMount'],
  ],
  EnvVar: ['name!', 'value'],
  ResourceRequirements: ['limits?Amounts', 'requests?Amounts'],
  Amounts: ['cpu', 'memory', 'ephemeral-storage'],
  SecurityContext: ['allowPrivilegeEscalation', 'readOnlyRootFilesystem', 'privileged', 'capabilities?Capabilities'],
  Capabilities: ['drop', 'add'],
  VolumeMount: ['name!', 'mountPath!', 'subPath', 'readOnly'],
  Volume: ['name!', 'persistentVolumeClaim?ClaimSource', 'emptyDir?EmptyDirSource'],
  ClaimSource: ['claimName!'],
  EmptyDirSource: ['sizeLimit'],
};

/** Every breach of the contract in an object. */
export function breachesOf(value: unknown, kind: string, path = kind): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [`${path} is no object`];
  const fields = (FIELDS[kind] ?? []).map((text) => {
    const [, name = '', mark = '', list = '', inner = ''] = /^([\w-]+)([!?]?)(\[\])?(\w*)$/.exec(text) ?? [];
    return { name, isRequired: mark === '!', isList: list !== '', inner };
  });
  const unknown = Object.keys(value).filter((name) => !fields.some((field) => field.name === name));
  return [
    ...unknown.map((name) => `${path}.${name} is unknown`),
    ...fields.flatMap(({ name, isRequired, isList, inner }) => {
      const item = (value as Record<string, unknown>)[name];
      if (item === undefined) return isRequired ? [`${path}.${name} is missing`] : [];
      if (inner === '') return [];
      if (!isList) return breachesOf(item, inner, `${path}.${name}`);
      return Array.isArray(item)
        ? item.flatMap((each, index) => breachesOf(each, inner, `${path}.${name}[${index}]`))
        : [`${path}.${name} is no list`];
    }),
  ];
}

/** Starts it on a free port. */
export async function startTestApiServer(): Promise<TestApiServer> {
  const pods = new Map<string, { script: ScriptedPod; looks: number }>();
  const state: TestApiServer = {
    url: '',
    token: 'test-token',
    jobs: [],
    deleted: [],
    policies: [{ spec: { podSelector: {}, policyTypes: ['Ingress', 'Egress'] } }],
    next: { statuses: [], log: '' },
    breaches: [],
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
  const answer = (method: string, url: URL, body: string): { status: number; value: unknown } => {
    const path = url.pathname;
    if (method === 'GET' && path === '/version') return { status: 200, value: { major: '1', minor: '30', gitVersion: 'v1.30.0-test' } };
    if (method === 'GET' && path.endsWith('/networkpolicies')) return { status: 200, value: { items: state.policies } };
    if (method === 'GET' && path.endsWith('/jobs')) return { status: 200, value: { items: [] } };
    if (method === 'POST' && path === '/apis/batch/v1/namespaces/rented/jobs') {
      const job = JSON.parse(body);
      const breaches = breachesOf(job, 'Job');
      state.breaches.push(...breaches);
      if (breaches.length > 0) return { status: 422, value: { kind: 'Status', reason: 'Invalid', message: breaches.join('; ') } };
      state.jobs.push(job);
      pods.set(job.metadata.name, { script: state.next, looks: 0 });
      state.next.onStart?.(job);
      return { status: 201, value: job };
    }
    if (method === 'GET' && path === '/api/v1/namespaces/rented/pods') {
      const name = /^job-name=(.*)$/.exec(url.searchParams.get('labelSelector') ?? '')?.[1] ?? '';
      const pod = pods.get(name);
      if (pod === undefined) return { status: 200, value: { items: [] } };
      const status = pod.script.statuses[Math.min(pod.looks, pod.script.statuses.length - 1)];
      pod.looks += 1;
      return { status: 200, value: { items: [{ metadata: { name: `${name}-x1`, creationTimestamp: '2026-01-01T00:00:00Z' }, status }] } };
    }
    const job = /^\/apis\/batch\/v1\/namespaces\/rented\/jobs\/([a-z0-9-]+)$/.exec(path)?.[1];
    if (method === 'DELETE' && job !== undefined) {
      const isThere = pods.delete(job);
      if (isThere) state.deleted.push(job);
      return isThere ? { status: 200, value: { kind: 'Status' } } : { status: 404, value: { kind: 'Status', reason: 'NotFound' } };
    }
    const logged = /^\/api\/v1\/namespaces\/rented\/pods\/([a-z0-9-]+)-x1\/log$/.exec(path)?.[1];
    if (method === 'GET' && logged !== undefined) return { status: 200, value: pods.get(logged)?.script.log ?? '' };
    state.breaches.push(`${method} ${path}`);
    return { status: 404, value: { kind: 'Status', reason: 'NotFound', message: path } };
  };
  const server = https.createServer({ key: KEY, cert: TEST_CERTIFICATE }, (request, response) => {
    let body = '';
    request.on('data', (bytes) => {
      body += bytes;
    });
    request.on('end', () => {
      const isKnown = request.headers.authorization === `Bearer ${state.token}`;
      const { status, value } = isKnown
        ? answer(request.method ?? '', new URL(request.url ?? '/', 'https://x'), body)
        : { status: 401, value: { kind: 'Status', reason: 'Unauthorized', message: 'Unauthorized' } };
      const isText = typeof value === 'string';
      response
        .writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json' })
        .end(isText ? value : JSON.stringify(value));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  state.url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return state;
}
