/** The inference network: subnets, consensus, engines, serving and judging. */

export { DEFAULT_EPOCH_PARAMETERS } from './consensus/default-parameters.ts';
export { epoch } from './consensus/epoch.ts';
export type {
  ConsensusMode,
  EpochInput,
  EpochParameters,
  EpochResult,
  SparseRow,
  YumaMode,
} from './consensus/epoch-input.ts';
export { type AnswerRequest, fetchOf, listenerOf } from './serving/carriers.ts';
export { createMiner, type Miner, type MinerLimits, type MinerOptions } from './serving/miner.ts';
export type { MinerModel } from './serving/miner-model.ts';
export { type OfferedModel, readOffer, type SignedOffer } from './serving/offer.ts';
export { type BackendLimits, type BackendOptions, createOpenAiBackend } from './serving/openai-backend.ts';
export { type ModelPrice, priceUp } from './serving/price.ts';
export { createInferenceReceipts, type InferenceReceipt, RECEIPT_HEADER, type SignedReceipt, verifyReceipt } from './serving/receipt.ts';
