import { Readable } from 'node:stream';
import { Hono } from 'hono';
import type { Address, Hex } from 'viem';
import { recoverAddress } from '../../chain/index.ts';
import { contentDigest, createReplayGuard, permitSlowBody, verifyRequest } from '../../connect/index.ts';
import { httpStatusOf, MillraceError, toMillraceError } from '../../errors.ts';
import { readRequest } from '../../read-at-most.ts';
import { isCid } from '../spec/deployment-spec.ts';
import type { HostedLease } from './hosted-lease.ts';
import type { SignedStatement } from './lease-record.ts';
import { portStream } from './port-stream.ts';
import type { Rental, RentalMain } from './rental.ts';
import { runStream } from './run-stream.ts';
import type { WorkspaceCommand } from './workspace.ts';

/** What the routes ask of a host. */
export interface LeaseDesk {
  /** @throws lease-unknown */
  find(leaseId: bigint): HostedLease;
  /** Whether an address is the node key of some operator. */
  isNodeKey(address: Address): Promise<boolean>;
  /** Takes a renter's word. @returns the node's own word. @throws bad-meter-word */
  exchange(lease: HostedLease, word: number, statement: SignedStatement): Promise<SignedStatement>;
  /** What runs here on offer, each with its document. */
  devices(): unknown;
}

/** Longest command, as JSON. */
export const COMMAND_BYTES_MAX = 64 << 10;
const BODY_BYTES_MAX = 64 << 10;
const WORDS_MAX = 4_096;
const PROBES_PER_SECOND = 5;
const STATUSES: Record<string, number> = {
  'body-too-big': 413,
  'lease-unknown': 404,
  'not-the-renter': 403,
  'lease-not-running': 409,
  'probes-too-many': 429,
  'port-refused': 409,
  'connections-too-many': 429,
};

/**
 * What a node answers under `/v1/compute/leases`: `GET devices`, and under a lease's number `GET` its state, `GET probe`, `POST exec`,
 * `POST runs/RUN/signal`, `POST ports/PORT`, `PUT main`, `GET logs`, `POST meter`. Requests are signed (RFC 9421) by the renter or its agent; a
 * probe may come from any operator's node key.
 */
export function leaseRoutes(desk: LeaseDesk): Hono {
  const app = new Hono().basePath('/v1/compute/leases');
  const guard = createReplayGuard();
  const runs = new Map<string, { leaseId: bigint; signal: (name: string) => Promise<void> }>();
  const probes = new Map<string, number>();
  app.onError((error) => problem(error));
  app.notFound(() => problem(new MillraceError('not-found', { actor: 'caller', message: 'There is nothing at this address' })));

  const open = (request: Request, lease: string, digestOf?: Uint8Array): HostedLease => {
    const signer = whoSigned(request, guard, digestOf);
    const hosted = desk.find(leaseIdOf(lease));
    const { renter, agent } = hosted.view();
    if (![renter, agent].some((each) => each.toLowerCase() === signer)) throw notTheRenter(hosted.view().leaseId);
    return hosted;
  };
  app.get('/devices', (context) => context.json({ items: desk.devices(), next: null }));
  app.get('/:lease{[0-9]{1,20}}', (context) => context.json(stateOf(open(context.req.raw, context.req.param('lease')))));
  app.get('/:lease{[0-9]{1,20}}/probe', async (context) => {
    const signer = whoSigned(context.req.raw, guard);
    const hosted = desk.find(leaseIdOf(context.req.param('lease')));
    const { renter, agent } = hosted.view();
    const isParty = [renter, agent].some((each) => each.toLowerCase() === signer);
    if (!isParty && !(await desk.isNodeKey(signer))) throw notTheRenter(hosted.view().leaseId);
    limitProbes(probes, `${signer} ${hosted.view().leaseId}`);
    return context.json({ isUp: (await hosted.rental()?.probe()) ?? false });
  });
  app.post('/:lease{[0-9]{1,20}}/exec', async (context) => {
    const request = context.req.raw;
    const { head, rest } = await splitHead(request.body);
    const hosted = open(request, context.req.param('lease'), head);
    permitSlowBody(request);
    const run = await runningOf(hosted).run(commandOf(parseJson(head)));
    runs.set(run.id, { leaseId: hosted.view().leaseId, signal: run.signal });
    void run.ended.then(() => runs.delete(run.id));
    return framed(runStream(run, rest, request.signal));
  });
  app.post('/:lease{[0-9]{1,20}}/ports/:port{[0-9]{1,5}}', async (context) => {
    const request = context.req.raw;
    const { head, rest } = await splitHead(request.body);
    const hosted = open(request, context.req.param('lease'), head);
    if (head.length > 0) throw badCall('the first line of the call of a port is empty');
    permitSlowBody(request);
    return framed(portStream(await runningOf(hosted).connect(portOf(context.req.param('port'))), rest, request.signal));
  });
  app.post('/:lease{[0-9]{1,20}}/runs/:run{[0-9a-f]{16}}/signal', async (context) => {
    const body = await readRequest(context.req.raw, BODY_BYTES_MAX);
    const hosted = open(context.req.raw, context.req.param('lease'), body);
    const run = runs.get(context.req.param('run'));
    if (run?.leaseId !== hosted.view().leaseId) throw badCall('no such command runs');
    await run.signal(String(fieldsOf(body).signal));
    return context.json({});
  });
  app.put('/:lease{[0-9]{1,20}}/main', async (context) => {
    const body = await readRequest(context.req.raw, COMMAND_BYTES_MAX);
    const hosted = open(context.req.raw, context.req.param('lease'), body);
    runningOf(hosted);
    await hosted.setMain(mainOf(fieldsOf(body)));
    return context.json({});
  });
  app.get('/:lease{[0-9]{1,20}}/logs', (context) => {
    const { output } = runningOf(open(context.req.raw, context.req.param('lease')));
    const pieces = output.read({ follow: context.req.query('follow') === '1', signal: context.req.raw.signal });
    return new Response(Readable.toWeb(Readable.from(pieces, { objectMode: false })) as unknown as ReadableStream);
  });
  app.post('/:lease{[0-9]{1,20}}/meter', async (context) => {
    const body = fieldsOf(await readRequest(context.req.raw, BODY_BYTES_MAX));
    const hosted = desk.find(leaseIdOf(context.req.param('lease')));
    const { spoken, up, signature } = await desk.exchange(hosted, Number(body.word), {
      spoken: bitsOf(body.spoken),
      up: bitsOf(body.up),
      signature: signatureOf(body.signature),
    });
    return context.json({ spoken: hex(spoken), up: hex(up), signature });
  });
  return app;
}

function framed(frames: AsyncGenerator<Uint8Array>): Response {
  const bytes = Readable.from(frames, { objectMode: false, highWaterMark: 1 << 16 });
  return new Response(Readable.toWeb(bytes) as unknown as ReadableStream, { headers: { 'content-type': 'application/octet-stream' } });
}

const hex = (bits: bigint) => `0x${bits.toString(16)}`;

function stateOf(hosted: HostedLease): Record<string, unknown> {
  const { spoken, up } = hosted.record.own.counts();
  const status = hosted.rental()?.status();
  return { isRunning: status !== undefined, ...status, intervals: spoken, intervalsUp: up, hasMain: hosted.record.main !== undefined };
}

function runningOf(hosted: HostedLease): Rental {
  const rental = hosted.rental();
  if (rental !== undefined) return rental;
  const { leaseId, from, until } = hosted.view();
  throw new MillraceError('lease-not-running', {
    actor: 'caller',
    message: `Lease ${leaseId} is not running: it is for the time from ${from} up to ${until}`,
    values: { leaseId, from, until },
    hint: 'Wait for its beginning, or rent again.',
  });
}

function whoSigned(request: Request, guard: ReturnType<typeof createReplayGuard>, body?: Uint8Array): Hex {
  const headers = Object.fromEntries(request.headers);
  const required = body === undefined ? [] : ['content-digest'];
  const recover = (digest: Hex, signature: Hex) => recoverAddress(digest, signature);
  const { address } = verifyRequest({ method: request.method, url: request.url, headers }, { recover, guard }, { required });
  if (body !== undefined && headers['content-digest'] !== contentDigest(body)) throw badCall('the body is not the one that was signed');
  return address;
}

/** The first line of a body, and what follows it. */
async function splitHead(body: ReadableStream<Uint8Array> | null): Promise<{ head: Uint8Array; rest: AsyncIterable<Uint8Array> }> {
  const pieces = (body ?? new ReadableStream<Uint8Array>())[Symbol.asyncIterator]();
  let held = Buffer.alloc(0);
  for (;;) {
    const end = held.indexOf(10);
    if (end !== -1) {
      const [head, first] = [held.subarray(0, end), held.subarray(end + 1)];
      const rest = async function* () {
        if (first.length > 0) yield first;
        for (let next = await pieces.next(); next.done !== true; next = await pieces.next()) yield next.value;
      };
      return { head, rest: rest() };
    }
    const next = await pieces.next();
    if (next.done === true || held.length > COMMAND_BYTES_MAX) throw badCall('its first line is no command');
    held = Buffer.concat([held, next.value]);
  }
}

function commandOf(value: unknown): WorkspaceCommand {
  const { argv, env = {}, cwd, tty = false } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const isText = (each: unknown) => typeof each === 'string';
  if (!Array.isArray(argv) || argv.length > WORDS_MAX || !argv.every(isText)) throw badCall('argv is no list of texts');
  if (typeof env !== 'object' || env === null || !Object.values(env).every(isText)) throw badCall('env is no object of texts');
  if ((cwd !== undefined && !isText(cwd)) || typeof tty !== 'boolean') throw badCall('cwd or tty is wrong');
  return { argv, env: env as Record<string, string>, cwd: cwd as string | undefined, tty };
}

/** A command, perhaps with the CID of an image. */
function mainOf(value: Record<string, unknown>): RentalMain {
  const { image } = value;
  if (image === undefined) return commandOf(value);
  if (typeof image === 'string' && isCid(image)) return { ...commandOf(value), image };
  throw badCall('image is no CID');
}

function fieldsOf(body: Uint8Array): Record<string, unknown> {
  const value = parseJson(body);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw badCall('the body is no object');
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    throw badCall('it is no JSON');
  }
}

function bitsOf(value: unknown): bigint {
  if (typeof value !== 'string' || !/^0x[0-9a-f]{1,64}$/.test(value)) throw badCall('spoken or up is no hex number of 256 bits');
  return BigInt(value);
}

function signatureOf(value: unknown): Hex {
  if (typeof value !== 'string' || !/^0x[0-9a-f]{130}$/.test(value)) throw badCall('signature is no hex number of 65 bytes');
  return value as Hex;
}

function portOf(text: string): number {
  const port = Number(text);
  if (port >= 1 && port <= 65_535) return port;
  throw badCall('a port is a number from 1 to 65535');
}

function leaseIdOf(text: string): bigint {
  return BigInt(text);
}

/** A few a second for each who asks: a probe costs the machine a millisecond, and a stranger should not cost it more. */
function limitProbes(probes: Map<string, number>, key: string): void {
  const nowMs = performance.now();
  const freeAt = Math.max(probes.get(key) ?? 0, nowMs - 1000);
  if (freeAt > nowMs) {
    throw new MillraceError('probes-too-many', {
      actor: 'caller',
      message: `More than ${PROBES_PER_SECOND} probes a second`,
      values: { limit: PROBES_PER_SECOND },
    });
  }
  if (probes.size > 10_000) probes.clear();
  probes.set(key, freeAt + 1000 / PROBES_PER_SECOND);
}

function problem(error: unknown): Response {
  const fault = toMillraceError(error);
  const status = STATUSES[fault.code] ?? (fault.code.startsWith('signature-') ? 401 : httpStatusOf(fault));
  const isInner = fault.actor === 'bug' || fault.actor === 'host';
  const body = isInner ? { code: fault.code, actor: fault.actor, message: 'Something went wrong inside this node' } : fault.toJSON();
  return Response.json(body, { status, headers: { 'content-type': 'application/problem+json' } });
}

function notTheRenter(leaseId: bigint): MillraceError {
  return new MillraceError('not-the-renter', {
    actor: 'caller',
    message: `Lease ${leaseId} belongs to another renter`,
    values: { leaseId },
    hint: 'Use the wallet that rented it.',
  });
}

function badCall(reason: string): MillraceError {
  return new MillraceError('bad-lease-call', {
    actor: 'caller',
    message: `The call to a rental cannot be answered: ${reason}`,
    values: { reason },
  });
}
