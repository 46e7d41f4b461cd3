import { type Address, isAddress } from 'viem';
import { MillraceError } from '../errors.ts';

/** An account as a person gives it: 40 hex digits; in mixed case the check digits of EIP-55 must fit. @throws bad-address */
export function parseAddress(flag: string, text: string): Address {
  if (isAddress(text) && BigInt(text) !== 0n) return text;
  throw new MillraceError('bad-address', {
    actor: 'caller',
    message: `Got ${flag} "${text.slice(0, 60)}", expected 0x and 40 hex digits`,
    values: { flag, got: text.slice(0, 60) },
    hint: 'Copy the whole address; capital and small letters are its check digits.',
  });
}
