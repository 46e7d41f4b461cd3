import { type Address, type Hex, stringToHex } from 'viem';
import { type ChainClient, nodeKeyConsent, type Sender, type Signer } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { depositStake } from '../token/index.ts';

const ENDPOINT_LENGTH_MAX = 200;
const REGION_BYTES_MAX = 32;

/** An operator as it should be on chain. */
export interface WantedOperator {
  owner: Sender;
  nodeKey: Signer;
  beneficiary: Address;
  transportKey: Hex;
  /** `https://host:port`; empty leaves it as it is, and is none at first. */
  endpoint: string;
  region: string;
  /** Own stake in base units of the network's token; topped up to this, never lowered. */
  stake: bigint;
}

/**
 * Makes an operator be on chain as wanted: registered, reachable at its endpoint, staked. Each step looks first, so it can be
 * repeated and resumed. The owner must hold gas and, for the stake, tokens.
 * @returns the operator's id
 * @throws no-funds, key-in-use and the chain's errors
 */
export async function provisionOperator(client: ChainClient, wanted: WantedOperator): Promise<bigint> {
  const { owner, nodeKey } = wanted;
  let operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  if (operatorId === 0n) {
    const consent = await nodeKeyConsent(client, nodeKey, owner.address);
    await owner.send({
      contract: 'operators',
      functionName: 'register',
      args: [nodeKey.address, wanted.beneficiary, wanted.transportKey, wanted.endpoint, regionWord(wanted.region), consent],
    });
    operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  } else {
    const endpoint = wanted.endpoint === '' ? (await client.read('operators', 'operator', [operatorId])).endpoint : wanted.endpoint;
    await setEndpoint(client, owner, { ...wanted, endpoint, operatorId });
  }
  await topUpStake(client, owner, operatorId, wanted.stake);
  return operatorId;
}

/**
 * Says on chain where an operator's node is reached, when it is not said already. The owner or the node key may.
 * @returns whether anything had to change
 * @throws not-owner-or-node-key, endpoint-too-long, and the sender's errors
 */
export async function setEndpoint(
  client: ChainClient,
  sender: Sender,
  wanted: { operatorId: bigint; transportKey: Hex; endpoint: string; region?: string },
): Promise<boolean> {
  const { operatorId, transportKey, endpoint } = wanted;
  const now = await client.read('operators', 'operator', [operatorId]);
  const region = wanted.region === undefined ? now.region : regionWord(wanted.region);
  if (now.endpoint === endpoint && now.region === region && now.transportKey.toLowerCase() === transportKey.toLowerCase()) return false;
  await sender.send({ contract: 'operators', functionName: 'setEndpoint', args: [operatorId, transportKey, endpoint, region] });
  return true;
}

/**
 * Where a node is reached, as the chain keeps it: `https://host:port`, nothing more.
 * @throws bad-endpoint
 */
export function endpointUrl(text: string): string {
  const url = URL.parse(text);
  const isPlain =
    url?.protocol === 'https:' && url.hostname !== '' && url.pathname === '/' && `${url.search}${url.hash}${url.username}` === '';
  if (isPlain && url.origin.length <= ENDPOINT_LENGTH_MAX) return url.origin;
  throw new MillraceError('bad-endpoint', {
    actor: 'caller',
    message: `Got endpoint "${text.slice(0, 80)}", expected https://host:port of at most ${ENDPOINT_LENGTH_MAX} characters`,
    values: { got: text.slice(0, 80) },
    hint: 'It is the address under which others reach this node.',
  });
}

function regionWord(region: string): Hex {
  const bytes = new TextEncoder().encode(region);
  if (bytes.length <= REGION_BYTES_MAX) return stringToHex(region, { size: 32 });
  throw new MillraceError('bad-region', {
    actor: 'caller',
    message: `Got a region of ${bytes.length} bytes, expected at most ${REGION_BYTES_MAX}`,
    values: { got: bytes.length, max: REGION_BYTES_MAX },
  });
}

async function topUpStake(client: ChainClient, owner: Sender, operatorId: bigint, stake: bigint): Promise<void> {
  const [active] = await client.read('stakeVault', 'ownStake', [operatorId]);
  if (active >= stake) return;
  await depositStake(client, { sender: owner, operatorId, amount: stake - active });
}

/** Gives `to` tokens and gas from a development account until it has at least the wanted amounts. Profile `dev` only. */
export async function fundFromFaucet(
  client: ChainClient,
  faucet: Sender,
  to: Address,
  wanted: { tokens: bigint; wei: bigint },
): Promise<void> {
  const tokens = await client.read('networkToken', 'balanceOf', [to]);
  if (tokens < wanted.tokens) await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [to, wanted.tokens - tokens] });
  const wei = await client.public.getBalance({ address: to });
  if (wei < wanted.wei) await faucet.send({ to, value: wanted.wei - wei });
}
