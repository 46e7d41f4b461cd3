import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Hex } from 'viem';
import type { Artefact } from '../../host/index.ts';
import { type Canonicaliser, canonicalJson, type JobSpec } from '../spec/job-spec.ts';

/**
 * How a job ended, as far as every machine comes to the same: its exit code; of a strict module why it stopped (`trap`, `fuel`, `depth`), or that its
 * output is longer than its limit (`output`); of a whole job `stopped`, where a limit or a signal ended it or it left what is no output, and `unfit`,
 * where its program cannot be run at all. All but an exit code are ends without outputs.
 */
export type JobEnd = `exit ${number}` | 'trap' | 'fuel' | 'depth' | 'output' | 'stopped' | 'unfit';

/** What a {@link JobEnd} looks like; ends come from strangers. */
export const JOB_END = /^(exit \d{1,3}|trap|fuel|depth|output|stopped|unfit)$/;

/** Outputs that a state of a whole job holds, together. */
const STATE_OUTPUTS_BYTES_MAX = 16 << 20;
/** Larger outputs are compared as they are. */
const TEXT_BYTES_MAX = 64 << 20;

/**
 * What is compared of a run, equal for runs that the specification calls equal: the canonical JSON of `{end, outputs: [{path, sha256,
 * sizeBytes}]}`, sorted by path, each file as the specification's canonicaliser leaves it. Files that `spec.outputs` does not name do not
 * count, where it names any. Its SHA-256 is the output digest of a job.
 * @param run.folder where the files lie, each under its CID.
 */
export async function describeRun(
  spec: Pick<JobSpec, 'canonicaliser' | 'outputs'>,
  run: { end: JobEnd; artefacts: readonly Artefact[]; folder: string },
): Promise<Uint8Array> {
  return (await readOutputs(spec, run)).description;
}

/**
 * What is compared of a run ({@link describeRun}), and the outputs as they are compared, in its order; undefined where together they have more than
 * 16 MiB.
 */
export async function readOutputs(
  spec: Pick<JobSpec, 'canonicaliser' | 'outputs'>,
  { end, artefacts, folder }: { end: JobEnd; artefacts: readonly Artefact[]; folder: string },
): Promise<{ description: Uint8Array; contents: Uint8Array[] | undefined }> {
  const counted = artefacts.filter(({ path }) => spec.outputs.length === 0 || spec.outputs.includes(path));
  const outputs: { path: string; sha256: string; sizeBytes: number }[] = [];
  const contents: Uint8Array[] = [];
  let total = 0;
  for (const { path, cid } of [...counted].sort((one, other) => (one.path < other.path ? -1 : 1))) {
    const bytes = canonicalise(spec.canonicaliser, await readFile(join(folder, cid)));
    outputs.push({ path, sha256: createHash('sha256').update(bytes).digest('hex'), sizeBytes: bytes.length });
    total += bytes.length;
    if (total <= STATE_OUTPUTS_BYTES_MAX) contents.push(bytes);
  }
  const description = Buffer.from(canonicalJson({ end, outputs }));
  return { description, contents: total <= STATE_OUTPUTS_BYTES_MAX ? contents : undefined };
}

/** SHA-256 of what is compared of a run ({@link describeRun}). */
export async function digestRun(
  spec: Pick<JobSpec, 'canonicaliser' | 'outputs'>,
  run: { end: JobEnd; artefacts: readonly Artefact[]; folder: string },
): Promise<Hex> {
  return `0x${createHash('sha256')
    .update(await describeRun(spec, run))
    .digest('hex')}`;
}

/**
 * One output as it is compared. `text`: `\n` at the end of each line, no blanks before it, no empty lines at the end; `lines`: the same, sorted by
 * UTF-16 units; `json`: keys sorted, no blanks. What is not UTF-8, no JSON, or has more than 64 MiB, is compared as it is.
 */
export function canonicalise(rule: Canonicaliser, bytes: Uint8Array): Uint8Array {
  if (rule === 'bytes' || bytes.length > TEXT_BYTES_MAX) return bytes;
  try {
    const text = new TextDecoder('utf-8', { ignoreBOM: true, fatal: true }).decode(bytes);
    return Buffer.from(rule === 'json' ? canonicalJson(JSON.parse(text)) : canonicalLines(text, rule === 'lines'));
  } catch {
    return bytes;
  }
}

function canonicalLines(text: string, areSorted: boolean): string {
  const lines = text.split(/\r\n|\r|\n/).map((line) => line.replace(/[ \t]+$/, ''));
  while (lines.at(-1) === '') lines.pop();
  if (areSorted) lines.sort();
  return lines.map((line) => `${line}\n`).join('');
}
