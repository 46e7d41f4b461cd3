import { checkView, type EventArgs, type ReadView, type Replay, Sums } from './replay.ts';

const BPS = 10_000n;

interface Channel {
  receiver: string;
  token: string;
  balance: bigint;
  claimed: bigint;
}

/** Payment channels: balances, claims, what receivers were paid, and the fee that was burnt of it, however settlements were cut. */
export function replayChannels(options: { feeToken: string; feeBps: bigint }): Replay {
  const feeToken = options.feeToken.toLowerCase();
  const channels = new Map<string, Channel>();
  const claimed = new Sums(); // "receiver token"
  const settled = new Sums();
  const burnt = new Sums(); // receiver
  const unknown = (): Channel => ({ receiver: 'unknown', token: 'unknown', balance: 0n, claimed: 0n });
  const channelOf = (args: EventArgs) => channels.get(args.word('channelId')) ?? unknown();
  const giveBack = (args: EventArgs) => {
    channelOf(args).balance -= args.int('amount');
  };
  return {
    group: 'channels',
    handlers: {
      'channels.ChannelCreated'(args) {
        const config = args.inner('config');
        const before = channels.get(args.word('channelId'));
        if (before === undefined) {
          channels.set(args.word('channelId'), { ...unknown(), receiver: config.account('receiver'), token: config.account('token') });
        }
      },
      'channels.Deposited'(args, _event, report) {
        const channel = channelOf(args);
        channel.balance += args.int('amount');
        if (channel.balance !== args.int('newBalance'))
          report(`balance of channel ${args.word('channelId')}`, channel.balance, args.int('newBalance'));
      },
      'channels.Claimed'(args, _event, report) {
        const channel = channelOf(args);
        channel.claimed += args.int('claimAmount');
        claimed.add(`${channel.receiver} ${channel.token}`, args.int('claimAmount'));
        const total = args.int('newTotalClaimed');
        if (channel.claimed !== total) report(`claims of channel ${args.word('channelId')}`, channel.claimed, total);
        if (channel.claimed > channel.balance) report(`claims of channel ${args.word('channelId')}`, `at most ${channel.balance}`, total);
      },
      'channels.Settled'(args, _event, report) {
        const key = `${args.account('receiver')} ${args.account('token')}`;
        // All that was claimed is paid at once: the fee is that on the new total less that on the old one.
        const before = settled.of(key);
        const total = claimed.of(key);
        const fee = args.account('token') === feeToken ? (total * options.feeBps) / BPS - (before * options.feeBps) / BPS : 0n;
        if (args.int('amount') !== total - before - fee) report(`settlement of ${key}`, total - before - fee, args.int('amount'));
        settled.add(key, total - before);
      },
      'channels.FeeBurnt': (args) => burnt.add(args.account('receiver'), args.int('amount')),
      'channels.Refunded': giveBack,
      'channels.WithdrawFinalized': giveBack,
    },
    *checks() {
      for (const [channelId, channel] of channels) {
        const view = async (read: ReadView) => (await read('channels', 'channels', [channelId])) as [bigint, bigint];
        yield { what: `balance of channel ${channelId}`, expected: channel.balance, actual: async (read) => (await view(read))[0] };
        yield { what: `claims of channel ${channelId}`, expected: channel.claimed, actual: async (read) => (await view(read))[1] };
      }
      for (const [key, sum] of claimed.entries()) {
        const args = key.split(' ');
        const view = async (read: ReadView) => (await read('channels', 'receivers', args)) as [bigint, bigint];
        yield { what: `claimed for ${key}`, expected: sum, actual: async (read) => (await view(read))[0] };
        yield { what: `paid to ${key}, with fees`, expected: settled.of(key), actual: async (read) => (await view(read))[1] };
      }
      for (const [receiver, fees] of burnt.entries()) {
        yield checkView(`fees burnt of ${receiver}`, fees, ['channels', 'feesBurntOf', [receiver]]);
      }
    },
  };
}
