import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Abi, BaseError, encodeErrorResult, type Hex } from 'viem';
import { abis, errorsAbi } from './contracts.generated.ts';
import { chainError, contractErrors, errorCodeOf, revertDataOf, revertError } from './errors.ts';

test('Solidity names become kebab-case codes', () => {
  const codes = {
    InsufficientUnlocked: 'insufficient-unlocked',
    ERC20InsufficientBalance: 'erc20-insufficient-balance',
    ECDSAInvalidSignatureS: 'ecdsa-invalid-signature-s',
    NotASlasher: 'not-a-slasher',
    CheckpointUnorderedInsertion: 'checkpoint-unordered-insertion',
  };
  for (const [name, code] of Object.entries(codes)) assert.equal(errorCodeOf(name), code);
});

test('every custom error of every ABI has its own code', () => {
  const entries = contractErrors();
  const byName = new Map(entries.map((entry) => [entry.name, entry.code]));
  let walked = 0;
  for (const [module, abi] of [...Object.entries(abis), ['all', errorsAbi] as const]) {
    for (const item of abi as unknown as Abi) {
      if (item.type !== 'error') continue;
      walked += 1;
      assert.match(byName.get(item.name) ?? '', /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/, `${module}.${item.name}`);
    }
  }
  assert.ok(walked > 100, `only ${walked} errors`);
  const namesByCode = new Map<string, string>();
  for (const { name, code } of entries) {
    assert.equal(namesByCode.get(code) ?? name, name, `${name} and ${namesByCode.get(code)} are both ${code}`);
    namesByCode.set(code, name);
  }
});

test('every custom error decodes to its code with all its values', () => {
  for (const item of errorsAbi as unknown as Abi) {
    if (item.type !== 'error') continue;
    const args = item.inputs.map(({ type }) => sampleOf(type));
    const data = encodeErrorResult({ abi: [item] as Abi, errorName: item.name, args });
    const error = revertError(data, { doing: 'A call' });
    assert.equal(error.code, errorCodeOf(item.name));
    assert.equal(Object.keys(error.values).length, item.inputs.length, item.name);
    assert.ok(error.message.includes(item.name));
  }
});

test('hints are given for errors that exist', () => {
  const hinted = contractErrors().filter(({ hint }) => hint !== undefined);
  assert.ok(hinted.length >= 12, `only ${hinted.length} hints apply: a contract error was renamed`);
});

test('unknown, empty and mangled revert data become one typed error', () => {
  for (const data of ['0x', '0x1234', '0xdeadbeef', `0x${'ff'.repeat(400)}`] as Hex[]) {
    assert.equal(revertError(data, { doing: 'A call' }).code, 'transaction-reverted');
  }
  const [first] = errorsAbi;
  const cut = encodeErrorResult({ abi: [first] as Abi, errorName: first.name, args: first.inputs.map(({ type }) => sampleOf(type)) }).slice(
    0,
    20,
  ) as Hex;
  assert.equal(revertError(cut, { doing: 'A call' }).code, first.inputs.length === 0 ? errorCodeOf(first.name) : 'transaction-reverted');
});

test('a panic is a bug, a reason string is shown', () => {
  const panic = encodeErrorResult({
    abi: [{ type: 'error', name: 'Panic', inputs: [{ name: 'panic', type: 'uint256' }] }],
    errorName: 'Panic',
    args: [17n],
  });
  const refused = revertError(panic, { doing: 'A call' });
  assert.deepEqual([refused.code, refused.actor, refused.values], ['panic', 'bug', { panic: 17n }]);
  const reason = encodeErrorResult({
    abi: [{ type: 'error', name: 'Error', inputs: [{ name: 'reason', type: 'string' }] }],
    errorName: 'Error',
    args: ['no'],
  });
  assert.deepEqual(revertError(reason, { doing: 'A call' }).values, { reason: 'no' });
});

test('revert data is found at any depth of causes, network failures and missing funds have codes of their own', () => {
  const deep = { message: 'x', cause: { message: 'y', cause: { data: { data: '0x12345678' } } } };
  assert.equal(revertDataOf(deep), '0x12345678');
  assert.equal(revertDataOf({ message: 'execution reverted' }), '0x');
  assert.equal(revertDataOf(new TypeError('x')), undefined);
  const failure = Object.assign(new TypeError('fetch failed'), { cause: { code: 'ECONNREFUSED' } });
  assert.equal(chainError(failure, 'Reading').code, 'chain-unreachable');
  assert.equal(chainError(new TypeError('insufficient funds for gas'), 'Sending').code, 'no-funds');
  assert.equal(chainError(new BaseError('strange'), 'Reading').code, 'chain-refused');
  assert.equal(chainError(new TypeError('strange'), 'Reading').code, 'unexpected');
});

function sampleOf(type: string): unknown {
  if (type === 'address') return '0x00000000000000000000000000000000000000a1';
  if (type === 'string') return 'text';
  if (type === 'bytes') return '0x0102';
  if (type === 'bool') return true;
  if (type.endsWith('[]')) return [sampleOf(type.slice(0, -2))];
  const fixed = /^bytes(\d+)$/.exec(type);
  if (fixed !== null) return `0x${'ab'.repeat(Number(fixed[1]))}`;
  return 7n;
}
