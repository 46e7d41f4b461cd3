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
export { CASES_PATH, caseAnswer, openReceiptCase, type ReceiptCase } from './court/receipt-case.ts';
export { type ReceiptJudgeOptions, receiptJudge } from './court/receipt-judge.ts';
export {
  openReceiptReporter,
  type ReceiptReporter,
  type ReceiptReporterOptions,
  type ReportState,
  type SeenReceipt,
} from './court/receipt-reporter.ts';
export { type EngineSet, type EngineSetOptions, openEngineSet, unknownModel } from './engines/embedded-engines.ts';
export type { Engine, TaskType } from './engines/engine.ts';
export { fetchModel } from './engines/model-store.ts';
export { EMBEDDED_MODELS, MISSING_MODELS, type MissingModel } from './engines/models.ts';
export { type EvidenceEntry, type EvidenceQuery, evidenceEpochs, readEvidence } from './judging/evidence.ts';
export { type GatewayKey, gatewayAccount, ownAccount, type ProbeAccount } from './judging/probe-accounts.ts';
export { createProbeStock } from './judging/probe-stock.ts';
export { isJudgedIn, NOBODY } from './judging/seat-survey.ts';
export { createShownDesk, type ShownDesk } from './judging/shown-desk.ts';
export {
  CHANNEL_HEADER,
  channelHeader,
  SHOWN_LIMITS,
  SHOWN_PATH,
  SHOWN_SIGNED_HEADERS,
  writeShown,
} from './judging/shown-requests.ts';
export { type SubnetJudge, type SubnetJudgeOptions, startSubnetJudge } from './judging/subnet-judge.ts';
export { type CountedRequest, TOKEN_COUNTERS, type TokenCount, type TokenCounter } from './judging/token-counter.ts';
export { textProgram } from './language/text-generator.ts';
export {
  askBackend,
  type BackendCapabilities,
  type BackendModel,
  createCheckedBackend,
} from './serving/backend-capabilities.ts';
export { readJsonObject } from './serving/call.ts';
export { type AnswerRequest, fetchOf, listenerOf } from './serving/carriers.ts';
export { type ByteBudget, createByteBudget, readBody, type ServingAnswer, type ServingRequest } from './serving/exchange.ts';
export { badRequest, errorObject, failureAnswer } from './serving/failure.ts';
export { type ChunkQueue, createChunkQueue, readAll, sendHttp } from './serving/http-client.ts';
export { createServingMetrics, type ServingMetrics } from './serving/metrics.ts';
export {
  createMiner,
  type Miner,
  type MinerLimits,
  type MinerOptions,
  REPLAY_HEADER,
  RETENTION_HEADER,
  WITNESS_HEADER,
} from './serving/miner.ts';
export type { MinerModel } from './serving/miner-model.ts';
export { type OfferedModel, readOffer, type SignedOffer } from './serving/offer.ts';
export { type BackendLimits, type BackendOptions, createOpenAiBackend } from './serving/openai-backend.ts';
export { type ModelPrice, priceUp } from './serving/price.ts';
export { createInferenceReceipts, type InferenceReceipt, RECEIPT_HEADER, type SignedReceipt, verifyReceipt } from './serving/receipt.ts';
export {
  ensureReceiptBond,
  hasReceiptCourt,
  leaveReceiptCourt,
  type ReceiptBond,
  readReceiptBond,
  unlockReceiptBond,
} from './serving/receipt-bond.ts';
export { inferenceReceiptDomain } from './serving/receipt-domain.ts';
export { createTill, type Sale, type Till } from './serving/till.ts';
export {
  attackTable,
  cabalTable,
  compareBondsSettings,
  copyingTable,
  mapCabals,
  writeAttackDocument,
} from './simulation/attack-document.ts';
export { simulateAttacks } from './simulation/attacks.ts';
export { type PopulationGroups, readGroups } from './simulation/population-groups.ts';
export { groupsOf, type SimulationRun, simulatePopulation } from './simulation/simulate-population.ts';
export {
  type Beacon,
  fetchPulses,
  LOCAL_BEACON_LABEL,
  type LocalBeacon,
  openLocalBeacon,
  type PulseSource,
  QUICKNET,
} from './subnets/beacon.ts';
export { type Concentration, concentrationOf, type Resemblance, resemblances } from './subnets/concentration.ts';
export { type DecidedState, readDecidedState } from './subnets/epoch-evidence.ts';
export { decodeMetagraph, listSubnets, readMetagraph, readSubnet, readUids, type Subnet, type Uid } from './subnets/metagraph.ts';
export { createOpinionAgent, type OpinionAgent, type OpinionAgentOptions, type OpinionWork } from './subnets/opinion-agent.ts';
export { findUid, type OwnUid, uidsOfOperator } from './subnets/own-uids.ts';
export { boundsText, RULE_TEXTS, type RuleText, ruleValueText, withRules } from './subnets/rule-texts.ts';
export { createSettler, type Settler, type SettlerOptions } from './subnets/settler.ts';
export {
  burnForSubnet,
  changeRules,
  claimPermit,
  closeEpochs,
  createSubnet,
  declareBeacon,
  ensurePermit,
  registerUid,
} from './subnets/subnet-actions.ts';
export {
  acceptSubnetOwner,
  dissolveSubnet,
  fetchRewards,
  proposeSubnetOwner,
  readNextRules,
  readWaitingRewards,
  returnSubnetLock,
  type WaitingRewards,
} from './subnets/subnet-life.ts';
export { DEFAULT_SUBNET_RULES, epochParameters, type SubnetRules } from './subnets/subnet-rules.ts';
export { decodeRow } from './subnets/weights-row.ts';
