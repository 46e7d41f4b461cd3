import { zeroAddress } from 'viem';
import { checkView, type Replay, Sums } from './replay.ts';

/**
 * The network's token: every holder's balance, supply, mints within the cap and by the emission alone, and that no less was burnt than the
 * modules say they burnt.
 * @param options genesisBlock: in which the token and its first holdings were created
 */
export function replayToken(options: { genesisBlock: bigint }): Replay {
  const balances = new Sums();
  let minted = 0n;
  let genesis = 0n;
  let burnt = 0n;
  let saidBurnt = 0n;
  let emitted = 0n;
  return {
    group: 'token',
    handlers: {
      'networkToken.Transfer'(args, event, report) {
        const [from, to, value] = [args.account('from'), args.account('to'), args.int('value')];
        if (from === zeroAddress) {
          minted += value;
          if (event.blockNumber <= options.genesisBlock) genesis += value;
        } else {
          balances.add(from, -value);
          if (balances.of(from) < 0n) report(`balance of ${from}`, 'not below 0', balances.of(from));
        }
        if (to === zeroAddress) burnt += value;
        else balances.add(to, value);
      },
      'emission.Minted'(args) {
        emitted += args.int('amount');
      },
      'stakeVault.Slashed'(args) {
        saidBurnt += args.int('burnt');
      },
      'channels.FeeBurnt'(args) {
        saidBurnt += args.int('amount');
      },
      'orderBook.BidFilled'(args) {
        saidBurnt += args.int('feeBurnt');
      },
      'storageMarket.DealExpired'(args) {
        saidBurnt += args.int('bondLost');
      },
    },
    *checks() {
      yield checkView('supply', minted - burnt, ['networkToken', 'totalSupply']);
      yield checkView('minted ever', minted, ['networkToken', 'mintedTotal']);
      yield { ...checkView('minted ever, beside the cap', minted, ['networkToken', 'cap']), relation: 'at-most' };
      yield checkView('minted after the first holdings', minted - genesis, ['emission', 'emitted']);
      yield checkView('minted by the emission', emitted, ['emission', 'emitted']);
      yield { ...checkView('minted by the emission, beside its schedule', emitted, ['emission', 'scheduled']), relation: 'at-most' };
      yield { what: 'burnt by modules, beside all burns', expected: saidBurnt, relation: 'at-most', actual: async () => burnt };
      for (const [holder, balance] of balances.entries()) {
        yield checkView(`balance of ${holder}`, balance, ['networkToken', 'balanceOf', [holder]]);
      }
    },
  };
}
