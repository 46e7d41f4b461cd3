import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CommandContext } from './context.ts';

/** Root CID, piece CIDs and sizes of a file, folder or standard input, as `put --public` would store it; nothing is stored. */
export async function piece(context: CommandContext, path: string): Promise<void> {
  const { buildContent } = await import('../storage/index.ts');
  const workFolder = mkdtempSync(join(tmpdir(), 'millrace-piece-'));
  const progress = context.output.progress('Hashing');
  try {
    const built = await buildContent({
      source: path === '-' ? { stream: process.stdin, name: 'stdin' } : { path },
      workFolder,
      public: true,
      signal: context.signal,
      onProgress: ({ step, doneBytes, totalBytes }) => progress.update(doneBytes, totalBytes, step),
    });
    const value = {
      cid: built.cid,
      pieceCidV1: built.piece.cidV1.toString(),
      pieceCidV2: built.piece.cidV2.toString(),
      rawSize: built.piece.rawSize,
      paddedSize: built.piece.paddedSize,
    };
    progress.end();
    context.output.result(value, () =>
      Object.entries(value)
        .map(([name, item]) => `${name.padEnd(11)} ${item}`)
        .join('\n'),
    );
  } finally {
    rmSync(workFolder, { recursive: true, force: true });
  }
}
