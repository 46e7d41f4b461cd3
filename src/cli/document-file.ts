import { readFileSync } from 'node:fs';
import { MillraceError } from '../errors.ts';

/** The text of a document: a file, or standard input for `-`. @throws document-unreadable */
export function readDocument(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (cause) {
    throw new MillraceError('document-unreadable', {
      actor: 'caller',
      message: `Cannot read ${file}: ${(cause as Error).message}`,
      values: { file },
      hint: 'Name a file, or - for standard input.',
      cause,
    });
  }
}
