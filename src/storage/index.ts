/** The storage network: content, pieces, proofs, deals and retrieval. */

export { cidOf, parseCid } from './content/block.ts';
export { type ContentSource, createBlockFetcher, type FetchLimits, type SourceReport } from './content/block-fetcher.ts';
export { payloadLeaves, pieceHeight } from './content/commp.ts';
export { type BuiltContent, buildContent, type ContentInput, type ContentProgress } from './content/content.ts';
export {
  deriveShareKey,
  formatShareKey,
  parseShareKey,
  type ShareKeyPair,
  shareKeyOfWallet,
  type WalletSigner,
} from './content/key-wrap.ts';
export { type OpenedContent, type OpenedFile, openContent } from './content/open-content.ts';
export { asOutputError, prepareOutput } from './content/output.ts';
export { type Hex, type PieceInfo, parsePieceCid, pieceOf } from './content/piece.ts';
export { type LeafOpening, rootOfOpening } from './content/piece-tree.ts';
export { type Retrieval, type RetrievalInput, type RetrievalProgress, retrieve } from './content/retrieve.ts';
export type { Keys } from './content/sealed-reader.ts';
export { contentOfGrant, createGrant, openGrant, SHARE_WARNING, share } from './content/share.ts';
export { type CodeChoice, type CodeWishes, chooseCode, describeCode } from './erasure/choose-code.ts';
export { decodeShards, readCarRange, rebuildShard } from './erasure/decode-shards.ts';
export { type DurabilityRecord, type MeasuredRates, measureRates, PRIOR_RECORD } from './erasure/durability-record.ts';
export { type DurabilityView, type DurabilityWish, parseDurability, renderDurability, viewDurability } from './erasure/durability-text.ts';
export { lossProbability, ninesOf } from './erasure/loss-probability.ts';
export { manifestOf, type PreparedShards, prepareShards } from './erasure/prepare-shards.ts';
export { decodeShardManifest, encodeShardManifest, layoutShards, type ShardManifest } from './erasure/shard-layout.ts';
export { openRemoteShard, openShardCar, type ShardReader } from './erasure/shard-reader.ts';
export { type OfferedShard, openShardSet } from './erasure/shard-set.ts';
export { type DealView, dealsOfOperator, type Holder, holdersOf, listOperators, type OperatorView, readDeal } from './market/chain-view.ts';
export { challengeDeal, type DealAccount, endDeal, expireDeal, extendDeal, listDeals, settleDeal, showDeal } from './market/deals.ts';
export { type DemandProgress, demandBytes } from './market/demand.ts';
export { sourcesOf } from './market/holder-sources.ts';
export { surveyOffers } from './market/market-survey.ts';
export { type PutEvent, type PutOptions, type PutResult, put } from './market/put.ts';
export { type BatchClock, batchClock, readBookRules } from './orders/book-rules.ts';
export { type BookView, type ClearedBatch, openBookView, readPrices } from './orders/book-view.ts';
export { type Checker, openChecker } from './orders/checker.ts';
export type { BidQuote, BidWishes } from './orders/file-bid.ts';
export { type FetchedFile, fetchFile } from './orders/file-get.ts';
export { type FileHistory, fileHistory } from './orders/file-history.ts';
export { actOnFile, type FileAction } from './orders/file-money.ts';
export { type FilePutEvent, type FilePutOptions, type FilePutResult, putFile } from './orders/file-put.ts';
export type { FileShape } from './orders/file-shards.ts';
export { startMatcher, startWatcher } from './orders/lone-duties.ts';
export { fileOfBid, filesOfClient, filesOfContent, type ShardView, type StoredFile } from './orders/stored-files.ts';
export { type Pack, type PackedObject, packObjects, unpackObject } from './packing/pack.ts';
export { type ObjectPlace, openPacker, PACK_RULES, type Packer } from './packing/packer.ts';
export { createTrustlessGateway, type GatewaySource } from './pieces/gateway.ts';
export type { PieceReceiver, PieceWanted } from './pieces/piece-receiver.ts';
export { openPieceStore, type PieceStore, type PieceStoreOptions, type StoredPiece } from './pieces/piece-store.ts';
export { createWebGateway, type WebBlocks } from './pieces/web-gateway.ts';
export { type StorageProvider, type StorageProviderOptions, startStorageProvider } from './provider/provider.ts';
export type { SignedAnnouncement } from './retrieval/announcement.ts';
export { listRetrievers, reportedOf } from './retrieval/holdings.ts';
export { choosePaidSources, type PaidSources, type RetrievalCost, reportSellers } from './retrieval/paid-get.ts';
export { openPeerRecords, type PeerRecord } from './retrieval/peer-records.ts';
export { type RetrieverOptions, type RetrieverPolicy, startRetriever } from './retrieval/retriever.ts';
export { auditNetwork, requireSame } from './rewards/audit.ts';
export { claimRewards, hasRewards, rewardEvents, rewardRecordOf, rewardRetrieval, rewardsOf } from './rewards/rewards.ts';
