/** Nodes and the local supervisor: processes that host roles, and the network that runs on this machine. */
import { fileURLToPath } from 'node:url';

export { chosenEngine, holdsRentals, openEngines } from './compute-engines.ts';
export { COMPUTE_DEFAULTS, type ComputeSettings } from './compute-settings.ts';
export { contentPort } from './content-port.ts';
export { askControl, startControlServer } from './control.ts';
export { INFERENCE_DEFAULTS, type InferenceSettings } from './inference-settings.ts';
export { type LedgerRow, readLedger } from './ledger.ts';
export {
  type NetworkFolder,
  networkFolder,
  nodeSocket,
  type RunState,
  readRunState,
  socketFolder,
} from './network-folder.ts';
export type { NetworkProcessOptions, SupervisorStatus } from './network-process.ts';
export { type NodeOptions, type RunningNode, startNode } from './node.ts';
export type { NodeAnswer, NodeCommand } from './node-control.ts';
export { CLIENT_INDEX } from './prepare.ts';
export {
  endpointUrl,
  fundFromFaucet,
  provisionOperator,
  setEndpoint,
  type WantedOperator,
} from './provision.ts';
export { RELAY_DEFAULTS, type RelaySettings, relayedBy, relayTerms } from './relay-settings.ts';
export { RETRIEVER_DEFAULTS, type RetrieverSettings, retrieverPolicy } from './retriever-role.ts';
export { ASK_DEFAULTS, type AskSettings, storagePolicy } from './storage-policy.ts';

/** The program that `millrace up` starts as the local supervisor. */
export const NETWORK_PROCESS: string = fileURLToPath(new URL('./network-process.ts', import.meta.url));
