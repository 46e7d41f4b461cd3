import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { JurorVote, JuryCase } from './jury-round.ts';
import { dueWork, isOver, turnOf } from './jury-work.ts';

const TIMES = { drawSeconds: 100 };
const NO_VOTE: JurorVote = { votes: 0, state: 'none', commitment: `0x${'00'.repeat(32)}` };

function caseOf(change: Partial<JuryCase>): JuryCase {
  return {
    disputeId: 1n,
    round: 0,
    arbitrable: `0x${'aa'.repeat(20)}`,
    choices: 2n,
    openedAt: 900n,
    seedTime: 1000n,
    commitUntil: 1200n,
    revealUntil: 1300n,
    appealUntil: 1400n,
    ruling: 0n,
    parties: [],
    accounts: [],
    phase: 'drawing',
    jurors: [],
    unsettled: [0],
    ...change,
  };
}

const kinds = (seen: JuryCase, vote: JurorVote, now: bigint) => dueWork(seen, vote, TIMES, now).map(({ kind }) => kind);

test('a jury is drawn from its seed’s time on, and a draw that is too late is ended', () => {
  const seen = caseOf({});
  assert.deepEqual(kinds(seen, NO_VOTE, 999n), []);
  assert.deepEqual(kinds(seen, NO_VOTE, 1000n), ['draw']);
  assert.deepEqual(kinds(seen, NO_VOTE, 1099n), ['draw']);
  assert.deepEqual(kinds(seen, NO_VOTE, 1100n), ['expire']);
});

test('who is on the jury votes once, reveals once, and nobody else does either', () => {
  const seen = caseOf({ phase: 'voting', jurors: [7n] });
  const drawn = { ...NO_VOTE, votes: 1 };
  assert.deepEqual(kinds(seen, drawn, 1199n), ['vote']);
  assert.deepEqual(kinds(seen, NO_VOTE, 1199n), []);
  assert.deepEqual(kinds(seen, { ...drawn, state: 'committed' }, 1199n), []);
  assert.deepEqual(kinds(seen, drawn, 1200n), [], 'who has not committed has nothing to reveal');
  assert.deepEqual(kinds(seen, { ...drawn, state: 'committed' }, 1200n), ['reveal']);
  assert.deepEqual(kinds(seen, { ...drawn, state: 'revealed' }, 1299n), []);
  assert.deepEqual(kinds(seen, { ...drawn, state: 'committed' }, 1300n), ['close']);
});

test('a ruling is told and settled when nobody may appeal any more, and settled also where it was told', () => {
  const seen = caseOf({ phase: 'ruled', unsettled: [0, 1] });
  assert.deepEqual(kinds(seen, NO_VOTE, 1399n), []);
  assert.deepEqual(kinds(seen, NO_VOTE, 1400n), ['execute', 'settle', 'settle']);
  assert.deepEqual(kinds({ ...seen, phase: 'executed' }, NO_VOTE, 1400n), ['settle', 'settle']);
  assert.equal(isOver({ ...seen, phase: 'executed', unsettled: [] }), true);
  assert.equal(isOver({ ...seen, unsettled: [] }), false);
});

test('jurors take turns with what anybody may do: no two of one jury at the same time, others after them', () => {
  const operator = fc.bigInt({ min: 1n, max: 10_000n });
  fc.assert(
    fc.property(fc.uniqueArray(operator, { minLength: 1, maxLength: 8 }), operator, operator, (jurors, disputeId, other) => {
      const turns = jurors.map((juror) => turnOf({ jurors, disputeId }, juror, 3n));
      assert.equal(new Set(turns).size, jurors.length);
      assert.equal(turns[0], 0n);
      if (!jurors.includes(other)) assert.ok(turnOf({ jurors, disputeId }, other, 3n) > (turns.at(-1) as bigint));
      assert.ok(turnOf({ jurors: [], disputeId }, other, 3n) <= 21n);
    }),
  );
});
