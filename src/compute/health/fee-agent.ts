import type { Hex } from 'viem';
import type { ChainClient, ChainEvent, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { PHASE } from '../jobs/job-chain.ts';
import type { HealthView } from './health-view.ts';

/** What an agent of fees stands on. */
export interface FeeAgentOptions {
  client: ChainClient;
  sender: Sender;
  operatorId: bigint;
  view: Pick<HealthView, 'hourAt'>;
  log: Logger;
}

/** What an operator's rewards have come to. */
export interface RewardState {
  /** Could be granted now, native base units. */
  grantable: bigint;
  /** Whether performance gives it more than the burnt fees of its supply allow. */
  isLimitedByFees: boolean;
}

/** `sources` of ComputeRewards. */
const SOURCES = { leaseFees: 0n, jobFees: 1n } as const;
type Source = keyof typeof SOURCES;
type Blocks = { fromBlock: bigint; toBlock: bigint };
type Terms = ChainEvent<'computeJobs', 'JobOpened'>['args']['terms'];

/** Jobs in one sum: 1.5 million gas. */
const JOBS_MAX = 32;
/** Leases or sums that are counted in one transaction. */
const IDS_MAX = 16;
/** Events are read in steps, so that what is kept is what still waits, however old the network is. */
const STEP_BLOCKS = 100_000n;

/** An operator's rewards as the chain has them now. */
export async function readRewards(client: ChainClient, operatorId: bigint): Promise<RewardState> {
  const [account, { shareBps }] = await Promise.all([
    client.read('computeRewards', 'accountOf', [operatorId]),
    client.read('computeRewards', 'config'),
  ]);
  const allowed = (account.burntFees * BigInt(shareBps)) / 10_000n;
  const isLimitedByFees = account.entitled > allowed;
  return { isLimitedByFees, grantable: (isLimitedByFees ? allowed : account.entitled) - account.granted };
}

/**
 * Has the fees counted that an operator's supply has paid, each once: of closed leases one by one, of settled jobs in sums of up to 32. Jobs are
 * brought once in an hour of health, and only while fees are what limits the operator's rewards: they can be counted at any later time. All is read
 * from the chain, so nothing is lost by a restart, and what others have brought or counted is left out.
 */
export class FeeAgent {
  readonly #options: FeeAgentOptions;
  readonly #sources: readonly Source[];
  readonly #uncounted: Record<Source, Set<bigint>> = { leaseFees: new Set(), jobFees: new Set() };
  /** Jobs that are in no sum, settled or not. */
  readonly #jobs = new Map<Hex, Terms>();
  #readTo: bigint | undefined;
  #broughtIn: number | undefined;

  constructor(options: FeeAgentOptions) {
    this.#options = options;
    // A network that was deployed before jobs counted has no second source.
    const { modules } = options.client.manifest;
    this.#sources = (Object.keys(SOURCES) as Source[]).filter((source) => modules[source] !== undefined);
  }

  /** Has closed leases counted, some at a look. @throws chain-unreachable, or what a contract refuses */
  async countLeases(): Promise<void> {
    await this.#follow();
    await this.#count('leaseFees');
  }

  /** Brings settled jobs where it is time for it, and has sums counted. @throws chain-unreachable, or what a contract refuses */
  async countJobs(): Promise<void> {
    if (!this.#sources.includes('jobFees')) return;
    await this.#follow();
    if (await this.#bringJobs()) await this.#follow();
    await this.#count('jobFees');
  }

  /** What happened since the last look. */
  async #follow(): Promise<void> {
    const { client } = this.#options;
    const head = await client.public.getBlockNumber({ cacheTime: 0 });
    let from = this.#readTo === undefined ? BigInt(client.manifest.modules.computeMarket?.deployBlock ?? 0) : this.#readTo + 1n;
    for (; from <= head; from += STEP_BLOCKS) {
      const to = from + STEP_BLOCKS - 1n < head ? from + STEP_BLOCKS - 1n : head;
      const blocks = { fromBlock: from, toBlock: to };
      await this.#readLeases(blocks);
      if (this.#sources.includes('jobFees')) await this.#readJobs(blocks);
      await this.#readCounted(blocks);
      this.#readTo = to;
    }
  }

  async #readLeases(blocks: Blocks): Promise<void> {
    const { client, operatorId } = this.#options;
    for (const { args } of await client.events({ name: 'computeMarket', event: 'LeaseClosed', ...blocks })) {
      const lease = await client.read('computeMarket', 'lease', [args.leaseId]);
      if (lease.operatorId === operatorId) this.#uncounted.leaseFees.add(args.leaseId);
    }
  }

  async #readJobs(blocks: Blocks): Promise<void> {
    const { client, operatorId } = this.#options;
    const [opened, summed] = await Promise.all([
      client.events({ name: 'computeJobs', event: 'JobOpened', args: { operatorId }, ...blocks }),
      client.events({ name: 'jobFees', event: 'FeesSummed', args: { operatorId }, ...blocks }),
    ]);
    for (const { args } of opened) this.#jobs.set(args.jobId, args.terms);
    for (const { args } of summed) {
      for (const jobId of args.jobIds) this.#jobs.delete(jobId);
      this.#uncounted.jobFees.add(args.id);
    }
  }

  /** Numbers of leases and of sums are the same: what counts is of which source one is. */
  async #readCounted(blocks: Blocks): Promise<void> {
    const { client, operatorId } = this.#options;
    for (const source of this.#sources) {
      const args = { operatorId, source: client.address(source) };
      for (const counted of await client.events({ name: 'computeRewards', event: 'FeesCounted', args, ...blocks })) {
        this.#uncounted[source].delete(counted.args.id);
      }
    }
  }

  /** @returns whether a sum was made */
  async #bringJobs(): Promise<boolean> {
    const { client, sender, operatorId, view, log } = this.#options;
    const hour = view.hourAt(await client.now());
    if (this.#jobs.size === 0 || this.#broughtIn === hour) return false;
    if (!(await readRewards(client, operatorId)).isLimitedByFees) return false;
    const settled: Terms[] = [];
    for (const [jobId, terms] of this.#jobs) {
      if (settled.length === JOBS_MAX) break;
      if ((await client.read('computeJobs', 'job', [jobId])).phase === PHASE.settled) settled.push(terms);
    }
    if (settled.length > 0) {
      await sender.send({ contract: 'jobFees', functionName: 'sumUp', args: [settled] });
      log.info('job-fees-summed', { jobs: settled.length });
    }
    // More of them wait for the next look, which is soon: other duties are not kept waiting.
    if (settled.length < JOBS_MAX) this.#broughtIn = hour;
    return settled.length > 0;
  }

  async #count(source: Source): Promise<void> {
    const { sender, log } = this.#options;
    const ids = [...this.#uncounted[source]].slice(0, IDS_MAX);
    if (ids.length === 0) return;
    try {
      await sender.send({ contract: 'computeRewards', functionName: 'countFees', args: [SOURCES[source], ids] });
    } catch (error) {
      // Somebody else was quicker with one of them: the next look knows with which.
      if (error instanceof MillraceError && error.code === 'already-counted') return;
      throw error;
    }
    for (const id of ids) this.#uncounted[source].delete(id);
    log.info('fees-counted', { source, count: ids.length });
  }
}
