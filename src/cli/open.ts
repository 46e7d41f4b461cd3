import { existsSync, readFileSync, statSync } from 'node:fs';
import { MillraceError } from '../errors.ts';
import { contentOfGrant, parseCid } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { get } from './get.ts';

const TOKEN_BYTES_MAX = 4096;

/**
 * Opens what somebody shared, with one command: a grant (which names its content), a file that holds one, a link to public
 * content, or a CID. @throws bad-grant, grant-not-yours, bad-cid and what `get` throws
 */
export async function open(context: CommandContext, token: string, options: { output?: string }): Promise<void> {
  const text = (isTokenFile(token) ? readFileSync(token, 'utf8') : token).trim();
  const { cid, path, grant } = meaningOf(text);
  return get(context, cid, { output: options.output, path, grant });
}

/** What a token says. */
export function meaningOf(text: string): { cid: string; path?: string; grant?: string } {
  const grant = text.replace(/^millrace:(\/\/)?/, '');
  if (grant.startsWith('millrace-grant-')) return { cid: contentOfGrant(grant), grant };
  const link = /^(?:https?:\/\/[^/]+\/ipfs|ipfs:\/)\/([^/?#]+)\/?([^?#]*)/.exec(text);
  if (link === null) return { cid: parseCid(text).toString() };
  return { cid: parseCid(link[1] as string).toString(), path: link[2] ? decodePath(link[2]) : undefined };
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path).replace(/\/$/, '');
  } catch (cause) {
    throw new MillraceError('bad-path', { actor: 'caller', message: `Got ${path.slice(0, 100)}, expected percent-encoded UTF-8`, cause });
  }
}

function isTokenFile(token: string): boolean {
  return token.length < 1024 && existsSync(token) && statSync(token).isFile() && statSync(token).size <= TOKEN_BYTES_MAX;
}
