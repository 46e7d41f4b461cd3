/** The storage network: content, pieces, proofs, deals and retrieval. */

export { cidOf, parseCid } from './block.ts';
export { payloadLeaves, pieceHeight } from './commp.ts';
export { type BuiltContent, buildContent, type ContentInput, type ContentProgress } from './content.ts';
export { createTrustlessGateway, type GatewaySource } from './gateway.ts';
export { deriveShareKey, formatShareKey, parseShareKey, type ShareKeyPair, shareKeyOfWallet, type WalletSigner } from './key-wrap.ts';
export { type Hex, type PieceInfo, parsePieceCid, pieceOf } from './piece.ts';
export type { PieceReceiver, PieceWanted } from './piece-receiver.ts';
export { openPieceStore, type PieceStore, type PieceStoreOptions, type StoredPiece } from './piece-store.ts';
export { type LeafOpening, rootOfOpening } from './piece-tree.ts';
