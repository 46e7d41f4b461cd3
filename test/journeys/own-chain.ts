/** An EVM chain that is not ours, for journeys: a bare anvil that makes its own blocks, and a beacon whose value nobody on the chain chooses. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { type Address, type Hex, toHex } from 'viem';
import { type BareAnvil, initCodeOf, runOnAnvil, startBareAnvil } from '../bare-anvil.ts';

/**
 * Runtime code of an `IBeacon`: `randomnessAt(time)` gives keccak256 of the time, due at the time itself, and reverts before. Predictable, which
 * is for a test; a real beacon (drand) is verified by its contract.
 */
const BEACON_RUNTIME = '600435804210601957805f5260205f205f5260205260405ff35b5f5ffd';

/** Starts a chain with a block every second. */
export function startOwnChain(): Promise<BareAnvil> {
  return startBareAnvil(['--block-time', '1']);
}

/** Puts the beacon on the chain. */
export async function deployBeacon(chain: BareAnvil): Promise<Address> {
  return (await runOnAnvil(chain, { data: initCodeOf(BEACON_RUNTIME) })) as Address;
}

/** Gives an account coins for gas by a plain transfer, as an exchange would. */
export async function sendGas(chain: BareAnvil, to: Address, wei: bigint): Promise<void> {
  await runOnAnvil(chain, { to, value: toHex(wei) });
}

/** Lets the chain's clock run `times` as fast as the wall's until stopped: a chain where waiting costs less. */
export function passTime(chain: BareAnvil, times: number): { stop(): void } {
  const timer = setInterval(() => void chain.rpc('evm_increaseTime', [times - 1]).catch(() => {}), 1000);
  return { stop: () => clearInterval(timer) };
}

/**
 * The chain as a public one shows itself: the node does not call itself anvil. With `prevRandao` every header shows that value, as on chains
 * that have none.
 */
export async function startFront(chain: BareAnvil, { prevRandao }: { prevRandao?: Hex } = {}): Promise<{ rpcUrl: string; stop(): void }> {
  const server: Server = createServer(async (request, response) => {
    const body = await text(request);
    const answer = await fetch(chain.rpcUrl, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    const told = (await answer.text()).replace(/"anvil[^"]*"/i, '"public/1.0"');
    const shown = prevRandao === undefined ? told : told.replace(/"mixHash":"0x[0-9a-f]+"/g, `"mixHash":"${prevRandao}"`);
    response.writeHead(200, { 'content-type': 'application/json' }).end(shown);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { rpcUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop: () => server.close() };
}
