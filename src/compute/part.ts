import type { ChainClient, Sender, Signer } from '../chain/index.ts';
import type { Executor } from '../host/index.ts';
import type { Logger } from '../log.ts';
import type { Capacity } from './capacity.ts';

/**
 * Brings content by its CID to a path of this machine, every block verified: a file becomes a file, a folder becomes a folder. The path must not
 * exist yet; nothing is left there when it fails. Networks do not import one another: whoever starts a part passes this in.
 * @returns bytes written
 * @throws content-unavailable, content-too-large, bad-cid, or the signal's reason
 */
export type FetchContent = (cid: string, path: string, options: { bytesMax: number; signal: AbortSignal }) => Promise<number>;

/** What every part of a compute node is given. */
export interface ComputeContext {
  client: ChainClient;
  /** The node key: hot, for work only. */
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  /** The part's own folder, which it creates and which outlives it; nothing else writes there. */
  folder: string;
  log: Logger;
  /** What the machine gives to jobs and leases together; all parts of a node share one. */
  capacity: Capacity;
  /** The engines that work here, the default one first; whoever started them closes them. */
  executors: readonly Executor[];
  fetchContent: FetchContent;
}

/** One thing that a compute node does: runs jobs, leases devices, measures health, audits. A role of the node is made of such parts. */
export interface ComputePart {
  /** Answers requests under the paths that the part serves, all below `/v1/compute/`; undefined when the path is not the part's. */
  fetch(request: Request): Promise<Response> | undefined;
  /** Lines in the Prometheus text format, names `millrace_compute_<noun>_<unit>`. */
  metrics(): Promise<string> | string;
  /** Its own numbers, for whoever runs the node. */
  status(): Promise<Record<string, unknown>>;
  /** Takes no new work; what it took on goes on to its end. `resume` takes work again. */
  drain(): void;
  resume(): void;
  /** Ends what it took on as far as the network's rules let it, at their price; gives what it left. */
  leave(): Promise<Record<string, unknown>>;
  /** Stops at once; what was taken on is on disk and goes on at the next start. */
  stop(): Promise<void>;
}
