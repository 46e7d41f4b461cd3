import type { ClusterSpec } from './cluster-spec.ts';
import { type ClusterMember, type MemberList, meshAddress } from './member-list.ts';

/** Where torch’s processes meet, unless the specification gives another `MASTER_PORT`. */
const MASTER_PORT = '29500';
/** Ray’s own default. */
const RAY_PORT = '6379';

/** What a process sees of its cluster in files. */
export const CLUSTER_FOLDER = '/cluster';
/** Where a process keeps its checkpoints, and finds the newest of its machine and its peers when it starts. */
export const CHECKPOINT_FOLDER = '/checkpoints';

/** The member that runs a rank. */
function memberOfRank({ members }: MemberList, rank: number): ClusterMember | undefined {
  return members.find(({ ranks }) => ranks.includes(rank));
}

/**
 * What a process is told, in the names that torch (`MASTER_ADDR`, `RANK`, …), gloo and NCCL (the interface), Open MPI (hostfile) and Ray look
 * for. The master is the machine of the lowest rank: no machine is special, each list names its own.
 * @param link name of the mesh's interface on that machine
 */
export function rankEnvironment(
  list: MemberList,
  spec: ClusterSpec,
  { rank, link }: { rank: number; link: string },
): Record<string, string> {
  const own = memberOfRank(list, rank);
  const master = memberOfRank(list, 0);
  const masterAddress = meshAddress(master?.seat ?? 1);
  const machine = list.members.indexOf(own as ClusterMember);
  return {
    MASTER_ADDR: masterAddress,
    MASTER_PORT,
    RANK: String(rank),
    WORLD_SIZE: String(spec.processes),
    LOCAL_RANK: String(own?.ranks.indexOf(rank) ?? 0),
    LOCAL_WORLD_SIZE: String(own?.ranks.length ?? 0),
    GROUP_RANK: String(machine),
    GROUP_WORLD_SIZE: String(list.members.length),
    GLOO_SOCKET_IFNAME: link,
    TP_SOCKET_IFNAME: link,
    NCCL_SOCKET_IFNAME: link,
    OMPI_MCA_btl_tcp_if_include: link,
    OMPI_MCA_oob_tcp_if_include: link,
    OMPI_MCA_orte_default_hostfile: `${CLUSTER_FOLDER}/hostfile`,
    RAY_ADDRESS: `${masterAddress}:${RAY_PORT}`,
    MILLRACE_CLUSTER: list.cluster,
    MILLRACE_GENERATION: String(list.version),
    MILLRACE_ADDRESS: meshAddress(own?.seat ?? 0),
    MILLRACE_CHECKPOINTS: CHECKPOINT_FOLDER,
    ...spec.env,
  };
}

/** `/etc/hosts` of every process: each machine as `seat-N` and by the ranks that it runs, the lowest rank's also as `master`. */
export function hostsFile(list: MemberList, ownSeat: number, hostName: string): string {
  const lines = list.members.map(({ seat, ranks }) => {
    const names = [`seat-${seat}`, ...ranks.map((rank) => `rank-${rank}`)];
    if (ranks.includes(0)) names.push('master');
    if (seat === ownSeat) names.push(hostName);
    return `${meshAddress(seat)} ${names.join(' ')}`;
  });
  return `127.0.0.1 localhost\n${lines.join('\n')}\n`;
}

/** The machines and their places, as `mpirun --hostfile` reads them. */
export function mpiHostfile({ members }: MemberList): string {
  return members.map(({ seat, ranks }) => `${meshAddress(seat)} slots=${ranks.length}\n`).join('');
}
