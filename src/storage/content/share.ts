import { base58btc } from 'multiformats/bases/base58';
import { CID } from 'multiformats/cid';
import { MillraceError } from '../../errors.ts';
import { parseCid } from './block.ts';
import { type ContentSource, createBlockFetcher, type FetchLimits } from './block-fetcher.ts';
import { fetchNode } from './content-reader.ts';
import { parseShareKey, type ShareKeyPair, unwrapFileKey, WRAPPED_KEY_BYTES, wrapFileKey } from './key-wrap.ts';
import { type Keys, openSealed, readStart } from './sealed-reader.ts';

/** What the sharer must know before handing a grant over. */
export const SHARE_WARNING =
  'A grant cannot be taken back: whoever has it and the key it was made for can read this content as long as anyone holds it. To share less, store what is shared as a content of its own.';

const PREFIX = 'millrace-grant-';
const VERSION = 1;
const GRANT_TEXT_MAX = 1000;
const CONTEXT = new TextEncoder().encode('Millrace grant 1 ');

/**
 * A grant: the file key of one content, wrapped to one recipient (HPKE base mode) and bound to the content's CID, as text
 * that the recipient gives to `millrace get --grant`. It tells the CID and nothing else to anybody but the recipient.
 */
export async function createGrant(options: { cid: string; fileKey: Uint8Array; recipient: Uint8Array }): Promise<string> {
  const cid = parseCid(options.cid);
  const wrapped = await wrapFileKey({ fileKey: options.fileKey, recipient: options.recipient, context: contextOf(cid) });
  return PREFIX + base58btc.encode(Buffer.concat([Buffer.from([VERSION]), wrapped, cid.bytes]));
}

/** The CID that a grant is for. @throws bad-grant */
export function contentOfGrant(grant: string): string {
  return parseGrant(grant).cid.toString();
}

/**
 * The file key in a grant, for the recipient that it was made for.
 * @throws bad-grant, grant-not-yours
 */
export async function openGrant(grant: string, shareKeys: ShareKeyPair[]): Promise<{ cid: string; fileKey: Uint8Array }> {
  const { cid, wrapped } = parseGrant(grant);
  for (const key of shareKeys) {
    const fileKey = await unwrapFileKey({ wrapped, key, context: contextOf(cid) });
    if (fileKey !== undefined) return { cid: cid.toString(), fileKey };
  }
  throw new MillraceError('grant-not-yours', {
    actor: 'caller',
    message: `The grant for ${cid} was made for another key`,
    values: { cid: cid.toString() },
    hint: 'Send the owner your share key (`millrace wallet show`) and ask for a new grant.',
  });
}

/**
 * Makes a grant for a content that is stored: finds its file key with the owner's keys in the header that the holders
 * serve, and wraps it to the recipient.
 * @throws bad-share-key, not-sealed, no-key, wrong-file-key, content-unavailable
 */
export async function share(input: {
  cid: string;
  to: string;
  sources: ContentSource[];
  keys: Keys;
  signal?: AbortSignal;
  limits?: FetchLimits;
}): Promise<{ cid: string; grant: string; warning: string }> {
  const recipient = parseShareKey(input.to);
  const cid = parseCid(input.cid);
  const fetcher = createBlockFetcher({ sources: input.sources, signal: input.signal, limits: input.limits });
  const node = await fetchNode(fetcher, cid);
  const sealed =
    node.kind === 'file'
      ? await openSealed({ fetcher, cid, size: node.fileSize, start: await readStart(fetcher, cid), keys: input.keys })
      : undefined;
  if (sealed === undefined) {
    throw new MillraceError('not-sealed', {
      actor: 'caller',
      message: `Content ${cid} is public, everybody who knows the CID can read it`,
      values: { cid: cid.toString() },
      hint: 'Just pass the CID on.',
    });
  }
  return {
    cid: cid.toString(),
    grant: await createGrant({ cid: cid.toString(), fileKey: sealed.fileKey, recipient }),
    warning: SHARE_WARNING,
  };
}

function parseGrant(grant: string): { cid: CID; wrapped: Uint8Array } {
  try {
    const text = grant.trim();
    if (text.length <= GRANT_TEXT_MAX && text.startsWith(PREFIX)) {
      const bytes = base58btc.decode(text.slice(PREFIX.length));
      if (bytes[0] === VERSION) {
        return { wrapped: bytes.subarray(1, 1 + WRAPPED_KEY_BYTES), cid: CID.decode(bytes.subarray(1 + WRAPPED_KEY_BYTES)) };
      }
    }
  } catch {
    // falls through to the typed error
  }
  throw new MillraceError('bad-grant', {
    actor: 'caller',
    message: `Got "${grant.slice(0, 40)}…", expected a grant such as ${PREFIX}z…`,
    values: { got: grant.slice(0, 40) },
    hint: 'Copy the whole line that `millrace share` printed.',
  });
}

function contextOf(cid: CID): Uint8Array {
  return Buffer.concat([CONTEXT, cid.bytes]);
}
