import { type Address, type Hex, keccak256, type PublicClient } from 'viem';

/** What EXTCODEHASH says of an account that has no code, in the two ways in which it may have none. */
const NO_CODE: readonly string[] = [`0x${'00'.repeat(32)}`, keccak256('0x')];
/** Accounts asked for in one call: the program that asks stays below 3 kB. */
const ACCOUNTS_MAX = 100;

/**
 * The keccak-256 hashes of the codes at some addresses, undefined where there is none. They are asked by one `eth_call` that creates no
 * contract but returns what EXTCODEHASH says: 32 bytes for each instead of the whole codes.
 * @throws viem's error of the call
 */
export async function readCodeHashes(client: PublicClient, addresses: readonly Address[]): Promise<(Hex | undefined)[]> {
  const hashes: (Hex | undefined)[] = [];
  for (let first = 0; first < addresses.length; first += ACCOUNTS_MAX) {
    const some = addresses.slice(first, first + ACCOUNTS_MAX);
    const { data = '0x' } = await client.call({ data: programOf(some) });
    for (let index = 0; index < some.length; index++) {
      const hash: Hex = `0x${data.slice(2 + 64 * index, 2 + 64 * (index + 1))}`;
      hashes.push(hash.length < 66 || NO_CODE.includes(hash) ? undefined : hash);
    }
  }
  return hashes;
}

/** For each address `mstore(32 * index, extcodehash(address))`, then `return(0, 32 * count)`. */
function programOf(addresses: readonly Address[]): Hex {
  const word = (value: number) => value.toString(16).padStart(4, '0');
  const steps = addresses.map((address, index) => `73${address.slice(2)}3f61${word(32 * index)}52`);
  return `0x${steps.join('')}61${word(32 * addresses.length)}6000f3`;
}
