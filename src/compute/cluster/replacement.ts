import type { JobReason } from '../../host/index.ts';
import type { MemberList } from './member-list.ts';

/** A process of the cluster as its machine reports it. */
export interface ProcessState {
  rank: number;
  /** `idle`: not started in this version. */
  state: 'idle' | 'running' | 'ended';
  /** Once it has ended. */
  reason?: JobReason;
  exitCode?: number;
  detail?: string;
}

/** What the coordinator knows of one machine. */
export interface MemberView {
  seat: number;
  /** Milliseconds since it last answered the coordinator. */
  silentMs: number;
  /** Milliseconds since the peer that heard it last did so through the mesh; undefined when no peer that answers ever did. */
  unheardMs: number | undefined;
  /** Version that it runs, as it last said. */
  version: number;
  processes: readonly ProcessState[];
  /** It said that it cannot go on: its lease ends, or its engine failed. */
  isLeaving: boolean;
}

/** How patient a coordinator is; milliseconds. */
export interface Patience {
  /** A machine that neither the coordinator nor a peer heard for so long is lost. */
  lostMs: number;
  /** A machine that the coordinator alone does not reach for so long counts as lost too, though peers hear it. */
  unreachableMs: number;
  /** After a process failed, so long is waited for a machine to prove lost before the failure is the program's own. */
  settleMs: number;
  /** Each coordinator waits so much longer than the one before it (see `turn`). */
  turnMs: number;
}

/** What to do next. */
export type Decision =
  | { kind: 'wait' }
  /** Bring the list to machines that run an older one. */
  | { kind: 'push'; seats: number[] }
  | { kind: 'replace'; seats: number[] }
  /** A new version of the same machines. */
  | { kind: 'restart' }
  | { kind: 'finish' }
  | { kind: 'fail'; reason: string };

/** All that a decision rests on. */
export interface ClusterView {
  list: MemberList;
  members: readonly MemberView[];
  /** Milliseconds since a process was first seen to have failed in this version; undefined while none has. */
  failedMs: number | undefined;
  restartsLeft: number;
  /** 0 for the first coordinator of the renter, 1 for its stand-in, …: who stands behind acts later, and finds the work done. */
  turn: number;
}

/** What a coordinator of the dev profile and of tests waits. Public networks want more: a router that restarts is silent for longer. */
export const QUICK_PATIENCE: Patience = { lostMs: 2_500, unreachableMs: 20_000, settleMs: 5_000, turnMs: 5_000 };

/**
 * Decides, without doing. A machine is lost when nobody hears it; a coordinator that hears nobody at all doubts its own network, and waits:
 * of a cluster of several machines not all are lost at one instant. Failed processes on machines that live are the program's own.
 */
export function decide(view: ClusterView, patience: Patience): Decision {
  const extraMs = view.turn * patience.turnMs;
  const isSilent = ({ silentMs }: MemberView) => silentMs >= patience.lostMs + extraMs;
  const isLost = (member: MemberView) => {
    if (member.isLeaving) return true;
    if (member.silentMs >= patience.unreachableMs + extraMs) return true;
    return isSilent(member) && (member.unheardMs ?? Number.POSITIVE_INFINITY) >= patience.lostMs;
  };
  const { members } = view;
  const lost = members.filter(isLost);
  const isCutOff = members.length > 1 && members.every(({ silentMs }) => silentMs >= patience.lostMs);
  if (isCutOff) return { kind: 'wait' };
  if (lost.length > 0) return { kind: 'replace', seats: lost.map(({ seat }) => seat) };
  const behind = members.filter(({ version, silentMs }) => version < view.list.version && silentMs < patience.lostMs);
  if (behind.length > 0) return { kind: 'push', seats: behind.map(({ seat }) => seat) };
  return decideByProcesses(view, patience, extraMs);
}

function decideByProcesses(view: ClusterView, patience: Patience, extraMs: number): Decision {
  const processes = view.members.flatMap((member) => (member.version === view.list.version ? member.processes : []));
  const ranks = view.list.members.flatMap((member) => member.ranks);
  if (ranks.every((rank) => processes.some((process) => process.rank === rank && process.reason === 'completed')))
    return { kind: 'finish' };
  const failed = processes.find(hasFailed);
  if (failed === undefined || view.failedMs === undefined || view.failedMs < patience.settleMs + extraMs) return { kind: 'wait' };
  if (view.restartsLeft > 0) return { kind: 'restart' };
  return { kind: 'fail', reason: `rank ${failed.rank} ended: ${failed.reason}${failed.detail === undefined ? '' : ` (${failed.detail})`}` };
}

/** Whether a process ended otherwise than its program should. */
export function hasFailed({ state, reason }: ProcessState): boolean {
  return state === 'ended' && reason !== 'completed';
}

/** The machines of the next version: those that stay with the ranks that they have, and new ones, each with the ranks of one that is lost. */
export function rankTakeover(list: MemberList, lostSeats: readonly number[]): { keep: MemberList['members']; freed: number[][] } {
  const isLost = ({ seat }: { seat: number }) => lostSeats.includes(seat);
  return {
    keep: list.members.filter((member) => !isLost(member)),
    freed: list.members.filter(isLost).map(({ ranks }) => ranks),
  };
}
