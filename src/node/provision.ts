import { type Address, type Hex, stringToHex } from 'viem';
import type { ChainClient, Sender, Signer } from '../chain/index.ts';

/** An operator as it should be on chain. */
export interface WantedOperator {
  owner: Sender;
  nodeKey: Signer;
  beneficiary: Address;
  transportKey: Hex;
  /** `https://host:port` */
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
  const region = stringToHex(wanted.region.slice(0, 31), { size: 32 });
  if (operatorId === 0n) {
    const consent = await nodeKeyConsent(client, nodeKey, owner.address);
    await owner.send({
      contract: 'operators',
      functionName: 'register',
      args: [nodeKey.address, wanted.beneficiary, wanted.transportKey, wanted.endpoint, region, consent],
    });
    operatorId = await client.read('operators', 'operatorOfNodeKey', [nodeKey.address]);
  } else {
    const now = await client.read('operators', 'operator', [operatorId]);
    if (now.endpoint !== wanted.endpoint || now.transportKey.toLowerCase() !== wanted.transportKey.toLowerCase()) {
      await owner.send({
        contract: 'operators',
        functionName: 'setEndpoint',
        args: [operatorId, wanted.transportKey, wanted.endpoint, region],
      });
    }
  }
  await topUpStake(client, owner, operatorId, wanted.stake);
  return operatorId;
}

/** The node key's agreement to work for `owner` (EIP-712 `NodeKeyConsent`), so that nobody can squat a key. */
export function nodeKeyConsent(client: ChainClient, nodeKey: Signer, owner: Address): Promise<Hex> {
  return nodeKey.signTypedData({
    domain: { name: 'Millrace Operators', version: '1', chainId: client.chainId, verifyingContract: client.address('operators') },
    types: {
      NodeKeyConsent: [
        { name: 'owner', type: 'address' },
        { name: 'nodeKey', type: 'address' },
      ],
    },
    primaryType: 'NodeKeyConsent',
    message: { owner, nodeKey: nodeKey.address },
  });
}

async function topUpStake(client: ChainClient, owner: Sender, operatorId: bigint, stake: bigint): Promise<void> {
  const [active] = await client.read('stakeVault', 'ownStake', [operatorId]);
  if (active >= stake) return;
  const missing = stake - active;
  await allowTokens(client, owner, client.address('stakeVault'), missing);
  await owner.send({ contract: 'stakeVault', functionName: 'deposit', args: [operatorId, missing] });
}

/** Lets `spender` take at least `amount` of the network's token from the sender's account. */
export async function allowTokens(client: ChainClient, sender: Sender, spender: Address, amount: bigint): Promise<void> {
  const allowed = await client.read('networkToken', 'allowance', [sender.address, spender]);
  if (allowed < amount) await sender.send({ contract: 'networkToken', functionName: 'approve', args: [spender, amount] });
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
