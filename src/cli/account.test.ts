import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAddress } from './account.ts';

const ADDRESS = '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed';

test('an address is taken when its check digits fit or it has none, and nothing else is', () => {
  assert.equal(parseAddress('address', ADDRESS), ADDRESS);
  assert.equal(parseAddress('address', ADDRESS.toLowerCase()), ADDRESS.toLowerCase());
  const mistyped = ADDRESS.replace('BeA', 'beA');
  const refused = ['', '0x', ADDRESS.slice(2), ADDRESS.slice(0, -1), `${ADDRESS}0`, mistyped, `0x${'0'.repeat(40)}`, 'vitalik.eth'];
  for (const text of refused) assert.throws(() => parseAddress('address', text), { code: 'bad-address' }, text);
});
