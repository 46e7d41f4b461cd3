import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ChainClient, createSigner, type Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { IntervalRecord, intervalCount, passedIntervals, rangeBits } from './intervals.ts';
import type { LeaseView, Statement } from './lease-chain.ts';
import type { LeaseRecord } from './lease-record.ts';
import { createStatementCourier } from './statement-courier.ts';

const signer = createSigner(`0x${'21'.repeat(32)}`);
const times = { meterSeconds: 10, speakSeconds: 60, noticeSeconds: 20 };
const TICK_SECONDS = 1;

/**
 * A market whose latest block is older than the courier's clock says, by what it is told: it takes of a word the intervals that its block has behind
 * it and nobody spoke of, as `ComputeMarket.state` does, and refuses one of which that leaves nothing. Like a real sender it sends no key twice.
 */
function laggingMarket(lease: LeaseView, lagAt: (now: bigint) => number) {
  const said = new Map<number, Statement>();
  const keys = new Set<string>();
  const chain = { now: lease.from, refused: 0, said };
  const client = {
    chainId: 31_337,
    address: () => '0x00000000000000000000000000000000000000c0',
    read: async (_: string, __: string, [, , word]: [bigint, number, number]) => said.get(word) ?? { spoken: 0n, up: 0n },
  } as unknown as ChainClient;
  const send = async ({ args, key }: { args: [bigint, number, number, bigint, bigint]; key: string }) => {
    const [, , word, spoken, up] = args;
    if (keys.has(key)) return {};
    const block = chain.now - BigInt(lagAt(chain.now));
    const [sure, passed] = [block - BigInt(times.speakSeconds), block].map((time) => passedIntervals(lease, times.meterSeconds, time));
    const own = said.get(word) ?? { spoken: 0n, up: 0n };
    const fresh = spoken & rangeBits(word, sure as number, passed as number) & ~own.spoken;
    if (fresh === 0n) {
      chain.refused += 1;
      throw new MillraceError('nothing-to-state', { actor: 'caller', message: 'nothing of it counts' });
    }
    keys.add(key);
    said.set(word, { spoken: own.spoken | fresh, up: own.up | (up & fresh) });
    return {};
  };
  return { chain, client, sender: { send } as unknown as Pick<Sender, 'send'> };
}

const leaseOf = (length: number) => ({ leaseId: 1n, from: 1_000n, until: 1_000n + BigInt(length) }) as LeaseView;

/** Measures and delivers through a lease and the time to speak; what the chain has then. */
async function serve(lease: LeaseView, lagAt: (now: bigint) => number): Promise<{ said: Statement; refused: number }> {
  const { chain, client, sender } = laggingMarket(lease, lagAt);
  const clock = { nowMs: () => Number(chain.now) * 1000, sleep: async () => {} };
  const courier = createStatementCourier({ client, sender, signer, times, clock });
  const record: LeaseRecord = { leaseId: lease.leaseId, own: new IntervalRecord(), theirs: new Map(), main: undefined };
  const end = lease.until + BigInt(times.speakSeconds);
  for (; chain.now < end; chain.now += BigInt(TICK_SECONDS)) {
    const passed = passedIntervals(lease, times.meterSeconds, chain.now);
    for (let interval = 0; interval < passed; interval += 1) record.own.note(interval, true);
    for (const word of record.own.words()) {
      await courier.deliver(lease, 'node', [[word, await courier.sign(record, 'node', word)]], chain.now);
    }
  }
  return { said: chain.said.get(0) ?? { spoken: 0n, up: 0n }, refused: chain.refused };
}

test('a word that the latest block is too old for is sent again, and an honest node of the shortest lease is never silent', async () => {
  const lease = leaseOf(20);
  const { said, refused } = await serve(lease, (now) => (now < lease.until + 12n ? 15 : 2));
  assert.ok(refused > 0, 'the first word is refused');
  assert.deepEqual(said, { spoken: 0b11n, up: 0b11n });
  // The honest twin: a chain that keeps up refuses nothing.
  assert.deepEqual(await serve(lease, () => 0), { said: { spoken: 0b11n, up: 0b11n }, refused: 0 });
});

test('of a word of which the block took a part the rest is sent too', async () => {
  const { said } = await serve(leaseOf(40), (now) => (now <= 1_042n ? 5 : 1));
  assert.deepEqual(said, { spoken: 0b1111n, up: 0b1111n });
});

test('however far blocks lag behind, within the time to speak every interval is on chain at the end', async () => {
  const lags = fc.array(fc.nat(25), { minLength: 5, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 20, max: 230 }), lags, async (length, pattern) => {
      const lease = leaseOf(length);
      const { said } = await serve(lease, (now) => pattern[Number(now / 10n) % pattern.length] as number);
      const all = (1n << BigInt(intervalCount(lease, times.meterSeconds))) - 1n;
      assert.deepEqual(said, { spoken: all, up: all });
    }),
    { numRuns: 25 },
  );
});

test('what a renter says of intervals that the lease does not have, or that have not passed, is never sent', async () => {
  const lease = leaseOf(40);
  const { chain, client, sender } = laggingMarket(lease, () => 0);
  const clock = { nowMs: () => Number(chain.now) * 1000, sleep: async () => {} };
  const courier = createStatementCourier({ client, sender, signer, times, clock });
  const statement = { spoken: (1n << 256n) - 1n, up: 0n, signature: '0x' as const };
  let sent = 0;
  for (; chain.now < lease.until + 60n; chain.now += 1n) sent += await courier.deliver(lease, 'renter', [[0, statement]], chain.now);
  assert.ok(sent >= 1 && sent <= 4);
  assert.deepEqual([chain.refused, chain.said.get(0)?.spoken], [0, 0b1111n]);
});
