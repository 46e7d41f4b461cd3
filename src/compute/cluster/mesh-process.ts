/**
 * A process in the mesh of one rental, started by the node within the rental's network namespace, as a user that owns nothing: it answers
 * peers and the rental's own programs (who belongs to the cluster, its newest checkpoint), asks the peers for theirs, and copies what is newer.
 * Several times a second it tells its node whom it heard. It ends with its node.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { systemClock } from '../../clock.ts';
import { toMillraceError } from '../../errors.ts';
import { readAtMost } from '../../read-at-most.ts';
import {
  type Checkpoint,
  compareAge,
  isCheckpointName,
  listCheckpoints,
  openCheckpoint,
  pruneCheckpoints,
  readCheckpoint,
  takeCheckpoint,
} from './checkpoints.ts';
import { type Heartbeat, MESH_PORT, type MeshOrder, type MeshReport, type MeshSettings } from './mesh-messages.ts';

const BEAT_MS = 400;
const ANSWER_TIMEOUT_MS = 1_500;
const COPY_TIMEOUT_MS = 15 * 60_000;
const ANSWER_BYTES_MAX = 64 << 10;
const CONNECTIONS_MAX = 512;

/** Debian’s `nobody`, who owns nothing. */
const NOBODY = 65_534;

const settings = JSON.parse(process.argv[2] ?? '{}') as MeshSettings;
// What is needed of the disk is loaded by now, so the checkout may lie where only its owner may read; and who stands in a folder reaches its
// files, though the folders above are closed to him.
process.chdir(settings.checkpointFolder);
const checkpointFolder = '.';
process.setgroups?.([]);
process.setgid?.(NOBODY);
process.setuid?.(NOBODY);

let order: MeshOrder | undefined;
let newest: Checkpoint | undefined;
let trouble: string | undefined;
let isCopying = false;
const heardAtMs = new Map<number, number>();
const offered = new Map<number, Checkpoint | undefined>();

const server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000, maxHeaderSize: 8_192 }, (request, response) => {
  answer(request, response).catch(() => response.destroy());
});
server.maxConnections = CONNECTIONS_MAX;
server.listen(MESH_PORT, settings.address, () => process.send?.({ isReady: true }));
process.on('message', (message: MeshOrder) => {
  if (message.signed.list.version !== order?.signed.list.version) offered.clear();
  order = message;
});
process.on('disconnect', () => process.exit(0));

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url ?? '/';
  if (request.method !== 'GET') return void response.writeHead(405).end();
  if (path === '/heartbeat') {
    const heartbeat: Heartbeat = { seat: settings.seat, version: order?.signed.list.version ?? 0, newest };
    return sendText(response, 'application/json', JSON.stringify(heartbeat));
  }
  if (path === '/members' && order !== undefined) return sendText(response, 'application/json', JSON.stringify(order.signed));
  if (path === '/hostfile' && order !== undefined) return sendText(response, 'text/plain', order.hostfile);
  const name = decodeURIComponent(path.startsWith('/checkpoints/') ? path.slice('/checkpoints/'.length) : '');
  if (!isCheckpointName(name)) return void response.writeHead(404).end();
  const bytes = openCheckpoint(checkpointFolder, name);
  bytes.once('error', () => response.writeHead(404).end());
  bytes.pipe(response);
}

function sendText(response: ServerResponse, type: string, content: string): void {
  response.writeHead(200, { 'content-type': type, 'content-length': Buffer.byteLength(content) }).end(content);
}

/** Hears every peer once, and takes the newest checkpoint among them when it is newer than the own. */
async function beat(): Promise<void> {
  await refreshNewest();
  await Promise.all((order?.peers ?? []).map((peer) => hear(peer)));
  const best = newestOf([...offered.values()]);
  if (best === undefined || isCopying || (newest !== undefined && compareAge(best.name, newest.name) <= 0)) return;
  isCopying = true;
  void copy(best).finally(() => {
    isCopying = false;
  });
}

async function hear({ seat, address }: { seat: number; address: string }): Promise<void> {
  try {
    const response = await fetch(`http://${address}:${MESH_PORT}/heartbeat`, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    const heartbeat = JSON.parse((await readAtMost(response.body, ANSWER_BYTES_MAX)).toString('utf8')) as Heartbeat;
    heardAtMs.set(seat, performance.now());
    offered.set(seat, isOffer(heartbeat.newest) ? heartbeat.newest : undefined);
  } catch {
    // Silence is what the node is told, by what it was last heard.
  }
}

async function copy(checkpoint: Checkpoint): Promise<void> {
  const holder = order?.peers.find(({ seat }) => offered.get(seat)?.cid === checkpoint.cid);
  if (holder === undefined) return;
  try {
    if (checkpoint.sizeBytes > settings.checkpointBytesMax) throw new TypeError(`${checkpoint.name} is larger than the folder`);
    const url = `http://${holder.address}:${MESH_PORT}/checkpoints/${encodeURIComponent(checkpoint.name)}`;
    const response = await fetch(url, { signal: AbortSignal.timeout(COPY_TIMEOUT_MS) });
    if (!response.ok || response.body === null) throw new TypeError(`${checkpoint.name} is not there any more`);
    await takeCheckpoint(checkpointFolder, checkpoint, response.body);
    await refreshNewest();
    trouble = undefined;
  } catch (error) {
    trouble = toMillraceError(error).message;
  }
}

async function refreshNewest(): Promise<void> {
  const name = (await listCheckpoints(checkpointFolder).catch(() => [])).at(-1);
  if (name === newest?.name) return;
  newest = name === undefined ? undefined : await readCheckpoint(checkpointFolder, name);
  await pruneCheckpoints(checkpointFolder);
}

function isOffer(value: unknown): value is Checkpoint {
  const { name, cid, sizeBytes } = (value ?? {}) as Record<string, unknown>;
  return typeof name === 'string' && isCheckpointName(name) && typeof cid === 'string' && Number.isSafeInteger(sizeBytes);
}

function newestOf(checkpoints: readonly (Checkpoint | undefined)[]): Checkpoint | undefined {
  return checkpoints.reduce((best, each) => {
    if (each === undefined) return best;
    return best === undefined || compareAge(each.name, best.name) > 0 ? each : best;
  }, undefined);
}

function report(): MeshReport {
  const nowMs = performance.now();
  const heardMs = Object.fromEntries([...heardAtMs].map(([seat, atMs]) => [seat, Math.round(nowMs - atMs)]));
  return {
    version: order?.signed.list.version ?? 0,
    heardMs,
    newest,
    newestOfPeers: newestOf([...offered.values()]),
    answers: offered.size,
    trouble,
  };
}

for (;;) {
  await beat().catch((error: unknown) => {
    trouble = toMillraceError(error).message;
  });
  process.send?.(report());
  await systemClock.sleep(BEAT_MS);
}
