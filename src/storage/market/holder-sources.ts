import type { ChainClient } from '../../chain/index.ts';
import { peerFetch } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import { parseCid } from '../content/block.ts';
import type { ContentSource } from '../content/block-fetcher.ts';
import { holdersOf } from './chain-view.ts';

/**
 * The providers that hold a content, as the chain knows them: reached over TLS pinned to their keys.
 * @throws bad-cid, no-holders
 */
export async function sourcesOf(client: ChainClient, cid: string): Promise<ContentSource[]> {
  const holders = await holdersOf(client, parseCid(cid).bytes);
  const byOperator = new Map(holders.map(({ operator }) => [operator.operatorId, operator]));
  if (byOperator.size === 0) {
    throw new MillraceError('no-holders', {
      actor: 'peer',
      message: `No provider has a running deal for ${cid}`,
      values: { cid },
      hint: 'Check the CID; `millrace ls` shows what this wallet stored, `millrace deals` how it ended.',
    });
  }
  return [...byOperator.values()].map((operator) => ({
    url: operator.endpoint,
    fetch: (url, { headers, signal }) => {
      const { pathname, search } = new URL(url);
      return peerFetch(operator, pathname + search, { headers, signal });
    },
  }));
}
