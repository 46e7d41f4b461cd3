import type { Address, Hex } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError, toMillraceError } from '../errors.ts';
import { type Logger, silentLogger } from '../log.ts';
import { claimChannels } from './channels.ts';
import type { ClaimableChannel, Receiver } from './voucher-receiver.ts';

/** How a claimer works. */
export interface ClaimerOptions {
  client: ChainClient;
  receiver: Receiver;
  /** The receiver or its authorizer. */
  sender: Sender;
  /** Protocol time between claims, seconds; the receiver's `claimIntervalSeconds`. */
  intervalSeconds: number;
  /** When so much of one token could be claimed, it is, without waiting. Base units; default: never. */
  riskThreshold?: bigint;
  /** Channels in one transaction. Default 200 (3.6 million gas). */
  batchMax?: number;
  /** Called after claims that were paid out; when it fails that is logged, and the claims stand. It must be good to call late or again. */
  afterSettlement?: () => Promise<unknown>;
  log?: Logger;
}

/** What a round of claims did. */
export interface ClaimReport {
  transactions: Hex[];
  channels: number;
  /** Base units by token. */
  amounts: Map<Address, bigint>;
  gasUsed: bigint;
}

/** Turns vouchers into money: at an interval, at a risk threshold, and at once when a payer asks for its money back. */
export interface Claimer {
  /** Claims all that can be claimed, now. @throws the contract's error code, chain-unreachable */
  claimNow(): Promise<ClaimReport>;
  /** Ends after the round in the making. */
  stop(): Promise<void>;
}

const BATCH_MAX = 200;
const SURVEYS_AT_ONCE = 8;

/**
 * Starts claiming for a receiver. Nothing is remembered but what the receiver's store and the chain have: claims are cumulative, so one that
 * a crash has cut off is simply made again, and a withdrawal that began while nobody watched is found by looking at every channel with
 * unclaimed money at the start.
 * @throws claimer-not-authorised
 */
export function startClaimer(options: ClaimerOptions): Claimer {
  const { receiver, sender, client, log = silentLogger } = options;
  if (![receiver.receiver, receiver.receiverAuthorizer].some((address) => address.toLowerCase() === sender.address.toLowerCase())) {
    throw new MillraceError('claimer-not-authorised', {
      actor: 'caller',
      message: `${sender.address} may not claim for ${receiver.receiver}`,
      values: { got: sender.address, expected: [receiver.receiver, receiver.receiverAuthorizer] },
    });
  }
  const rounds = new ClaimRounds(options);
  const ending = new AbortController();
  const watching = client
    .watchBlocks(async ({ number, timestamp }) => {
      try {
        await rounds.onBlock(number, timestamp);
      } catch (error) {
        // The next block tries again.
        const { code, message } = toMillraceError(error);
        log.error('claim-failed', { code, reason: message });
      }
    }, ending.signal)
    .catch((error) => {
      if (!ending.signal.aborted) log.error('claimer-ended', { reason: String(error) });
    });
  return {
    claimNow: () => rounds.claim(receiver.claimable()),
    async stop() {
      ending.abort();
      await watching;
      await rounds.idle();
    },
  };
}

class ClaimRounds {
  readonly #options: ClaimerOptions;
  readonly #log: Logger;
  #turn: Promise<unknown> = Promise.resolve();
  #lastClaimAt: bigint | undefined;
  /** First block whose events were not looked at; undefined until the channels were surveyed. */
  #nextBlock: bigint | undefined;
  /** Channels whose payers want their money back. */
  readonly #closing = new Set<Hex>();

  constructor(options: ClaimerOptions) {
    this.#options = options;
    this.#log = options.log ?? silentLogger;
  }

  idle(): Promise<unknown> {
    return this.#turn;
  }

  async onBlock(number: bigint, timestamp: bigint): Promise<void> {
    await this.#findClosing(number);
    const { receiver, intervalSeconds, riskThreshold } = this.#options;
    this.#lastClaimAt ??= timestamp;
    const claimable = receiver.claimable();
    const urgent = claimable.filter(({ channel }) => this.#closing.has(channel.key));
    const isDue = timestamp >= this.#lastClaimAt + BigInt(intervalSeconds);
    const isRisky = riskThreshold !== undefined && [...sumByToken(claimable).values()].some((sum) => sum >= riskThreshold);
    if (isDue || isRisky) {
      await this.claim(claimable);
      this.#lastClaimAt = timestamp;
    } else if (urgent.length > 0) {
      await this.claim(urgent);
    }
    // Requests may still be open on a closing channel: it is looked at until the withdrawal is over.
    for (const channelId of this.#closing) {
      if ((await receiver.refresh(channelId)).withdrawal === undefined) this.#closing.delete(channelId);
    }
  }

  claim(claimable: readonly ClaimableChannel[]): Promise<ClaimReport> {
    const round = this.#turn.then(() => this.#claimAll(claimable));
    this.#turn = round.catch(() => {});
    return round;
  }

  async #claimAll(claimable: readonly ClaimableChannel[]): Promise<ClaimReport> {
    const report: ClaimReport = { transactions: [], channels: 0, amounts: new Map(), gasUsed: 0n };
    const byToken = new Map<Address, ClaimableChannel[]>();
    for (const entry of claimable) {
      const { token } = entry.channel.config;
      byToken.set(token, [...(byToken.get(token) ?? []), entry]);
    }
    for (const entries of byToken.values()) {
      for (let at = 0; at < entries.length; at += this.#options.batchMax ?? BATCH_MAX) {
        await this.#claimBatch(entries.slice(at, at + (this.#options.batchMax ?? BATCH_MAX)), report);
      }
    }
    if (report.transactions.length > 0) await this.#tellSettled();
    return report;
  }

  async #tellSettled(): Promise<void> {
    try {
      await this.#options.afterSettlement?.();
    } catch (error) {
      const { code, message } = toMillraceError(error);
      this.#log.warn('after-settlement-failed', { code, reason: message });
    }
  }

  /** One channel that cannot be claimed any more must not hold up the others: it is looked at, and the rest claimed. */
  async #claimBatch(entries: ClaimableChannel[], report: ClaimReport): Promise<void> {
    const { sender, receiver } = this.#options;
    let batch = entries;
    while (batch.length > 0) {
      try {
        const claims = batch.map(({ channel, total }) => ({ config: channel.config, voucher: channel.voucher, total }));
        const { transaction, gasUsed } = await claimChannels({ sender, claims });
        for (const [token, sum] of sumByToken(batch)) report.amounts.set(token, (report.amounts.get(token) ?? 0n) + sum);
        report.transactions.push(transaction);
        report.channels += batch.length;
        report.gasUsed += gasUsed;
        await Promise.all(batch.map(({ channel, total }) => receiver.noteClaimed(channel.key, total)));
        this.#log.info('vouchers-claimed', { channels: batch.length, transaction, gasUsed });
        return;
      } catch (error) {
        const { code, values } = toMillraceError(error);
        const bad = batch.find(({ channel }) => channel.key === String(values.channelId).toLowerCase());
        if (code !== 'claim-exceeds-balance' || bad === undefined) throw error;
        const { balance } = await receiver.refresh(bad.channel.key);
        this.#log.error('voucher-lost', { channelId: bad.channel.key, charged: bad.total, balance });
        const rest = balance > bad.channel.claimed && balance < bad.total ? [{ ...bad, total: balance }] : [];
        batch = [...batch.filter((entry) => entry !== bad), ...rest];
      }
    }
  }

  /** Finds withdrawals that began: at first by looking at all channels with unclaimed money, then by events. */
  async #findClosing(number: bigint): Promise<void> {
    const { client, receiver } = this.#options;
    if (this.#nextBlock === undefined) {
      const ids = receiver.claimable().map(({ channel }) => channel.key);
      for (let at = 0; at < ids.length; at += SURVEYS_AT_ONCE) {
        await Promise.all(
          ids.slice(at, at + SURVEYS_AT_ONCE).map(async (channelId) => {
            if ((await receiver.refresh(channelId)).withdrawal !== undefined) this.#closing.add(channelId);
          }),
        );
      }
    } else if (number >= this.#nextBlock) {
      const query = { name: 'channels', event: 'WithdrawInitiated', fromBlock: this.#nextBlock, toBlock: number } as const;
      const ours = new Set([...receiver.channels()].map(({ key }) => key));
      for (const { args } of await client.events(query)) {
        if (!ours.has(args.channelId)) continue;
        this.#log.warn('withdrawal-began', { channelId: args.channelId, amount: args.amount, finalizeAfter: args.finalizeAfter });
        this.#closing.add(args.channelId);
        await receiver.refresh(args.channelId);
      }
    }
    this.#nextBlock = number + 1n;
  }
}

function sumByToken(entries: readonly ClaimableChannel[]): Map<Address, bigint> {
  const sums = new Map<Address, bigint>();
  for (const { channel, total } of entries) {
    const { token } = channel.config;
    sums.set(token, (sums.get(token) ?? 0n) + total - channel.claimed);
  }
  return sums;
}
