export { allowTokens, type Sending, type TokenChoice, tokenAddress, tokenBalance } from './contract-call.ts';
export { type ExitTicket, finishExit, pendingExits, requestBackerExit, requestExit, type StakeExit } from './exits.ts';
export {
  approveMeter,
  depositToRails,
  meterAllowance,
  type RailState,
  railOf,
  railsBalance,
  railsBooks,
  reduceRail,
  settleRail,
  topUpRail,
  withdrawEarnings,
  withdrawFromRails,
} from './rails.ts';
export {
  type Backing,
  backingOf,
  backOperator,
  claim,
  claimable,
  depositStake,
  type OperatorStake,
  stakeOf,
  syncVotes,
  vaultBooks,
} from './stake.ts';
