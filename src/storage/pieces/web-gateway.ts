import type { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { parseCid } from '../content/block.ts';
import type { BlockFetcher } from '../content/block-fetcher.ts';
import { fetchNode, listFolder, readFile } from '../content/content-reader.ts';
import { isSealed } from '../content/seal.ts';
import { resolvePath } from '../content/unixfs-walk.ts';
import { mediaTypeOf } from './media-type.ts';
import { problemResponse } from './problem.ts';

/** Gives verified blocks: a store that checked them when they came, or a fetcher that checks them now. */
export type WebBlocks = Pick<BlockFetcher, 'block' | 'run'>;

const IMMUTABLE = 'public, max-age=29030400, immutable';
const START_BYTES = 512;
/**
 * What is shown comes from strangers: no scripts, no forms, no frames, nothing from elsewhere, and an origin of its own, so
 * that a page can reach neither other content nor the API that is served beside it.
 */
const POLICY =
  "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; font-src 'self' data:; style-src 'self' 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/** True for a request of a browser or curl, which want the file itself; those that verify ask for a format. */
export function isWebRequest(request: Request): boolean {
  const isFormat = new URL(request.url).searchParams.has('format');
  return !isFormat && !/application\/vnd\.ipld\./.test(request.headers.get('accept') ?? '');
}

/**
 * Public content as a browser shows it: `/ipfs/{cid}[/path]` is the file with its media type, ranges and an ETag, or a list
 * of the folder (its `index.html` when it has one). Sealed content is refused. GET and HEAD. Whoever asks a stranger's
 * gateway trusts it; `millrace gateway` verifies on one's own machine.
 */
export function createWebGateway(options: {
  open: (root: CID, signal: AbortSignal) => Promise<WebBlocks>;
}): (request: Request) => Promise<Response> {
  return async (request) => {
    try {
      if (request.method !== 'GET' && request.method !== 'HEAD') throw wrongMethod(request.method);
      const url = new URL(request.url);
      const [, cid = '', ...path] = url.pathname.slice(1).split('/').map(decodeStep);
      const root = parseCid(cid);
      const blocks = await options.open(root, request.signal);
      const isFolderPath = path.at(-1) === '' || path.length === 0;
      const steps = path.at(-1) === '' ? path.slice(0, -1) : path;
      const { target } = await resolvePath(root, steps, (each) => blocks.block(each));
      const node = await fetchNode(blocks, target);
      if (node.kind === 'file') return await serveFile({ blocks, target, size: node.fileSize, name: steps.at(-1) ?? '', request });
      if (node.kind === 'symlink') throw notShown(target);
      if (!isFolderPath || path.length === 0) return redirect(`${url.pathname}/`);
      return await serveFolder({ blocks, target, root, steps, request });
    } catch (error) {
      const answer = problemResponse(error);
      answer.headers.set('cache-control', 'no-store');
      answer.headers.set('x-content-type-options', 'nosniff');
      return answer;
    }
  };
}

async function serveFile(input: { blocks: WebBlocks; target: CID; size: number; name: string; request: Request }): Promise<Response> {
  const { blocks, target, size, name, request } = input;
  const start = await firstBytes(readFile(blocks, target, { from: 0, to: Math.min(size, START_BYTES) }));
  if (isSealed(start)) throw sealedContent(target);
  const headers = safeHeaders(`"${target}"`);
  headers.set('content-type', mediaTypeOf(name, start));
  headers.set('accept-ranges', 'bytes');
  if (isKnown(request, headers)) return new Response(null, { status: 304, headers });
  const range = rangeOf(request, size, headers);
  const { from, to } = range ?? { from: 0, to: size };
  headers.set('content-length', String(to - from));
  if (range !== undefined) headers.set('content-range', `bytes ${from}-${to - 1}/${size}`);
  const body = request.method === 'HEAD' || size === 0 ? null : streamOf(readFile(blocks, target, { from, to }));
  return new Response(body, { status: range === undefined ? 200 : 206, headers });
}

async function serveFolder(input: { blocks: WebBlocks; target: CID; root: CID; steps: string[]; request: Request }): Promise<Response> {
  const { blocks, target, root, steps, request } = input;
  const entries = await listFolder(blocks, target);
  const index = entries.find(({ name }) => name === 'index.html');
  if (index !== undefined) {
    const node = await fetchNode(blocks, index.cid);
    if (node.kind === 'file') return serveFile({ blocks, target: index.cid, size: node.fileSize, name: index.name, request });
  }
  const headers = safeHeaders(`W/"${target}.list"`);
  headers.set('content-type', 'text/html; charset=utf-8');
  if (isKnown(request, headers)) return new Response(null, { status: 304, headers });
  const html = folderPage([root.toString(), ...steps].join('/'), steps.length > 0, entries);
  return new Response(request.method === 'HEAD' ? null : html, { headers });
}

function folderPage(title: string, hasParent: boolean, entries: readonly { name: string; sizeBytes: number }[]): string {
  const rows = entries.map(({ name, sizeBytes }) => {
    const link = `./${encodeURIComponent(name)}`;
    return `<tr><td><a href="${escapeHtml(link)}">${escapeHtml(name)}</a></td><td>${sizeBytes}</td></tr>`;
  });
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(title)}</title>
<style>body{font:16px system-ui,sans-serif;margin:2rem;max-width:60rem}td{padding:.2rem 1rem .2rem 0}td+td{text-align:right}h1{font-size:1rem;word-break:break-all}</style></head>
<body><h1>/ipfs/${escapeHtml(title)}</h1><table>${hasParent ? '<tr><td><a href="../">../</a></td><td></td></tr>' : ''}
${rows.join('\n')}
</table></body></html>\n`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

function safeHeaders(etag: string): Headers {
  return new Headers({
    etag,
    'cache-control': IMMUTABLE,
    'content-security-policy': POLICY,
    'cross-origin-resource-policy': 'cross-origin',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  });
}

function isKnown(request: Request, headers: Headers): boolean {
  const etag = (headers.get('etag') as string).replace(/^W\//, '');
  const known = (request.headers.get('if-none-match') ?? '').split(',').map((each) => each.trim().replace(/^W\//, ''));
  return known.includes('*') || known.includes(etag);
}

function rangeOf(request: Request, size: number, headers: Headers): { from: number; to: number } | undefined {
  const condition = request.headers.get('if-range');
  if (condition !== null && condition !== headers.get('etag')) return undefined;
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(request.headers.get('range') ?? '');
  if (match === null || (match[1] === '' && match[2] === '')) return undefined;
  const from = match[1] === '' ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const to = match[1] === '' || match[2] === '' ? size : Math.min(size, Number(match[2]) + 1);
  if (from < to) return { from, to };
  throw new MillraceError('range-not-satisfiable', {
    actor: 'caller',
    message: `Got range ${match[0]} of ${size} bytes`,
    values: { range: match[0], size },
  });
}

function redirect(location: string): Response {
  return new Response(null, { status: 302, headers: { location, 'cache-control': 'no-store' } });
}

function decodeStep(step: string): string {
  try {
    return decodeURIComponent(step);
  } catch (cause) {
    throw new MillraceError('bad-request', {
      actor: 'caller',
      message: `Got ${step.slice(0, 100)} in the path, expected percent-encoded UTF-8`,
      values: { got: step.slice(0, 100) },
      cause,
    });
  }
}

async function firstBytes(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return Buffer.concat(parts);
}

/** Reads on only when the receiver takes more, and stops when it goes away. */
function streamOf(source: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await source.next();
          if (done === true) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          controller.error(error);
        }
      },
      async cancel() {
        await source.return(undefined);
      },
    },
    { highWaterMark: 1 },
  );
}

function sealedContent(cid: CID): MillraceError {
  return new MillraceError('content-sealed', {
    actor: 'caller',
    message: `${cid} is sealed: it cannot be shown without its key`,
    values: { cid: cid.toString() },
    hint: 'Its owner gives it to one recipient with `millrace share CID --to KEY`; the recipient runs `millrace open GRANT`.',
  });
}

function notShown(cid: CID): MillraceError {
  return new MillraceError('unsupported-entry', {
    actor: 'peer',
    message: `${cid} is a symbolic link, which is not followed`,
    values: { cid: cid.toString() },
  });
}

function wrongMethod(method: string): MillraceError {
  return new MillraceError('method-not-allowed', {
    actor: 'caller',
    message: `Got ${method}, expected GET or HEAD`,
    values: { method },
  });
}
