import { MillraceError } from '../errors.ts';
import { holdersOf, openContent, parseCid, sourcesOf } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { openSession } from './session.ts';

/**
 * Links to public content that need no wallet: at each holder for curl and browsers, and in forms that verify. Sealed content is refused.
 * @throws content-sealed, no-holders, bad-cid
 */
export async function link(context: CommandContext, cid: string, options: { path?: string }): Promise<void> {
  const { client } = await openSession(context);
  const sources = await sourcesOf(client, cid);
  await requirePublic(cid, sources, context.signal);
  const path = (options.path ?? '').split('/').filter((step) => step !== '');
  const below = ['/ipfs', cid, ...path.map(encodeURIComponent)].join('/');
  const holders = await holdersOf(client, parseCid(cid).bytes);
  const endpoints = [...new Set(holders.map(({ operator }) => operator.endpoint))];
  // Nodes speak HTTP on the same port: their TLS is pinned to a key on chain, which browsers do not know.
  const items = endpoints.map((endpoint) => ({ url: endpoint.replace(/^https:/, 'http:') + below, holder: endpoint }));
  const verified = `http://127.0.0.1:8080${below}`;
  const universal = `ipfs:/${below.slice(5)}`;
  context.output.result({ cid, items, verified, universal, next: null }, () =>
    [
      ...items.map(({ url }) => url),
      '',
      `These work in curl and browsers; whoever opens one trusts that holder. Verified on one's own machine:`,
      `  millrace gateway    then ${verified}`,
      `  ${universal}`,
      `Verifiable by any IPFS tool: ${items[0]?.url}?format=car`,
    ].join('\n'),
  );
}

async function requirePublic(cid: string, sources: Awaited<ReturnType<typeof sourcesOf>>, signal: AbortSignal): Promise<void> {
  const isSealed = await openContent({ cid, sources, signal }).then(
    (content) => content.isSealed,
    (error: unknown) => {
      if (error instanceof MillraceError && error.code === 'no-key') return true;
      throw error;
    },
  );
  if (!isSealed) return;
  throw new MillraceError('content-sealed', {
    actor: 'caller',
    message: `${cid} is sealed: a link would show nothing but encrypted bytes`,
    values: { cid },
    hint: 'Share it with one recipient: `millrace share CID --to KEY`. Or store it anew with `millrace put --public`.',
  });
}
