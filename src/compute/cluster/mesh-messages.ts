import type { Checkpoint } from './checkpoints.ts';
import type { SignedMemberList } from './member-list.ts';

/** What a node tells the process that it keeps in a rental’s mesh. */
export interface MeshOrder {
  /** The list that counts from now on, verified by the node; `hostfile` is the same for MPI. */
  signed: SignedMemberList;
  hostfile: string;
  /** Mesh addresses of the other members, by seat. */
  peers: { seat: number; address: string }[];
}

/** What that process tells its node, several times a second. */
export interface MeshReport {
  /** Of the list that it was last told. */
  version: number;
  /** Milliseconds since each peer answered; peers that never did are missing. */
  heardMs: Record<number, number>;
  /** The newest checkpoint of this machine. */
  newest: Checkpoint | undefined;
  /** The newest that any peer which answers has; when it is `newest` too, a process may start. */
  newestOfPeers: Checkpoint | undefined;
  /** How many peers have said what they have since the last order. */
  answers: number;
  /** The latest thing that went wrong with a checkpoint, for people. */
  trouble: string | undefined;
}

/** What the process is started with. */
export interface MeshSettings {
  address: string;
  seat: number;
  checkpointFolder: string;
  checkpointBytesMax: number;
}

/** The port of the mesh at which every member answers its peers and the processes of the rental. */
export const MESH_PORT = 4646;

/** What a member answers to `GET /heartbeat`. */
export interface Heartbeat {
  seat: number;
  version: number;
  newest: Checkpoint | undefined;
}
