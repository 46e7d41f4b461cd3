import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { MillraceError } from '../../errors.ts';
import { type MemberStatus, parseExecResult, parseLogPiece, parseMemberStatus } from './member-status.ts';

const STATUS: MemberStatus = {
  seat: 2,
  version: 3,
  wireguard: 'userspace',
  processes: [
    { rank: 0, state: 'idle' },
    { rank: 1, state: 'running' },
    { rank: 2, state: 'ended', reason: 'completed', exitCode: 0, detail: undefined },
    { rank: 3, state: 'ended', reason: 'signalled', exitCode: undefined, detail: 'killed' },
  ],
  heardMs: { 1: 12, 3: 40_000 },
  newest: { name: 'step-5', cid: 'bafkrei', sizeBytes: 17 },
  isLeaving: false,
  trouble: undefined,
};

test('what a machine says of its part comes back from JSON as it was', () => {
  assert.deepEqual(parseMemberStatus(JSON.parse(JSON.stringify(STATUS))), STATUS);
  assert.deepEqual(parseLogPiece({ text: 'a', next: 1 }), { text: 'a', next: 1 });
  assert.deepEqual(parseExecResult({ exitCode: 3, output: 'b' }), { exitCode: 3, output: 'b' });
});

test('an answer of any form is read or refused as the machine’s fault, never anything else', () => {
  const part = fc.constantFrom(...Object.keys(STATUS));
  fc.assert(
    fc.property(part, fc.jsonValue(), (name, value) => {
      try {
        const { processes, heardMs } = parseMemberStatus({ ...STATUS, [name]: value });
        assert.ok(processes.every(({ rank }) => Number.isSafeInteger(rank)));
        assert.ok(Object.values(heardMs).every((ms) => ms >= 0));
      } catch (error) {
        const { code, actor } = error as MillraceError;
        assert.deepEqual({ code, actor }, { code: 'bad-cluster-answer', actor: 'peer' }, String(error));
      }
    }),
  );
  for (const value of [null, [], 'text', {}, { ...STATUS, processes: Array(5_000).fill({ rank: 0, state: 'idle' }) }]) {
    assert.throws(() => parseMemberStatus(value), { code: 'bad-cluster-answer' });
  }
});
