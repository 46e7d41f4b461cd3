import type { ChainClient } from '../chain/index.ts';
import { peerFetch } from '../connect/index.ts';
import type { Uid } from '../inference/index.ts';
import { readAtMost } from '../read-at-most.ts';

/** What a validator says it did with users' requests, since it began. */
export interface UserReplays {
  uid: number;
  /** Paid requests that gateways told it of, and how many of them it was shown. */
  paid: number;
  shown: number;
  /** How those ended that it ran again. */
  confirmed: number;
  refuted: number;
  unproven: number;
}

const LOOK_MS = 3_000;
const BYTES_MAX = 256 << 10;

/** What the validators of a subnet say of users' requests that they ran again; who does not answer in time, or nonsense, is left out. Its own word only. */
export async function readUserReplays(client: ChainClient, subnetId: bigint, uids: readonly Uid[]): Promise<UserReplays[]> {
  const judges = uids.filter(({ hasPermit }) => hasPermit);
  const found = await Promise.all(judges.map((judge) => readOne(client, subnetId, judge).catch(() => undefined)));
  return found.filter((one) => one !== undefined);
}

async function readOne(client: ChainClient, subnetId: bigint, { uid, operatorId }: Uid): Promise<UserReplays | undefined> {
  const { endpoint, transportKey } = await client.read('operators', 'operator', [operatorId]);
  if (!endpoint.startsWith('https:')) return undefined;
  const signal = AbortSignal.timeout(LOOK_MS);
  const response = await peerFetch({ endpoint, transportKey }, `/v1/inference/evidence/${subnetId}`, { signal, headersTimeoutMs: LOOK_MS });
  const text = (await readAtMost(response.body, BYTES_MAX)).toString('utf8');
  const { users } = JSON.parse(text) as { users?: Record<string, unknown> };
  const count = (name: string): number => {
    const value = users?.[name];
    return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : 0;
  };
  if (typeof users !== 'object' || users === null) return undefined;
  return {
    uid,
    paid: count('paid'),
    shown: count('replayable'),
    confirmed: count('confirmed'),
    refuted: count('refuted'),
    unproven: count('unproven'),
  };
}

/** The same for people, a line for each validator. */
export function userReplaysText(replays: readonly UserReplays[]): string {
  if (replays.every(({ shown }) => shown === 0)) {
    return 'Users’ requests: none was shown to a validator (callers allow it with --replay); miners are checked by probes alone.';
  }
  const lines = replays.map(({ uid, paid, shown, confirmed, refuted, unproven }) => {
    const again = confirmed + refuted + unproven;
    return `  uid ${uid}: ${paid} paid, ${shown} shown, ${again} run again: ${confirmed} confirmed, ${refuted} refuted, ${unproven} unproven`;
  });
  return ['Users’ requests, as each validator says:', ...lines].join('\n');
}
