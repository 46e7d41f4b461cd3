export { listForeignModules } from './build.ts';
export {
  type AnyChainEvent,
  type ChainClient,
  type ChainEvent,
  connectChain,
  type EventName,
  type EventQuery,
  type ReadName,
  verifyManifest,
} from './client.ts';
export { abis, type ModuleName } from './contracts.generated.ts';
export { type DeployOptions, deployNetwork } from './deploy.ts';
export { chainError, contractErrors, errorCodeOf } from './errors.ts';
export {
  createFollower,
  type EventHandler,
  type EventKey,
  type FollowedEvent,
  type Follower,
  type FollowerOptions,
  type FollowerPosition,
  followEvents,
  readFollowerPosition,
} from './follower.ts';
export { type ColumnType, type FollowerSql, followerMigrations, insertRows, trackTable } from './follower-tables.ts';
export { type GenesisChannels, X402_CHANNELS, X402_DEPOSIT_COLLECTOR } from './genesis-contracts.ts';
export { createKeystore, exportKeystore, importKeystore, keystoreAddress, openKeystore } from './keystore.ts';
export { type Manifest, manifestId, parseManifest, readManifest, signManifest, type UnsignedManifest, writeManifest } from './manifest.ts';
export { nodeKeyConsent } from './node-key-consent.ts';
export { checkPowers, type HolderKind, listPowers, type Power } from './powers.ts';
export { type Allocation, loadProfile, type ParameterBounds, PROFILE_NAMES, type Profile } from './profile.ts';
export { type BlockHeader, type FixArguments, firstBlockAtOrAfter, fixArguments, readHeader } from './randomness.ts';
export {
  createReceiptCodec,
  EVIDENCE_CLASSES,
  type EvidenceClass,
  type ReceiptCodec,
  type ReceiptDomain,
  type ReceiptKind,
  type WorkReceipt,
} from './receipt-envelope.ts';
export { nobleEngine, type Secp256k1Engine, secp256k1Engine } from './secp256k1.ts';
export { fixSeed, provableSeed, readSeed } from './seed.ts';
export { type ContractCall, createSender, type RawCall, type Receipt, type Sender, type SenderOptions, type WriteName } from './sender.ts';
export { createSigner, developmentSigner, isSignedBy, recoverAddress, type Signer } from './signer.ts';
export { type ChainSupervisor, type ChainSupervisorOptions, EMBEDDED_CHAIN_ID, startChainSupervisor } from './supervisor.ts';
export { controlChain } from './supervisor-control.ts';
export { type TypedDataShape, typedDataDigest } from './typed-data.ts';
export { unlessOvertaken } from './unless-overtaken.ts';
