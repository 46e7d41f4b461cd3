import type { Address, Hex } from 'viem';
import type { ChainClient } from './client.ts';
import type { Signer } from './signer.ts';

/** The node key's agreement to work for `owner` (EIP-712 `NodeKeyConsent` of `Operators`), so that nobody can squat a key. */
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
