import { checkView, type ReadView, type Replay, Sums } from './replay.ts';

interface Pool {
  activeAssets: bigint;
  exitingAssets: bigint;
}

/**
 * The stake vault: each operator's stake with its backers' (active and leaving; an event of an exit does not say whose it is), locks by
 * operator and module, bounds of locks, disputes, payouts of slashes, and that the vault owes what came in and did not go out.
 */
export function replayStake(): Replay {
  const stakes = new Sums();
  const locks = new Sums(); // "operatorId module"
  const limits = new Map<string, bigint>();
  const disputes = new Map<string, bigint>();
  let credited = 0n;
  const addStake = (operatorId: string, amount: bigint) => stakes.add(operatorId, amount);
  return {
    group: 'stake',
    handlers: {
      'stakeVault.StakeDeposited': (args) => addStake(args.word('operatorId'), args.int('amount')),
      'stakeVault.Backed': (args) => addStake(args.word('operatorId'), args.int('amount')),
      'stakeVault.ExitFinished': (args) => addStake(args.word('operatorId'), -args.int('amount')),
      'stakeVault.Locked': (args) => locks.add(`${args.word('operatorId')} ${args.account('module')}`, args.int('amount')),
      'stakeVault.Unlocked'(args, _event, report) {
        const key = `${args.word('operatorId')} ${args.account('module')}`;
        locks.add(key, -args.int('amount'));
        if (locks.of(key) < 0n) report(`lock of operator ${key}`, 'not below 0', locks.of(key));
      },
      'stakeVault.Slashed'(args, _event, report) {
        const operatorId = args.word('operatorId');
        const [fromOwn, fromBackers] = [args.int('fromOwn'), args.int('fromBackers')];
        const paidOut = args.int('compensation') + args.int('reward');
        const burnt = fromOwn + fromBackers - paidOut;
        if (args.int('burnt') !== burnt) report(`burnt of a slash of operator ${operatorId}`, burnt, args.int('burnt'));
        if (paidOut > fromOwn / 2n) report(`payouts of a slash of operator ${operatorId}`, `at most ${fromOwn / 2n}`, paidOut);
        if (fromOwn + fromBackers > args.int('amount'))
          report(`slash of operator ${operatorId}`, args.int('amount'), fromOwn + fromBackers);
        addStake(operatorId, -fromOwn - fromBackers);
        locks.add(`${operatorId} ${args.account('module')}`, -args.int('amount'));
        credited += paidOut;
      },
      'stakeVault.Claimed'(args) {
        credited -= args.int('amount');
      },
      'stakeVault.LockLimitSet': (args) => void limits.set(args.word('operatorId'), args.int('limit')),
      'stakeVault.Frozen': (args) => void disputes.set(args.word('operatorId'), args.int('count')),
    },
    *checks() {
      const byOperator = new Sums();
      const byModule = new Sums();
      let staked = 0n;
      for (const [key, locked] of locks.entries()) {
        const [operatorId, module] = key.split(' ') as [string, string];
        byOperator.add(operatorId, locked);
        byModule.add(module, locked);
        yield checkView(`lock of operator ${operatorId} by ${module}`, locked, [
          'stakeVault',
          'lockedOfModule',
          [BigInt(operatorId), module],
        ]);
      }
      for (const [module, locked] of byModule.entries())
        yield checkView(`locked by ${module}`, locked, ['stakeVault', 'lockedBy', [module]]);
      for (const [operatorId, stake] of stakes.entries()) {
        staked += stake;
        yield { what: `stake of operator ${operatorId}`, expected: stake, actual: (read) => stakeNow(read, BigInt(operatorId)) };
        yield checkView(`locked of operator ${operatorId}`, byOperator.of(operatorId), ['stakeVault', 'lockedOf', [BigInt(operatorId)]]);
      }
      yield checkView('stake and payouts owed', staked + credited, ['stakeVault', 'obligations']);
      for (const [operatorId, limit] of limits) {
        yield checkView(`bound of locks of operator ${operatorId}`, limit, ['stakeVault', 'lockLimitOf', [BigInt(operatorId)]]);
      }
      for (const [operatorId, count] of disputes) {
        yield checkView(`disputes of operator ${operatorId}`, count, ['stakeVault', 'disputesOf', [BigInt(operatorId)]]);
      }
    },
  };
}

async function stakeNow(read: ReadView, operatorId: bigint): Promise<bigint> {
  const [own, pool] = await Promise.all([read('stakeVault', 'ownStake', [operatorId]), read('stakeVault', 'pool', [operatorId])]);
  const [active, exiting] = own as [bigint, bigint];
  const { activeAssets, exitingAssets } = pool as Pool;
  return active + exiting + activeAssets + exitingAssets;
}
