/** The storage network: content, pieces, proofs, deals and retrieval. */

export { cidOf, parseCid } from './block.ts';
export type { ContentSource, FetchLimits, SourceReport } from './block-fetcher.ts';
export { type DealView, dealsOfOperator, type Holder, holdersOf, listOperators, type OperatorView, readDeal } from './chain-view.ts';
export { payloadLeaves, pieceHeight } from './commp.ts';
export { type BuiltContent, buildContent, type ContentInput, type ContentProgress } from './content.ts';
export { challengeDeal, type DealAccount, endDeal, expireDeal, extendDeal, listDeals, settleDeal, showDeal } from './deals.ts';
export { createTrustlessGateway, type GatewaySource } from './gateway.ts';
export { deriveShareKey, formatShareKey, parseShareKey, type ShareKeyPair, shareKeyOfWallet, type WalletSigner } from './key-wrap.ts';
export { surveyOffers } from './market-survey.ts';
export { type Hex, type PieceInfo, parsePieceCid, pieceOf } from './piece.ts';
export type { PieceReceiver, PieceWanted } from './piece-receiver.ts';
export { openPieceStore, type PieceStore, type PieceStoreOptions, type StoredPiece } from './piece-store.ts';
export { type LeafOpening, rootOfOpening } from './piece-tree.ts';
export { type StorageProvider, type StorageProviderOptions, startStorageProvider } from './provider.ts';
export { type PutEvent, type PutOptions, type PutResult, put } from './put.ts';
export { type Retrieval, type RetrievalInput, type RetrievalProgress, retrieve } from './retrieve.ts';
export type { Keys } from './sealed-reader.ts';
export { contentOfGrant, createGrant, openGrant, SHARE_WARNING, share } from './share.ts';
