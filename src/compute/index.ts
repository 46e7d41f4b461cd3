/** The compute network: jobs that are checked, leases that are metered, health that is measured. */

export { type AuditPartOptions, startAuditPart } from './audit/audit-part.ts';
export { auditedElsewhere, openAuditEngines, openAuditSeats } from './audit/audit-seats.ts';
export { type SegmentJudgeOptions, segmentJudge } from './audit/judge-segment.ts';
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
export { clusterOfDeployment } from './cluster/deployment-cluster.ts';
export { type ClusterTerms, openClusterMarket, readClusterChain, type WithSender } from './cluster/market-on-chain.ts';
export { type Patience, QUICK_PATIENCE } from './cluster/replacement.ts';
export { type DeviceReport, keepDeviceReport, keptAttributes, reportDevice, requireForeignEngines } from './device/device-report.ts';
export { SELF_TEST_ANSWER, writeSelfTest } from './device/self-test.ts';
export { type DeviceHealth, type HealthSnapshot, healthToJson, readDevices, readHealthAt } from './health/device-health.ts';
export { startHealth } from './health/health-part.ts';
export { HealthView } from './health/health-view.ts';
export { type CanaryOutcome, runCanaries } from './jobs/canary-agent.ts';
export { jobPeerOf, surveyProviders } from './jobs/choose-provider.ts';
export { fetchFile, fetchProgress, type JobCaller, type JobPeer, type JobProgress } from './jobs/job-api.ts';
export { PHASE, phaseOf } from './jobs/job-chain.ts';
export { isFileName, sourcesOf as sourcesOfSpec } from './jobs/job-contents.ts';
export { type JobPolicy, startJobProvider } from './jobs/job-provider.ts';
export { type RunEvent, type RunResult, runJob, unfinishedRun } from './jobs/run-job.ts';
export { openRunJournals, type RunJournal, type RunJournals } from './jobs/run-journal.ts';
export { AUDITORS_MAX } from './jobs/run-terms.ts';
export { boxKeyOf } from './jobs/sealed-box.ts';
export { type CopyCount, packArchive, unpackArchive } from './leases/archive.ts';
export { defaultDevices } from './leases/default-device.ts';
export type { LeasedDevice } from './leases/device-offers.ts';
export { readMarketTimes } from './leases/lease-chain.ts';
export { type LeaseHost, type LeaseHostOptions, startLeaseHost } from './leases/lease-host.ts';
export { startLeaseProber } from './leases/lease-prober.ts';
export { type DeviceOffer, listDeviceOffers } from './leases/market-offers.ts';
export { followRental, forwardPort, type PortForward } from './leases/port-forward.ts';
export { type RentalTerms, rentalUnits, rentUnits } from './leases/rent-deployment.ts';
export type { RentalMain } from './leases/rental.ts';
export { openRentalClient, type RentalClient } from './leases/rental-client.ts';
export { rentalMachine } from './leases/rental-machine.ts';
export { findRental, listRentals, type RentalView } from './leases/rentals.ts';
export { startRenterAgent } from './leases/renter-agent.ts';
export { endLease, extendLease, reserveDevices } from './leases/reserve.ts';
export type { ComputeContext, ComputePart, FetchContent } from './part.ts';
export { type ExplainedUnit, explainDeployment } from './schedule/explain-deployment.ts';
export { parseQueue, type QueueDocument } from './schedule/queue-document.ts';
export { openQueueResults, type WorkResult } from './schedule/queue-results.ts';
export { type QueueEvent, type QueueMachine, QueueRun } from './schedule/queue-run.ts';
export { deploymentHash } from './spec/deployment-spec.ts';
export { type JobSpec, sortSpec, specHash } from './spec/job-spec.ts';
export { priceUnits } from './spec/needs.ts';
export { type ParsedDeployment, type ParsedSpec, parseSpec } from './spec/parse-deployment.ts';
export { type JobRequest, parseJob } from './spec/parse-job.ts';
export {
  type GroupOutcome,
  SIMULATION_DEFAULTS,
  type SimulationOutcome,
  type SimulationSettings,
  simulateJobs,
} from './verify/simulation.ts';
export { measureStakes, type StakeRow } from './verify/simulation-stakes.ts';
