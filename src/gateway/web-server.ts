import type { CID } from 'multiformats/cid';
import type { Logger } from '../log.ts';
import { type ContentSource, createBlockFetcher, createWebGateway, type WebBlocks } from '../storage/index.ts';
import { type LocalAnswer, type LocalRequest, type LocalServer, startLocalServer } from './local-server.ts';

const KEPT_MAX = 64;
/** Long enough for the requests of one page, short enough that holders which failed are tried again soon. */
const KEPT_MS = 10_000;

/**
 * Serves public content of the network to browsers of this machine: `/ipfs/{cid}[/path]`. Every block is verified before a
 * byte of it is served; an answer whose rest cannot be verified is cut, never completed.
 * @throws port-in-use
 */
export async function startWebServer(options: {
  port: number;
  sourcesOf: (cid: string) => Promise<ContentSource[]>;
  log: Logger;
}): Promise<LocalServer> {
  const kept = new Map<string, { blocks: Promise<WebBlocks>; atMs: number }>();
  const open = (root: CID): Promise<WebBlocks> => {
    const key = root.toString();
    const known = kept.get(key);
    if (known !== undefined && performance.now() - known.atMs < KEPT_MS) return known.blocks;
    const blocks = options.sourcesOf(key).then((sources) => createBlockFetcher({ sources }));
    blocks.catch(() => kept.delete(key));
    kept.delete(key);
    kept.set(key, { blocks, atMs: performance.now() });
    if (kept.size > KEPT_MAX) kept.delete(kept.keys().next().value as string);
    return blocks;
  };
  const web = createWebGateway({ open });
  return startLocalServer({ port: options.port, log: options.log, answer: (request) => answerTo(request, web) });
}

async function answerTo(request: LocalRequest, web: (request: Request) => Promise<Response>): Promise<LocalAnswer> {
  if (!request.rawPath.startsWith('/ipfs/')) return plain(404, 'This gateway serves /ipfs/{cid}[/path].\n');
  // A page on another site that has its name point here sends that name; nothing here is for it.
  if (!/^(127\.0\.0\.1|localhost|\[::1\])(:\d+)?$/.test(request.headers.host ?? '')) return plain(403, 'Ask for 127.0.0.1 or localhost.\n');
  const { method, rawPath, rawQuery, headers, signal } = request;
  const asked = ['accept', 'range', 'if-range', 'if-none-match'].flatMap((name) =>
    headers[name] === undefined ? [] : [[name, headers[name]]],
  );
  const url = `http://gateway${rawPath}${rawQuery === '' ? '' : `?${rawQuery}`}`;
  const response = await web(new Request(url, { method, headers: asked as [string, string][], signal }));
  const body = response.body === null ? undefined : (response.body as ReadableStream<Uint8Array> & AsyncIterable<Uint8Array>);
  return { status: response.status, headers: Object.fromEntries(response.headers), body };
}

function plain(status: number, text: string): LocalAnswer {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8' }, body: text };
}
