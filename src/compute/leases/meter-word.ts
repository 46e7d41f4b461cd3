import { type ChainClient, isSignedBy } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { HostedLease } from './hosted-lease.ts';
import { intervalCount, WORD } from './intervals.ts';
import { meterDigest } from './lease-chain.ts';
import type { SignedStatement } from './lease-record.ts';

/** A renter's word counts when its agent signed it, it is about intervals that the lease has, and it takes nothing back. @throws bad-meter-word */
export function checkRenterWord(
  client: ChainClient,
  lease: Pick<HostedLease, 'view' | 'record'>,
  { word, statement, meterSeconds }: { word: number; statement: SignedStatement; meterSeconds: number },
): void {
  const { leaseId, agent, ...view } = lease.view();
  const words = Math.ceil(intervalCount(view, meterSeconds) / WORD);
  if (!Number.isInteger(word) || word < 0 || word >= words) throw badWord(leaseId, `the lease has no word ${word}`);
  const digest = meterDigest(client, { leaseId, side: 'renter', word, spoken: statement.spoken, up: statement.up });
  if (!isSignedBy(agent, digest, statement.signature)) throw badWord(leaseId, 'it is not signed by the renter’s agent');
  const before = lease.record.theirs.get(word);
  const isMore =
    before === undefined || ((before.spoken & ~statement.spoken) === 0n && ((before.up ^ statement.up) & before.spoken) === 0n);
  if (!isMore) throw badWord(leaseId, 'it takes back what was said before');
}

function badWord(leaseId: bigint, reason: string): MillraceError {
  return new MillraceError('bad-meter-word', {
    actor: 'caller',
    message: `The renter’s word on lease ${leaseId} cannot be taken: ${reason}`,
    values: { leaseId, reason },
  });
}
