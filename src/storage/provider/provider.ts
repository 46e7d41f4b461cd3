import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Hono } from 'hono';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { createReplayGuard } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { storageDomainOf } from '../market/chain-view.ts';
import { type DealRecord, type DealRecords, openDealRecords } from '../market/deal-records.ts';
import { openProviderOrders } from '../orders/provider-orders.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { openPieceStore, type PieceStore } from '../pieces/piece-store.ts';
import { storeBlocks } from '../pieces/store-blocks.ts';
import { createWebGateway, isWebRequest } from '../pieces/web-gateway.ts';
import { openTableView } from '../possession/table-view.ts';
import { openProviderRepairs } from '../repair/provider-repairs.ts';
import { rewardsDuty } from '../rewards/rewards-duty.ts';
import { activationDuty } from './activation.ts';
import { challengesDuty } from './challenges.ts';
import { type DealDesk, openDealDesk } from './deal-desk.ts';
import { type Duty, startDuties, watchHead } from './duty.ts';
import { type Health, openHealth } from './health.ts';
import { housekeepingDuty } from './housekeeping.ts';
import type { ProviderPolicy } from './intake.ts';
import { keeperDuty } from './keeper.ts';
import { proverDuty } from './prover.ts';
import { type LeaveReport, leaveDeals } from './provider-exit.ts';
import { createProviderRoutes } from './provider-routes.ts';
import { openReception, RECEPTION_LIMITS, type Reception, type ReceptionLimits } from './reception.ts';

const POLL_MS = 1_000;

/** What a storage provider stands on. Its state is on its own disk and on chain; no database. */
export interface StorageProviderOptions {
  /** The provider's own data folder. */
  folder: string;
  client: ChainClient;
  /** The operator's node key: signs asks and deals. */
  signer: Signer;
  /** Sends with the same key. */
  sender: Sender;
  operatorId: bigint;
  policy: ProviderPolicy;
  log: Logger;
  limits?: ReceptionLimits;
  /** Periods between two settlements of a running deal (default 12). */
  settleEveryPeriods?: number;
  /** Also does for other operators' deals what anyone may do, and earns the rewards (default false). */
  keepsOthers?: boolean;
  /** Which duties run; all of them by default. Tests leave some out to be a bad provider. */
  duties?: readonly DutyName[];
  /** Milliseconds between looks at the chain (default 1,000). */
  pollMs?: number;
}

/** The duties of a provider. */
export type DutyName =
  | 'activation'
  | 'prover'
  | 'health'
  | 'challenges'
  | 'housekeeping'
  | 'keeper'
  | 'rewards'
  | 'standing-ask'
  | 'matched-deals'
  | 'verdicts'
  | 'matcher'
  | 'file-keeper'
  | 'repairer';

/** What a provider says of itself. Sizes in bytes. */
export interface StorageProviderStatus {
  operatorId: bigint;
  accepting: boolean;
  deals: Record<DealRecord['status'], number>;
  pieces: number;
  storedBytes: number;
  freeBytes: bigint;
  lostDeals: bigint[];
  lastProven: { period: bigint; openings: number; gasUsed: bigint } | undefined;
}

/** A running provider. */
export interface StorageProvider {
  operatorId: bigint;
  store: PieceStore;
  /** Answers `/v1/storage/…`, `/ipfs/…` and `/piece/…`. */
  fetch(request: Request): Promise<Response>;
  status(): Promise<StorageProviderStatus>;
  /** Numbers for `/metrics`, by name. */
  metrics(): Promise<Record<string, number>>;
  /** Takes no new deals; those that run go on to their end. */
  drain(): void;
  /** Takes deals again. */
  resume(): void;
  /** Leaves what can be left now, proving each a last time; costs the leaving fee. Shards of files are held until they are handed over. */
  leave(): Promise<LeaveReport>;
  /** Finishes what is under way and closes all files. The chain and the disk keep everything for the next start. */
  stop(): Promise<void>;
}

/**
 * Starts the storage provider role: takes deals, receives and checks pieces, activates, proves every period, answers
 * challenges, serves content, settles, and cleans up.
 * @throws disk-full, file-damaged, operator-mismatch, chain-unreachable
 */
export async function startStorageProvider(options: StorageProviderOptions): Promise<StorageProvider> {
  const { folder, client, signer, sender, operatorId, policy, log } = options;
  await requireOperator(client, operatorId, signer);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const markerPath = join(folder, 'store', 'marker');
  const store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: Number(policy.quotaBytes), log });
  await writeFile(markerPath, 'The pieces of a Millrace storage provider are in this folder.\n', { flag: 'a' });
  const records = await openDealRecords(join(folder, 'deals'));
  const reception = openReception(store, options.limits ?? RECEPTION_LIMITS);
  const checks = startPieceChecks({ records, reception, log });
  const parts = openDealParts({ ...options, store, records, onReceived: checks.check });
  const { desk } = parts;
  for (const record of records.all()) if (record.status === 'checking') checks.check(record);
  const { duties, health, proofs } = createDuties({ ...options, ...parts, store, records, reception, markerPath });
  const wanted = options.duties ?? (Object.keys(duties) as DutyName[]);
  const running = startDuties(
    wanted.map((name) => duties[name]),
    { log, head: watchHead(client) },
  );
  const app = createProviderApp({ client, store, desk, reception, log });
  log.info('provider-started', { operatorId, pieces: store.list().length, deals: records.all().length });

  const status = async (): Promise<StorageProviderStatus> => {
    const [{ freeBytes, accepting }, { storedBytes }] = [await desk.currentAsk(), await store.usage()];
    const deals = { opening: 0, receiving: 0, checking: 0, stored: 0, acknowledged: 0, active: 0, lost: 0, over: 0 };
    for (const record of records.all()) deals[record.status] += 1;
    const lastProven = proofs.last;
    return { operatorId, accepting, deals, pieces: store.list().length, storedBytes, freeBytes, lostDeals: health.lost(), lastProven };
  };
  return {
    operatorId,
    store,
    fetch: async (request) => app.fetch(request),
    status,
    metrics: async () => metricsOf(await status(), proofs.count),
    drain: () => desk.close(),
    resume: () => desk.reopen(),
    async leave() {
      desk.close();
      return leaveDeals({ client, sender, store, records, operatorId, log });
    },
    async stop() {
      desk.close();
      await running.stop();
      await checks.settled();
      await store.close();
      log.info('provider-stopped', { operatorId });
    },
  };
}

/** The desk for deals of their own and the orders of the open market: both promise room on the same disk. */
function openDealParts(
  options: StorageProviderOptions & { store: PieceStore; records: DealRecords; onReceived: (record: DealRecord) => void },
) {
  const { client, folder, signer, sender, operatorId, policy, log, store, records, onReceived } = options;
  const holds = (pieceRoot: `0x${string}`) => store.piece(pieceRoot) !== undefined;
  const shared = { client, signer, sender, operatorId, policy, records, log, holds };
  const room = async () => {
    const { freeBytes, accepting } = await desk.currentAsk();
    return { freeBytes, accepting };
  };
  const orders = openProviderOrders({ ...shared, room, everyMs: options.pollMs ?? POLL_MS });
  const { promisedBytes } = orders;
  const desk: DealDesk = openDealDesk({ ...shared, domain: storageDomainOf(client), folder, promisedBytes, onReceived });
  return { desk, orders, room };
}

/** What the prover has done since the start. */
interface Proofs {
  count: number;
  last: StorageProviderStatus['lastProven'];
}

function createDuties(
  options: StorageProviderOptions &
    ReturnType<typeof openDealParts> & { store: PieceStore; records: DealRecords; reception: Reception; markerPath: string },
): { duties: Record<DutyName, Duty>; health: Health; proofs: Proofs } {
  const { client, sender, operatorId, log, folder, policy, store, records, reception, desk, orders, room } = options;
  const everyMs = options.pollMs ?? POLL_MS;
  const base = { client, sender, store, operatorId, view: openTableView(client, operatorId), log, everyMs };
  const health = openHealth({ ...base, markerPath: options.markerPath });
  const onLost = (dealIds: bigint[]) => health.report(dealIds);
  const onFaulty = (dealId: bigint) => health.report([dealId]);
  const proofs: Proofs = { count: 0, last: undefined };
  const onProven = (period: bigint, openings: number, gasUsed: bigint) => {
    proofs.last = { period, openings, gasUsed };
    proofs.count += 1;
  };
  const settleEveryPeriods = BigInt(options.settleEveryPeriods ?? 12);
  const duties: Record<DutyName, Duty> = {
    activation: activationDuty({ ...base, records }),
    prover: proverDuty({ ...base, onLost, onProven }),
    health: health.duty,
    challenges: challengesDuty({ ...base, onLost }),
    housekeeping: housekeepingDuty({ ...base, records, reception, desk, settleEveryPeriods, onFaulty }),
    keeper: keeperDuty({ client, sender, log, operatorId: options.keepsOthers === true ? undefined : operatorId, everyMs: everyMs * 3 }),
    rewards: rewardsDuty({ client, sender, operatorId, log, everyMs: everyMs * 3 }),
    ...orders.duties,
    ...openProviderRepairs({ ...base, folder, records, room, policy: policy.repairs }),
  };
  return { duties, health, proofs };
}

/** Deals at `/v1/storage`, pieces and blocks at `/piece` and `/ipfs`. */
function createProviderApp(options: { client: ChainClient; store: PieceStore; desk: DealDesk; reception: Reception; log: Logger }): Hono {
  const { client, store, desk, reception, log } = options;
  const trustless = createTrustlessGateway({ store });
  const web = createWebGateway({ open: async () => storeBlocks(store) });
  const gateway = (request: Request) => (isWebRequest(request) ? web(request) : trustless(request));
  const routes = createProviderRoutes({ domain: storageDomainOf(client), desk, reception, guard: createReplayGuard(), log });
  return new Hono()
    .route('/v1/storage', routes)
    .all('/ipfs/*', (context) => gateway(context.req.raw))
    .all('/piece/*', (context) => trustless(context.req.raw));
}

function metricsOf(now: StorageProviderStatus, provenCount: number): Record<string, number> {
  return {
    millrace_storage_pieces: now.pieces,
    millrace_storage_stored_bytes: now.storedBytes,
    millrace_storage_free_bytes: Number(now.freeBytes),
    millrace_storage_active_deals: now.deals.active,
    millrace_storage_lost_deals: now.lostDeals.length,
    millrace_storage_proofs_total: provenCount,
    millrace_storage_last_proof_gas: Number(now.lastProven?.gasUsed ?? 0n),
  };
}

/** Checks received pieces in the background, each one once at a time. */
function startPieceChecks(options: { records: DealRecords; reception: Reception; log: Logger }) {
  const underWay = new Map<DealRecord, Promise<void>>();
  return {
    check(record: DealRecord): void {
      if (underWay.has(record)) return;
      underWay.set(
        record,
        checkPiece({ record, ...options }).finally(() => underWay.delete(record)),
      );
    },
    settled: () => Promise.allSettled(underWay.values()),
  };
}

/** Verifies a received piece; wrong bytes are forgotten, and the client may send again until the deadline. */
async function checkPiece(options: { record: DealRecord; records: DealRecords; reception: Reception; log: Logger }): Promise<void> {
  const { record, records, reception, log } = options;
  try {
    record.status = 'checking';
    await records.save(record);
    await reception.commit(record);
    record.status = 'stored';
    record.reason = undefined;
  } catch (error) {
    const { code, message } = error as MillraceError;
    log.warn('piece-refused', { dealId: record.dealId, code, reason: message });
    record.status = 'receiving';
    record.reason = code ?? message;
  }
  await records.save(record);
}

async function requireOperator(client: ChainClient, operatorId: bigint, signer: Signer): Promise<void> {
  const known = await client.read('operators', 'operatorOfNodeKey', [signer.address]);
  if (known === operatorId) return;
  throw new MillraceError('operator-mismatch', {
    actor: 'caller',
    message: `Node key ${signer.address} belongs to operator ${known}, expected ${operatorId}`,
    values: { nodeKey: signer.address, got: known, expected: operatorId },
    hint: 'Register the operator with this node key, or use the key that the chain knows.',
  });
}
