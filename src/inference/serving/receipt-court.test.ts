import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Address } from 'viem';
import { createInferenceReceipts } from './receipt.ts';

const VECTOR = new URL('../../../contracts/test/inference/receipt-vector.json', import.meta.url);

test('a receipt has the digest that the court of receipts works out, field for field', () => {
  // contracts/test/inference/receipt-court.t.sol reads the same file
  const vector = JSON.parse(readFileSync(VECTOR, 'utf8')) as { chainId: number; verifyingContract: Address; digest: string };
  const codec = createInferenceReceipts(vector);
  const { receipt } = codec.fromJson(JSON.stringify({ ...vector, signature: `0x${'00'.repeat(65)}` }));
  assert.equal(codec.digest(receipt), vector.digest);
  for (const part of ['subject', 'inputs', 'outputs'] as const) {
    for (const [name, value] of Object.entries(receipt[part])) {
      const other =
        typeof value === 'bigint' ? value ^ 1n : typeof value === 'boolean' ? !value : value.replace(/.$/, (c) => (c === '0' ? '1' : '0'));
      const changed = { ...receipt, [part]: { ...receipt[part], [name]: other } };
      assert.notEqual(codec.digest(changed as typeof receipt), vector.digest, `${part}.${name} is not signed`);
    }
  }
});
