/** The compute network: jobs that are checked, leases that are metered, health that is measured. */

export { type Capacity, createCapacity, measureResources, type Resources } from './capacity.ts';
export { type ClusterNode, openClusterNode } from './cluster/cluster-node.ts';
export { type ClusterPartOptions, startClusterPart } from './cluster/cluster-part.ts';
export { type ClusterSpec, parseClusterSpec } from './cluster/cluster-spec.ts';
export {
  type ClusterRecord,
  Coordinator,
  type CoordinatorOptions,
  createClusterRecord,
  type MachineView,
  readClusterRecord,
} from './cluster/coordinator.ts';
export { type ClusterTerms, openClusterMarket, readClusterChain, type WithSender } from './cluster/market-on-chain.ts';
export { type Patience, QUICK_PATIENCE } from './cluster/replacement.ts';
export { type JobPolicy, startJobProvider } from './jobs/job-provider.ts';
export type { ComputeContext, ComputePart, FetchContent } from './part.ts';
