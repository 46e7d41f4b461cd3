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
import { openDealDesk } from './deal-desk.ts';
import { type Duty, startDuties } from './duty.ts';
import { type Health, openHealth } from './health.ts';
import { housekeepingDuty } from './housekeeping.ts';
import type { ProviderPolicy } from './intake.ts';
import { keeperDuty } from './keeper.ts';
import { proverDuty } from './prover.ts';
import { leaveDeals } from './provider-exit.ts';
import { createProviderRoutes } from './provider-routes.ts';
import { openReception, RECEPTION_LIMITS, type Reception, type ReceptionLimits } from './reception.ts';

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
  /** Leaves every running deal at once, proving each a last time; costs the leaving fee. Gives the deals left. */
  leave(): Promise<bigint[]>;
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
  const view = openTableView(client, operatorId);
  const domain = storageDomainOf(client);
  const checking = new Set<Promise<void>>();
  const beingChecked = new Set<DealRecord>();
  const check = (record: DealRecord) => {
    if (beingChecked.has(record)) return;
    beingChecked.add(record);
    const work = checkPiece({ record, records, reception, log }).finally(() => {
      checking.delete(work);
      beingChecked.delete(record);
    });
    checking.add(work);
  };
  const holds = (pieceRoot: `0x${string}`) => store.piece(pieceRoot) !== undefined;
  const everyMs = options.pollMs ?? 1_000;
  const room = async () => {
    const { freeBytes, accepting } = await desk.currentAsk();
    return { freeBytes, accepting };
  };
  const orders = openProviderOrders({
    client,
    signer,
    sender,
    operatorId,
    policy,
    records,
    log,
    room,
    holds,
    everyMs,
  });
  const { promisedBytes } = orders;
  const desk = openDealDesk({
    client,
    domain,
    signer,
    sender,
    operatorId,
    policy,
    records,
    folder,
    log,
    holds,
    promisedBytes,
    onReceived: check,
  });
  for (const record of records.all()) if (record.status === 'checking') check(record);

  const base = { client, sender, store, operatorId, view, log, everyMs };
  const health: Health = openHealth({ ...base, markerPath });
  const onLost = (dealIds: bigint[]) => health.report(dealIds);
  let lastProven: StorageProviderStatus['lastProven'];
  let provenCount = 0;
  const settleEveryPeriods = BigInt(options.settleEveryPeriods ?? 12);
  const duties: Record<DutyName, Duty> = {
    activation: activationDuty({ ...base, records }),
    prover: proverDuty({
      ...base,
      onLost,
      onProven(period, openings, gasUsed) {
        lastProven = { period, openings, gasUsed };
        provenCount += 1;
      },
    }),
    health: health.duty,
    challenges: challengesDuty({ ...base, onLost }),
    housekeeping: housekeepingDuty({
      ...base,
      records,
      reception,
      desk,
      settleEveryPeriods,
      onFaulty: (dealId) => health.report([dealId]),
    }),
    keeper: keeperDuty({ client, sender, log, operatorId: options.keepsOthers === true ? undefined : operatorId, everyMs: everyMs * 3 }),
    rewards: rewardsDuty({ client, sender, operatorId, log, everyMs: everyMs * 3 }),
    ...orders.duties,
    ...openProviderRepairs({ ...base, folder, records, room, policy: policy.repairs }),
  };
  const wanted = options.duties ?? (Object.keys(duties) as DutyName[]);
  const running = startDuties(
    wanted.map((name) => duties[name]),
    { log },
  );
  const trustless = createTrustlessGateway({ store });
  const web = createWebGateway({ open: async () => storeBlocks(store) });
  const gateway = (request: Request) => (isWebRequest(request) ? web(request) : trustless(request));
  const app = new Hono()
    .route('/v1/storage', createProviderRoutes({ domain, desk, reception, guard: createReplayGuard(), log }))
    .all('/ipfs/*', (context) => gateway(context.req.raw))
    .all('/piece/*', (context) => trustless(context.req.raw));
  log.info('provider-started', { operatorId, pieces: store.list().length, deals: records.all().length });

  const status = async (): Promise<StorageProviderStatus> => {
    const [{ freeBytes, accepting }, usage] = [await desk.currentAsk(), await store.usage()];
    const deals = { opening: 0, receiving: 0, checking: 0, stored: 0, acknowledged: 0, active: 0, lost: 0, over: 0 };
    for (const record of records.all()) deals[record.status] += 1;
    const { storedBytes } = usage;
    return { operatorId, accepting, deals, pieces: store.list().length, storedBytes, freeBytes, lostDeals: health.lost(), lastProven };
  };
  return {
    operatorId,
    store,
    fetch: async (request) => app.fetch(request),
    status,
    async metrics() {
      const now = await status();
      return {
        millrace_storage_pieces: now.pieces,
        millrace_storage_stored_bytes: now.storedBytes,
        millrace_storage_free_bytes: Number(now.freeBytes),
        millrace_storage_active_deals: now.deals.active,
        millrace_storage_lost_deals: now.lostDeals.length,
        millrace_storage_proofs_total: provenCount,
        millrace_storage_last_proof_gas: Number(now.lastProven?.gasUsed ?? 0n),
      };
    },
    drain: () => desk.close(),
    resume: () => desk.reopen(),
    async leave() {
      desk.close();
      return leaveDeals({ client, sender, store, operatorId, log });
    },
    async stop() {
      desk.close();
      await running.stop();
      await Promise.allSettled(checking);
      await store.close();
      log.info('provider-stopped', { operatorId });
    },
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
