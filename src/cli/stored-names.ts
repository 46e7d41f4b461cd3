import { appendFileSync, mkdirSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';

/** Under which name something was stored from this machine, and when. Nobody else knows it. */
export interface StoredName {
  name: string;
  /** ISO 8601, by this machine's clock. */
  at: string;
}

const fileOf = (clientFolder: string): string => join(clientFolder, 'names.ndjson');

/** Notes what was stored under a CID. It is a note for people: where it cannot be written, nothing else fails. */
export function rememberName(clientFolder: string, cid: string, path: string): void {
  const name = path === '-' ? 'standard input' : basename(resolve(path));
  try {
    mkdirSync(clientFolder, { recursive: true, mode: 0o700 });
    appendFileSync(fileOf(clientFolder), `${JSON.stringify({ cid, name, at: new Date().toISOString() })}\n`, { mode: 0o600 });
  } catch {
    // `ls` shows the CID alone.
  }
}

/** The notes by CID, the last of each. */
export function readNames(clientFolder: string): Map<string, StoredName> {
  const names = new Map<string, StoredName>();
  let text = '';
  try {
    text = readFileSync(fileOf(clientFolder), 'utf8');
  } catch {
    return names;
  }
  for (const line of text.split('\n')) {
    try {
      const { cid, name, at } = JSON.parse(line) as Record<string, unknown>;
      if (typeof cid === 'string' && typeof name === 'string' && typeof at === 'string') names.set(cid, { name, at });
    } catch {
      // The last line of a run that was cut off.
    }
  }
  return names;
}
