import type { Hex } from 'viem';
import type { ChannelConfig, SignedVoucher } from './voucher.ts';
import { openVoucherJournal } from './voucher-journal.ts';

/** A payment that was taken: the step from one voucher to the next. */
export interface PaymentStep {
  /** The payer's name for it, if it gave one. */
  id: string | undefined;
  /** The voucher's maximum after it. */
  max: bigint;
  amount: bigint;
  /** Hash of what was paid for. */
  resource: Hex;
  /** How often the payer asked for the same again. */
  repeats: number;
}

/** What a receiver must remember of a channel. */
export interface ReceiverChannel {
  key: Hex;
  config: ChannelConfig;
  /** The highest voucher. */
  voucher: SignedVoucher;
  /** What was charged of it; the rest is the payer's. Never above the voucher. */
  charged: bigint;
  /** The latest payments, so that a repetition is not charged again. */
  steps: PaymentStep[];
  /** Unix time of the last payment, seconds. */
  usedAt: number;
  /** What the chain is known to have recorded as claimed. */
  claimed: bigint;
}

/** A receiver's channels, durable. */
export interface VoucherStore {
  get(channelId: Hex): ReceiverChannel | undefined;
  all(): Iterable<ReceiverChannel>;
  readonly size: number;
  /** Resolves when the state is on the disk; others that come in the same moment share the fsync. @throws voucher-journal-unwritable */
  put(channel: ReceiverChannel): Promise<void>;
  close(): Promise<void>;
}

/** Opens a receiver's memory of its channels. @throws voucher-journal-broken */
export function openVoucherStore(path: string): VoucherStore {
  const channels = new Map<Hex, ReceiverChannel>();
  const journal = openVoucherJournal<ReceiverChannel>({
    path,
    apply: (channel) => channels.set(channel.key, channel),
    current: () => channels.values(),
  });
  return {
    get: (channelId) => channels.get(channelId),
    all: () => channels.values(),
    get size() {
      return channels.size;
    },
    put(channel) {
      channels.set(channel.key, channel);
      return journal.append(channel);
    },
    close: () => journal.close(),
  };
}
