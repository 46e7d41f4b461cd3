import type { ChainClient, Sender, Signer } from '../chain/index.ts';
import type { PeerDoor } from '../connect/index.ts';
import type { Logger } from '../log.ts';

/** What every role of a node is given. */
export interface RoleContext {
  client: ChainClient;
  /** The node key: hot, for work only. */
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  /** The role's own folder. */
  folder: string;
  log: Logger;
}

/** One thing that a node does for its network. A new capability adds a role, not a daemon. */
export interface Role {
  name: string;
  /** Answers requests under the paths that the role serves; undefined when the path is not the role's. */
  fetch(request: Request): Promise<Response> | undefined;
  /** Takes connections that ask the node's server for another node, when the role carries them. */
  door?: PeerDoor;
  /** Lines in the Prometheus text format, names `millrace_<role>_<noun>_<unit>`. */
  metrics(): Promise<string> | string;
  /** Its own numbers, for whoever runs the node. */
  status(): Promise<Record<string, unknown>>;
  /** Takes no new work; what it took on goes on to its end. `resume` takes work again. */
  drain(): void;
  resume(): void;
  /** Ends what it took on as far as the network's rules let it, at their price; gives what it left. */
  leave(): Promise<Record<string, unknown>>;
  /** What must be done before the node's server ends; bounded in time. */
  settle?(): Promise<void>;
  stop(): Promise<void>;
}
