import type { Address } from 'viem';
import type { ClusterDomain } from './member-list.ts';

/** A lease as the market has it. */
export interface LeaseTerms {
  leaseId: string;
  deviceId: string;
  operatorId: bigint;
  /** Who speaks for the renter: signs meters, lists of members and requests. */
  agent: Address;
  /** Chain time, seconds. */
  from: bigint;
  until: bigint;
}

/** What a node of a cluster reads of the chain. */
export interface ClusterChain {
  domain: ClusterDomain;
  /** Chain time, seconds. */
  now(): Promise<bigint>;
  /** @throws the market's error for a lease that was never there */
  lease(leaseId: string): Promise<LeaseTerms>;
  nodeKeyOf(operatorId: bigint): Promise<Address>;
  /** Where an operator's node answers, and with which TLS key. */
  peerOf(operatorId: bigint): Promise<{ endpoint: string; transportKey: string }>;
}

/** A reservation that is about to be made; JSON, so that it can lie on the disk before it is sent. */
export interface GangRequest {
  count: number;
  /** Chain time, seconds. */
  from: string;
  /** Candidates, the most wanted first; the contract takes the first `count` that are free. */
  devices: string[];
}

/** What a renter's coordinator does on the chain. */
export interface ClusterMarket extends ClusterChain {
  /**
   * Candidates for some machines from now up to the cluster's end, of operators other than these, each of another operator.
   * @throws cluster-short when the market has not as many
   */
  findMachines(wanted: { count: number; withoutOperators: readonly bigint[] }): Promise<GangRequest>;
  /**
   * Reserves machines, all or none. The same request with the same key gives the same leases, also after a crash.
   * @throws cluster-short when they were taken meanwhile, or the request has become too old
   */
  reserve(request: GangRequest, key: string): Promise<LeaseTerms[]>;
  /** Ends a lease with the interval that runs; one that is over stays as it is. */
  end(leaseId: string): Promise<void>;
}
