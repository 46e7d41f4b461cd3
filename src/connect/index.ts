/** Peers and devices over the network. Today: node-to-node HTTP over TLS pinned to the key that the chain knows. */

export {
  contentDigest,
  createReplayGuard,
  type ReplayGuard,
  type RequestSigner,
  type SignableRequest,
  signRequest,
  type VerifiedRequest,
  verifyRequest,
} from './http-signature.ts';
export { isStale, StaleConnection, sendPastStale } from './kept-connection.ts';
export { type PeerAddress, type PeerRequest, peerFetch, pinnedAgent } from './peer-fetch.ts';
export { type PeerDoor, type PeerServer, type PeerServerOptions, permitSlowBody, startPeerServer } from './peer-server.ts';
export { keepReachable, type Reach, type ReachStatus, type RelayCandidate } from './reach.ts';
export { type Relay, type RelayOptions, startRelay } from './relay.ts';
export type { RelaySessionTill, RelayTill } from './relay-carrier.ts';
export type { RelayNetwork, RelayReceipt, RelayTerms } from './relay-messages.ts';
export { relayBehind } from './relay-name.ts';
export { openTransportIdentity, type TransportIdentity } from './transport-identity.ts';
export type { RelayPurse, RelaySessionPurse } from './tunnel.ts';
