/** What tells that two uids belong to one and the same: any of these in common. */
export interface SeatOwner {
  uid: number;
  /** Owner and beneficiary of the operator, receiver of payments, host of the endpoint, key of the machine: whatever is known. */
  marks: readonly string[];
}

/**
 * Groups uids of one owner: two are in one group when they share a mark, or when each shares one with a third. A group has the capacity of one:
 * more uids earn no more.
 */
export function groupByOwner(seats: readonly SeatOwner[]): number[][] {
  const leaders = new Map<number, number>(seats.map(({ uid }) => [uid, uid]));
  const leaderOf = (uid: number): number => {
    let leader = uid;
    while (leaders.get(leader) !== leader) leader = leaders.get(leader) as number;
    return leader;
  };
  const seen = new Map<string, number>();
  for (const { uid, marks } of seats) {
    for (const mark of marks) {
      if (mark === '') continue;
      const other = seen.get(mark.toLowerCase());
      if (other === undefined) seen.set(mark.toLowerCase(), uid);
      else {
        const [low, high] = [leaderOf(uid), leaderOf(other)].sort((a, b) => a - b) as [number, number];
        leaders.set(high, low);
      }
    }
  }
  const groups = new Map<number, number[]>();
  for (const { uid } of seats) groups.set(leaderOf(uid), [...(groups.get(leaderOf(uid)) ?? []), uid]);
  return [...groups.values()].map((uids) => uids.sort((a, b) => a - b));
}

/** Gives every uid of a group an equal part of what the best of them has; what does not divide is dropped. */
export function shareWithinGroups(scores: ReadonlyMap<number, bigint>, groups: readonly (readonly number[])[]): Map<number, bigint> {
  const shared = new Map<number, bigint>();
  for (const uids of groups) {
    const best = uids.reduce((most, uid) => ((scores.get(uid) ?? 0n) > most ? (scores.get(uid) as bigint) : most), 0n);
    for (const uid of uids) shared.set(uid, best / BigInt(uids.length));
  }
  return shared;
}
