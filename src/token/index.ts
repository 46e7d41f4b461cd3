export { type BackerPosition, backerPositions, fetchBackerIncome, type TokenAmount } from './backing.ts';
export { type ChannelState, depositCollector, readChannel } from './channels.ts';
export { allowTokens, eventArgs, type Sending, type TokenChoice, tokenAddress, tokenBalance } from './contract-call.ts';
export { type ExitTicket, finishExit, pendingExits, requestBackerExit, requestExit, type StakeExit } from './exits.ts';
export { claimBackerIncome, claimOperatorIncome, distributeIncome, type Income, proposeTake, readIncome } from './income.ts';
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
export { type ChannelConfig, createVoucherCodec, type SignedVoucher, type Voucher, type VoucherCodec } from './voucher.ts';
export { type Claimer, type ClaimerOptions, type ClaimReport, startClaimer } from './voucher-claimer.ts';
export {
  createPayer,
  type Payer,
  type PayerChannel,
  type PayerOptions,
  type Payment,
  type PaymentOutcome,
  type PaymentRequest,
} from './voucher-payer.ts';
export {
  type Credit,
  openReceiver,
  type PaymentDemand,
  type PaymentOffer,
  type Receiver,
  type ReceiverLimits,
  type ReceiverOptions,
} from './voucher-receiver.ts';
export {
  decodePayment,
  decodePaymentRequired,
  PAYMENT_REQUIRED,
  PAYMENT_RESPONSE,
  PAYMENT_SIGNATURE,
  type PaidResource,
  type PaymentRequired,
} from './x402-wire.ts';
