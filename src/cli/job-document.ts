import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isFileName, type JobRequest, parseJob, sortSpec, sourcesOfSpec } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { cidOfDigest } from '../host/index.ts';

/** What of a job is said on the command line. */
export interface JobFlags {
  input: string[];
  image?: string;
  check?: string;
  time?: string;
  memory?: string;
  cpus?: string;
}

/** A job as it is asked for, with the contents that lie on this machine. */
export interface WantedJob {
  request: JobRequest;
  /** By CID or digest: where the file is. */
  files: Record<string, string>;
  /** What was done with the words of the command, for people. */
  notes: string[];
}

const BESIDE_FILES_MAX = 200;
const BESIDE_BYTES_MAX = 256 << 20;
const DEPTH_MAX = 2;

/**
 * A job from a document. Contents that it names and that lie beside it are handed over; `--input` sets or replaces inputs.
 * @throws bad-spec, source-missing, bad-option
 */
export async function readJobDocument(path: string, flags: JobFlags): Promise<WantedJob> {
  const request = parseJob(readText(path));
  const given = await readInputs(flags.input, request);
  const spec = sortSpec({ ...request.spec, inputs: mergeInputs(request.spec.inputs, given) });
  const files = { ...(await filesBeside(dirname(path), sourcesOfSpec(spec).filter(isFileName))), ...filesOf(given) };
  return { request: { ...request, spec }, files, notes: [] };
}

/**
 * A job from the words of a command. Words that name files here are handed over, and mean them at `/input`.
 * @throws bad-spec, source-missing, bad-option
 */
export async function commandJob(words: readonly string[], flags: JobFlags): Promise<WantedJob> {
  const local = words.filter((word) => !word.startsWith('-') && existsSync(word) && statSync(word).isFile() && !word.startsWith('/'));
  const given = await readInputs([...flags.input, ...new Set(local)], undefined);
  const argv = words.map((word) => (local.includes(word) ? `/input/${basename(word)}` : word));
  const image = flags.image === undefined ? undefined : await contentOf(flags.image);
  const { time, memory, cpus, check } = flags;
  const document = {
    job: 1,
    name: basename(words[0] ?? 'job').slice(0, 100),
    command: argv,
    ...(image === undefined ? {} : { image: image.cid }),
    inputs: Object.fromEntries(given.map(({ path, cid }) => [path, cid])),
    limits: {
      ...(time === undefined ? {} : { time }),
      ...(memory === undefined ? {} : { memory }),
      ...(cpus === undefined ? {} : { cpus }),
    },
    ...(check === undefined ? {} : { check: { class: check } }),
  };
  const files = { ...filesOf(given), ...(image?.file === undefined ? {} : { [image.cid]: image.file }) };
  const notes = local.map((word) => `${word} is handed over; the job sees it as /input/${basename(word)}.`);
  return { request: parseJob(JSON.stringify(document)), files, notes };
}

interface GivenInput {
  path: string;
  cid: string;
  /** Where it lies here; undefined: in the network. */
  file?: string;
}

/** Inputs of the command line: `path=source`, or a source alone, where the path is the file's name or that of the only input. */
async function readInputs(given: readonly string[], request: JobRequest | undefined): Promise<GivenInput[]> {
  return await Promise.all(
    given.map(async (text) => {
      const at = text.indexOf('=');
      const source = at < 0 ? text : text.slice(at + 1);
      const content = await contentOf(source);
      const only = request?.spec.inputs.length === 1 ? request.spec.inputs[0]?.path : undefined;
      const path = at > 0 ? text.slice(0, at) : (only ?? (content.file === undefined ? undefined : basename(content.file)));
      if (path !== undefined) return { path, ...content };
      throw new MillraceError('bad-option', {
        actor: 'caller',
        message: `Got --input ${text.slice(0, 80)}, expected name=CID or name=file`,
        values: { got: text.slice(0, 80) },
        hint: 'The name is where the job finds it below /input.',
      });
    }),
  );
}

function mergeInputs(before: JobRequest['spec']['inputs'], given: readonly GivenInput[]): JobRequest['spec']['inputs'] {
  const named = new Set(given.map(({ path }) => path));
  return [...before.filter(({ path }) => !named.has(path)), ...given.map(({ path, cid }) => ({ path, cid }))];
}

function filesOf(given: readonly GivenInput[]): Record<string, string> {
  return Object.fromEntries(given.flatMap(({ cid, file }) => (file === undefined ? [] : [[cid, file]])));
}

/** A file of this machine with the CID of its bytes; anything else is a CID of the network. @throws source-missing */
async function contentOf(source: string): Promise<{ cid: string; file?: string }> {
  if (existsSync(source) && statSync(source).isFile()) return { cid: await cidOfFile(source), file: source };
  if (/^(sha256:[0-9a-f]{64}|b[a-z2-7]{58,100}|Qm[1-9A-HJ-NP-Za-km-z]{44})$/.test(source)) return { cid: source };
  throw new MillraceError('source-missing', {
    actor: 'caller',
    message: `${source.slice(0, 200)} is neither a file here nor a CID`,
    values: { path: source.slice(0, 200) },
    hint: 'Folders go into the network first: millrace put --public FOLDER.',
  });
}

async function cidOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Uint8Array);
  return cidOfDigest(hash.digest());
}

/** Files near a document whose bytes are what it names. */
async function filesBeside(folder: string, wanted: readonly string[]): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  if (wanted.length === 0) return found;
  for (const path of nearFiles(folder, 1)) {
    const cid = await cidOfFile(path);
    const digest = wanted.find((source) => source === cid);
    if (digest !== undefined) found[digest] = path;
  }
  return found;
}

function nearFiles(folder: string, depth: number): string[] {
  const entries = readdirSync(folder, { withFileTypes: true }).slice(0, BESIDE_FILES_MAX);
  return entries.flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && depth < DEPTH_MAX) return nearFiles(path, depth + 1);
    return entry.isFile() && statSync(path).size <= BESIDE_BYTES_MAX ? [path] : [];
  });
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new MillraceError('source-missing', {
      actor: 'caller',
      message: `Cannot read ${path}`,
      values: { path },
      hint: 'Give a job document, or a command behind --.',
      cause,
    });
  }
}
