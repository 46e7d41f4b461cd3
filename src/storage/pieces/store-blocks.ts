import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import type { GatewaySource } from './gateway.ts';
import type { WebBlocks } from './web-gateway.ts';

/** Blocks of a provider's own store, which verified them when they came. */
export function storeBlocks(store: Pick<GatewaySource, 'block'>): WebBlocks {
  const block = async (cid: CID): Promise<Uint8Array> => {
    const bytes = await store.block(cid);
    if (bytes !== undefined) return bytes;
    throw new MillraceError('not-found', {
      actor: 'caller',
      message: `Block ${cid} is not stored here`,
      values: { cid: cid.toString() },
      hint: 'Ask another provider of this content: `millrace link CID`.',
    });
  };
  return {
    block,
    async run({ leaves }) {
      const blocks: Uint8Array[] = [];
      for (const { cid } of leaves) blocks.push(await block(cid));
      return blocks;
    },
  };
}
