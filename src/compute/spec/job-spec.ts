import { createHash } from 'node:crypto';
import type { Hex } from 'viem';
import { type JobLimits, STRICT_RUNTIME } from '../../host/index.ts';
import { Field, shown } from './field.ts';

/**
 * How the result of a job can be checked (decision 0029). `wasm-strict`: cut into segments, each of which can be run again alone.
 * `exact-output`: run again whole, the canonical output must be the same. `fingerprint`: compared within a threshold. `none`: not at all, so
 * that the receipt says `reputation only`.
 */
export type DeterminismClass = (typeof DETERMINISM_CLASSES)[number];
/** All of them. */
export const DETERMINISM_CLASSES = ['wasm-strict', 'exact-output', 'fingerprint', 'none'] as const;

/**
 * What is done with each output before it is compared. `bytes`: nothing. `text`: line ends become one newline, blanks at the end of a line go.
 * `lines`: as `text`, and the lines are sorted. `json`: keys sorted, no blanks.
 */
export type Canonicaliser = (typeof CANONICALISERS)[number];
/** All of them. */
export const CANONICALISERS = ['bytes', 'text', 'lines', 'json'] as const;

/** What runs: a WebAssembly module, an image of a root file system, or (`command`) software that the machine has. */
export type ProgramKind = (typeof PROGRAM_KINDS)[number];
/** All of them. */
export const PROGRAM_KINDS = ['module', 'image', 'command'] as const;

/** Content that a job sees as a file or folder at `/input/<path>`. */
export interface JobInput {
  /** Relative, parts joined by `/`. */
  path: string;
  /** CID of the content in the storage network. */
  cid: string;
}

/** Limits of a job in whole numbers, so that their canonical form is one. */
export interface SpecLimits {
  memoryBytes: number;
  /** Thousandths of a core. */
  milliCpus: number;
  processes: number;
  diskBytes: number;
  wallSeconds: number;
  outputBytes: number;
}

/**
 * All that the result of a job may depend on, and nothing else: no price, place or name. Two specifications with the same {@link specHash} are
 * the same work. Lists whose order means nothing are sorted.
 */
export interface JobSpec {
  format: typeof JOB_FORMAT;
  /** Name and version of what runs it ({@link runtimeOf}): a node that has another one does not have the same job. */
  runtime: string;
  program: {
    kind: ProgramKind;
    /** CID of the module or image, or its digest (`sha256:…`); empty for a command. */
    source: string;
  };
  /** Program and arguments; a module's first one is `module`. */
  argv: string[];
  env: Record<string, string>;
  inputs: JobInput[];
  /** Files below `/output` that are the result; empty: all. */
  outputs: string[];
  /** Decimal, below 2^64. */
  seed: string;
  limits: SpecLimits;
  determinism: DeterminismClass;
  segments: number;
  canonicaliser: Canonicaliser;
  /** Of fingerprints: the greatest distance that counts as equal, in millionths; else 0. */
  thresholdPpm: number;
}

/** First field of a job's canonical form. */
export const JOB_FORMAT = 'millrace-job/1';
/** What runs a program of a kind and class in this version of Millrace; a change of what it computes is a new name. */
export function runtimeOf(kind: ProgramKind, determinism: DeterminismClass): string {
  if (determinism === 'wasm-strict') return STRICT_RUNTIME;
  return { module: 'wasi-preview1/1', image: 'container/1', command: 'host/1' }[kind];
}

/** Most segments of a job: a dispute takes 16 rounds at most. */
export const SEGMENTS_MAX = 65_536;
/** Most entries of a list or map of a document. */
export const LIST_MAX = 256;
/** The widest threshold of fingerprints: everything is equal. */
export const THRESHOLD_PPM_MAX = 1_000_000;
const SEED_LIMIT = 1n << 64n;

/** Bounds of the limits of a job; those of the engines (`src/host/executor.ts`). */
export const LIMIT_BOUNDS: Readonly<Record<keyof SpecLimits, { least: number; greatest: number }>> = {
  memoryBytes: { least: 4 << 20, greatest: 2 ** 42 },
  milliCpus: { least: 10, greatest: 1_024_000 },
  processes: { least: 1, greatest: 1 << 20 },
  diskBytes: { least: 4096, greatest: 2 ** 44 },
  wallSeconds: { least: 1, greatest: 24 * 86_400 },
  outputBytes: { least: 0, greatest: 2 ** 32 },
};

/** The canonical form: UTF-8 JSON without blanks, keys sorted by UTF-16 units, whole numbers only (the rules of RFC 8785). */
export function encodeJobSpec(spec: JobSpec): Uint8Array {
  return new TextEncoder().encode(canonicalJson(spec));
}

/** SHA-256 of the canonical form, runtime included: what renter and node sign, and what every segment's leaf is bound to. */
export function specHash(spec: JobSpec): Hex {
  return `0x${createHash('sha256').update(encodeJobSpec(spec)).digest('hex')}`;
}

/**
 * The specification in a canonical form that somebody else sent: the only bytes with its hash.
 * @throws bad-spec when anything in it is wrong, or written in another way than {@link encodeJobSpec} writes it
 */
export function decodeJobSpec(bytes: Uint8Array): JobSpec {
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  const root = Field.read(text);
  const spec = readSpec(root);
  if (canonicalJson(spec) !== text) throw root.refuse('it is not in its canonical form');
  return spec;
}

/** The limits as the engines take them. */
export function hostLimits({ milliCpus, ...rest }: SpecLimits): JobLimits {
  return { ...rest, cpus: milliCpus / 1000 };
}

/** JSON without blanks, keys sorted, for values of text, whole numbers, booleans, lists and plain objects. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const entries = Object.entries(value).filter(([, each]) => each !== undefined);
  entries.sort(([one], [other]) => (one < other ? -1 : 1));
  return `{${entries.map(([key, each]) => `${JSON.stringify(key)}:${canonicalJson(each)}`).join(',')}}`;
}

const SPEC_FIELDS = [
  'format',
  'runtime',
  'program',
  'argv',
  'env',
  'inputs',
  'outputs',
  'seed',
  'limits',
  'determinism',
  'segments',
  'canonicaliser',
  'thresholdPpm',
] as const;

function readSpec(root: Field): JobSpec {
  const fields = root.fields(SPEC_FIELDS);
  const at = (name: (typeof SPEC_FIELDS)[number]) => root.required(fields, name);
  const program = at('program').fields(['kind', 'source']);
  const limits = at('limits').fields(Object.keys(LIMIT_BOUNDS));
  const kind = at('program').required(program, 'kind').oneOf(PROGRAM_KINDS);
  const sourceField = at('program').required(program, 'source');
  const limit = (name: keyof SpecLimits) => at('limits').required(limits, name).integer(LIMIT_BOUNDS[name]);
  const spec: JobSpec = {
    format: at('format').oneOf([JOB_FORMAT]),
    runtime: at('runtime').text(64),
    program: { kind, source: kind === 'command' ? sourceField.oneOf(['']) : readSource(sourceField) },
    argv: readArguments(at('argv')),
    env: readEnvironment(at('env')),
    inputs: readInputs(at('inputs')),
    outputs: at('outputs').list(LIST_MAX).map(readPath),
    seed: readSeed(at('seed')),
    limits: {
      memoryBytes: limit('memoryBytes'),
      milliCpus: limit('milliCpus'),
      processes: limit('processes'),
      diskBytes: limit('diskBytes'),
      wallSeconds: limit('wallSeconds'),
      outputBytes: limit('outputBytes'),
    },
    determinism: at('determinism').oneOf(DETERMINISM_CLASSES),
    segments: at('segments').integer({ least: 1, greatest: SEGMENTS_MAX }),
    canonicaliser: at('canonicaliser').oneOf(CANONICALISERS),
    thresholdPpm: at('thresholdPpm').integer({ least: 0, greatest: THRESHOLD_PPM_MAX }),
  };
  checkSpec(spec, root);
  return sortSpec(spec);
}

const CONTENT_ID = /^(?:sha256:[0-9a-f]{64}|b[a-z2-7]{58,100}|Qm[1-9A-HJ-NP-Za-km-z]{44})$/;
const PATH = /^(?!.*(?:^|\/)\.{0,2}(?:\/|$))[^\p{Cc}\\]{1,255}$/u;
const NAME = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const ARGUMENT_LENGTH_MAX = 32 << 10;

/** A CID (base32 version 1, or version 0) or `sha256:` with 64 hex digits. */
export function readSource(field: Field): string {
  return field.matching(CONTENT_ID, 'a CID (b…, Qm…) or sha256:<64 hex digits>');
}

/** A path below `/input` or `/output`: relative, no empty parts, no `.` and `..`. */
export function readPath(field: Field): string {
  return field.matching(PATH, 'a relative path without . and ..');
}

/** A list of words of a command line. */
export function readArguments(field: Field): string[] {
  return field.list(LIST_MAX).map((each) => each.text(ARGUMENT_LENGTH_MAX));
}

/** Names and values of the environment, in the order in which they stand. */
export function readEnvironment(field: Field): Record<string, string> {
  const entries = field.entries();
  if (entries.length > LIST_MAX) throw field.refuse(`it has ${entries.length} names; at most ${LIST_MAX} are taken`);
  return Object.fromEntries(entries.map(([name, value]) => [checkName(name, value), value.text(ARGUMENT_LENGTH_MAX)]));
}

/** A name of the environment. */
export function checkName(name: string, field: Field): string {
  if (!NAME.test(name)) throw field.refuse('a name of the environment has letters, digits and _, and no digit first');
  return name;
}

/** A whole number below 2^64, in decimal digits. */
export function readSeed(field: Field): string {
  const text = field.matching(/^(?:0|[1-9]\d{0,19})$/, 'a whole number below 2^64', 20);
  if (BigInt(text) >= SEED_LIMIT) throw field.refuse(`got ${text}; due is a whole number below 2^64`);
  return text;
}

function readInputs(field: Field): JobInput[] {
  return field.list(LIST_MAX).map((each) => {
    const entry = each.fields(['path', 'cid']);
    return { path: readPath(each.required(entry, 'path')), cid: readSource(each.required(entry, 'cid')) };
  });
}

/**
 * Refuses what each field allows but all of them together do not.
 * @throws bad-spec at the given place
 */
export function checkSpec(spec: JobSpec, at: Field): void {
  const { kind } = spec.program;
  const { determinism, segments, thresholdPpm } = spec;
  const runtime = runtimeOf(kind, determinism);
  if (spec.runtime !== runtime) throw at.refuse(`it wants the runtime ${shown(spec.runtime)}; this version has ${runtime}`);
  if ((spec.argv[0] ?? '') === '') throw at.refuse('it names no command: an image has none of its own');
  if (determinism === 'wasm-strict' && kind !== 'module') throw at.refuse('only a module can be checked as wasm-strict');
  if (kind === 'command' && determinism !== 'none') {
    throw at.refuse(`software of the machine differs between machines: its class is none, got ${determinism}`);
  }
  if (segments > 1 && determinism !== 'wasm-strict') throw at.refuse(`${determinism} has one segment, got ${segments}`);
  if (thresholdPpm > 0 !== (determinism === 'fingerprint'))
    throw at.refuse('a threshold belongs to the class fingerprint, and is more than 0');
  const paths = spec.inputs.map((input) => input.path);
  if (new Set(paths).size < paths.length) throw at.refuse('two inputs have the same path');
  if (new Set(spec.outputs).size < spec.outputs.length) throw at.refuse('an output stands there twice');
}

/** The same specification with its unordered lists sorted. */
export function sortSpec(spec: JobSpec): JobSpec {
  const byPath = (one: JobInput, other: JobInput) => (one.path < other.path ? -1 : 1);
  return { ...spec, inputs: [...spec.inputs].sort(byPath), outputs: [...spec.outputs].sort() };
}
