import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { link, mkdir, open as openFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncFolder } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import { cidOfDigest } from '../../host/index.ts';
import type { FetchContent } from '../part.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import { contentName, type JobFolders } from './job-records.ts';

/** A job's contents that are on this machine, ready to be run. */
export interface ReadyContents {
  programPath: string | undefined;
  inputFolder: string | undefined;
}

/** Jobs run as users of their own; whom the job's folder keeps out is out. */
const READABLE = 0o644;

/** Everything that a specification names, each once. */
export function sourcesOf(spec: JobSpec): string[] {
  const { program, inputs } = spec;
  return [...new Set([...(program.source === '' ? [] : [program.source]), ...inputs.map(({ cid }) => cid)])];
}

/** Whether a content can be handed over as one file: its name is the digest of its bytes. */
export function isFileName(source: string): boolean {
  return source.startsWith('sha256:') || source.startsWith('bafkrei');
}

/** Bytes that a job's contents may take in all, handed over or from the network. */
export function contentBytesMax({ limits }: JobSpec): number {
  return limits.diskBytes + limits.memoryBytes;
}

/** Contents that the renter has yet to hand over. */
export function missingContents(handed: readonly string[], folders: JobFolders): string[] {
  return handed.filter((source) => !existsSync(join(folders.contents, contentName(source))));
}

/**
 * Takes a content that was handed over: a file whose bytes are what its name says. It is at its place when the promise resolves, durable, or not
 * there at all.
 * @param place.bytesMax of all contents of the job together
 * @throws content-differs, content-too-large
 */
export async function keepContent(
  bytes: AsyncIterable<Uint8Array>,
  place: { folders: JobFolders; source: string; bytesMax: number },
): Promise<void> {
  const { folders, source } = place;
  await mkdir(folders.contents, { recursive: true, mode: 0o700 });
  const bytesMax = place.bytesMax - (await bytesIn(folders.contents));
  const temporary = join(folders.contents, `.${randomUUID()}`);
  const file = await openFile(temporary, 'wx', READABLE);
  try {
    const hash = createHash('sha256');
    let taken = 0;
    for await (const part of bytes) {
      taken += part.length;
      if (taken > bytesMax) throw tooLarge(source, bytesMax);
      hash.update(part);
      await file.writeFile(part);
    }
    const digest = hash.digest();
    if (!isNamed(source, digest)) throw differs(source, digest);
    await file.sync();
    await rename(temporary, join(folders.contents, contentName(source)));
    syncFolder(folders.contents);
  } finally {
    await file.close();
    await rm(temporary, { force: true });
  }
}

/**
 * Brings all contents of a job to where it finds them: what was handed over is linked into `/input`, the rest comes from the network. Files whose names
 * are their digests are kept under these names wherever they came from, to be handed to who checks the job. Called again it goes on.
 * @param ports.bytesMax of all contents together; default: what the job may take
 * @throws content-missing, and what `fetchContent` throws
 */
export async function prepareContents(
  job: { spec: JobSpec; handed: readonly string[]; folders: JobFolders },
  ports: { fetchContent: FetchContent; signal: AbortSignal; bytesMax?: number },
): Promise<ReadyContents> {
  const { spec, handed, folders } = job;
  const { fetchContent, signal, bytesMax = contentBytesMax(spec) } = ports;
  const bring = async (source: string, path: string) => {
    if (existsSync(path)) return;
    await mkdir(dirname(path), { recursive: true });
    await mkdir(folders.contents, { recursive: true, mode: 0o700 });
    const kept = join(folders.contents, contentName(source));
    if (!existsSync(kept)) {
      if (handed.includes(source) || source.startsWith('sha256:')) throw missing(source);
      const left = bytesMax - (await bytesIn(folders.contents));
      // What is no single file has one place only: it cannot be linked.
      await fetchContent(source, isFileName(source) ? kept : path, { bytesMax: Math.max(0, left), signal });
      if (!isFileName(source)) return;
    }
    await link(kept, path);
  };
  for (const { path, cid } of spec.inputs) await bring(cid, join(folders.input, path));
  const { source } = spec.program;
  const programPath = source === '' ? undefined : join(folders.root, 'program');
  if (programPath !== undefined) await bring(source, programPath);
  return { programPath, inputFolder: spec.inputs.length === 0 ? undefined : folders.input };
}

async function bytesIn(folder: string): Promise<number> {
  const names = (await readdir(folder)).filter((name) => !name.startsWith('.'));
  return (await Promise.all(names.map((name) => stat(join(folder, name))))).reduce((sum, { size }) => sum + size, 0);
}

function isNamed(source: string, digest: Buffer): boolean {
  return source === `sha256:${digest.toString('hex')}` || source === cidOfDigest(digest);
}

function missing(source: string): MillraceError {
  return new MillraceError('content-missing', {
    actor: 'caller',
    message: `The content ${source} was not handed over`,
    values: { source },
    hint: 'Hand it over, or name a CID that the storage network has.',
  });
}

function differs(source: string, digest: Buffer): MillraceError {
  return new MillraceError('content-differs', {
    actor: 'caller',
    message: `Got a content with the digest ${digest.toString('hex')} for ${source}`,
    values: { source, got: digest.toString('hex') },
    hint: 'Hand over the file that the specification names.',
  });
}

function tooLarge(source: string, bytesMax: number): MillraceError {
  return new MillraceError('content-too-large', {
    actor: 'caller',
    message: `The content ${source} has more than ${bytesMax} bytes, which the job may keep`,
    values: { source, bytesMax },
    hint: 'Give the job more disk or memory, or a smaller content.',
  });
}
