import { createHash } from 'node:crypto';
import type { Hex } from 'viem';
import type { Field } from './field.ts';
import { canonicalJson } from './job-spec.ts';
import type { DeviceNeeds, PriceMax } from './needs.ts';

/** A port of a workload that others reach. */
export interface ExposedPort {
  /** Where the workload listens. */
  port: number;
  /** The port that others see. */
  as: number;
  protocol: 'tcp' | 'udp';
  /** Reached by the renter (`millrace forward`; in a cluster through its mesh); there is no entry from the public internet. */
  isOpen: boolean;
  /** Other workloads of the same deployment that reach it, by name. */
  workloads: string[];
}

/** A folder of a workload that outlives a restart of it; it ends with the lease. */
export interface Volume {
  name: string;
  sizeBytes: number;
  mount: string;
  isReadOnly: boolean;
  /** `disk`, or `memory`. */
  medium: 'disk' | 'memory';
}

/** One program of a deployment, to be kept running. */
export interface Workload {
  name: string;
  /** `image`: CID, `sha256:…`, or (only in deployments) a name with a tag as registries have them; empty: software of the machine. */
  image: string;
  /** Instead of the image's own entry point; empty: that one. */
  command: string[];
  args: string[];
  env: Record<string, string>;
  ports: ExposedPort[];
  /** Workloads that start before it. */
  startsAfter: string[];
  /** Level of a trusted execution environment that the renter demands. */
  enclave?: 'cpu' | 'cpu-gpu';
}

/** So many devices for one workload. */
export interface DeploymentUnit {
  workload: string;
  count: number;
  needs: DeviceNeeds;
  volumes: Volume[];
  /** An hour and device; left out: the renter must say it before anything is reserved. */
  priceMax?: PriceMax;
}

/** Units that are reserved together or not at all. */
export interface DeploymentGroup {
  name: string;
  units: DeploymentUnit[];
}

/** What somebody wants to keep running on rented devices. Workloads, groups and units are sorted by name. */
export interface DeploymentSpec {
  format: typeof DEPLOYMENT_FORMAT;
  workloads: Workload[];
  groups: DeploymentGroup[];
  /** How long; left out: the renter must say it. */
  seconds?: number;
  /** Whether devices may be taken back for somebody who pays more (decision 0033). */
  isInterruptible: boolean;
  /** Least notice before that. */
  noticeSeconds: number;
}

/** Where in the document the parts of a workload stand, for refusals of those who cannot do what it says; a part that is not there has no place. */
export interface WorkloadPlaces {
  whole: Field;
  image?: Field;
  command?: Field;
  args?: Field;
  ports?: Field;
  /** Each port of its own, in the order of `Workload.ports`. */
  eachPort?: readonly Field[];
  volumes?: Field;
}

/** The places of each workload, by its name. */
export type SpecPlaces = ReadonlyMap<string, WorkloadPlaces>;

/** First field of a deployment's canonical form. */
export const DEPLOYMENT_FORMAT = 'millrace-deployment/1';
/** A registry's name of an image: host, path, tag, digest. */
const IMAGE_NAME = /^[a-z0-9](?:[A-Za-z0-9._:/-]{0,253}[A-Za-z0-9_])?(?:@sha256:[0-9a-f]{64})?$/;

/** Whether a text has the form of a CID: of version 1 in base 32, or of version 0. */
export function isCid(text: string): boolean {
  return /^(?:b[a-z2-7]{58,100}|Qm[1-9A-HJ-NP-Za-km-z]{44})$/.test(text);
}

/** SHA-256 of the canonical form, the same rules as those of a job. */
export function deploymentHash(spec: DeploymentSpec): Hex {
  return `0x${createHash('sha256').update(canonicalJson(spec)).digest('hex')}`;
}

/** By name, in the order of UTF-16 units. */
export function byName(one: { name: string }, other: { name: string }): number {
  return one.name < other.name ? -1 : one.name > other.name ? 1 : 0;
}

/** An image by content (CID, digest) or by the name that registries have for it. */
export function readImage(field: Field): string {
  return field.matching(IMAGE_NAME, 'an image: a CID, sha256:<64 hex digits>, or a name such as nginx:1.25', 400);
}

/** A TCP or UDP port. */
export function readPortNumber(field: Field): number {
  return field.integer({ least: 1, greatest: 65_535 });
}
