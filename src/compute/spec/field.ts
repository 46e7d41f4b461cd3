import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { MillraceError } from '../../errors.ts';

/** Longest document, in UTF-16 units. */
export const DOCUMENT_LENGTH_MAX = 128 << 10;
const DEPTH_MAX = 24;
/** Nodes that are read in all; an alias counts as all that it stands for. */
const FIELDS_MAX = 10_000;
/** Brackets of flow style that may be open at one time; the parser descends one call deeper for each. */
const BRACKETS_MAX = 64;
const SHOWN_MAX = 60;

/** A remark on a document that is taken all the same. */
export interface SpecWarning {
  field: string;
  line: number;
  column: number;
  message: string;
}

/** Bounds of a whole number, both included. */
export interface Bounds {
  least: number;
  greatest: number;
}

interface Reading {
  document: Document;
  lines: LineCounter;
  anchors: Map<string, Node>;
  warnings: SpecWarning[];
  left: number;
}

/**
 * One value of a YAML document, with its name (`services.web.image`), line and column. What is read is checked at once, so that every refusal
 * says where. Aliases are followed within a limit of nodes; merge keys, tags and keys that are no text are refused.
 */
export class Field {
  readonly path: string;
  readonly #reading: Reading;
  readonly #node: Node | null;
  readonly #at: Node | null;
  readonly #depth: number;

  private constructor(reading: Reading, node: Node | null, place: { path: string; depth: number; at: Node | null }) {
    reading.left -= 1;
    this.path = place.path;
    this.#reading = reading;
    this.#at = place.at;
    this.#depth = place.depth;
    this.#node = isAlias(node) ? (reading.anchors.get(node.source) ?? null) : node;
    if (reading.left < 0) throw this.refuse(`the document stands for more than ${FIELDS_MAX} values`);
    if (place.depth > DEPTH_MAX) throw this.refuse(`it lies more than ${DEPTH_MAX} levels deep`);
    if (isAlias(node) && this.#node === null) throw this.refuse(`there is no anchor &${node.source.slice(0, SHOWN_MAX)} before it`);
  }

  /**
   * Reads a document: one of YAML 1.2, of which JSON is a part.
   * @throws bad-spec with line and column
   */
  static read(text: string): Field {
    const lines = new LineCounter();
    checkSize(text);
    const document = parseSafely(text, lines);
    const reading: Reading = { document, lines, anchors: new Map(), warnings: [], left: FIELDS_MAX };
    const fault = document.errors[0] ?? document.warnings[0];
    if (fault !== undefined) {
      const { line, col } = lines.linePos(fault.pos[0]);
      throw badSpec({ field: '', line, column: col, reason: fault.message.split('\n')[0]?.replace(/ at line .*$/, '') ?? fault.code });
    }
    const twice = collectAnchors(document.contents, reading.anchors);
    const root = new Field(reading, document.contents, { path: '', depth: 0, at: twice ?? document.contents });
    if (twice !== undefined) throw root.refuse('an anchor stands there twice');
    return new Field(reading, document.contents, { path: '', depth: 0, at: document.contents });
  }

  /** Remarks on the document so far. */
  get warnings(): readonly SpecWarning[] {
    return this.#reading.warnings;
  }

  /** Notes something that is taken but means less here than it may seem. */
  warn(message: string): void {
    this.#reading.warnings.push({ field: this.path, ...this.#position(), message });
  }

  /** Whether nothing stands there. */
  get isNull(): boolean {
    return this.#node === null || (isScalar(this.#node) && this.#node.value === null);
  }

  get isMap(): boolean {
    return isMap(this.#node);
  }

  get isList(): boolean {
    return isSeq(this.#node);
  }

  /** The error of a value that cannot be taken; `bad-spec`. */
  refuse(reason: string, hint?: string): MillraceError {
    return badSpec({ field: this.path, ...this.#position(), reason, hint });
  }

  /** The error of a value that is right but means something that does not exist here; `spec-unsupported`. */
  unsupported(what: string, hint: string): MillraceError {
    const { line, column } = this.#position();
    return new MillraceError('spec-unsupported', {
      actor: 'caller',
      message: `Line ${line}, column ${column}: ${this.path} is not supported: ${what}`,
      values: { field: this.path, line, column, what },
      hint,
    });
  }

  /** The fields of a map whose keys are known; others are refused, those that are null are left out. */
  fields(known: readonly string[]): Partial<Record<string, Field>> {
    const entries = this.entries();
    for (const [key, field] of entries) {
      if (!known.includes(key)) throw field.refuse(`there is no such field`, `Known here are ${known.join(', ')}.`);
    }
    return Object.fromEntries(entries.filter(([, field]) => !field.isNull));
  }

  /** The entries of a map whose keys are free, in the order in which they stand. */
  entries(): [string, Field][] {
    if (!isMap(this.#node)) throw this.refuse(`it is ${this.#kind()}; due is a map`);
    const seen = new Set<string>();
    return this.#node.items.map((pair) => {
      const key = pair.key as Node;
      const name = isScalar(key) && typeof key.source === 'string' ? key.source : undefined;
      const value = new Field(this.#reading, pair.value as Node | null, {
        path: joinPath(this.path, name?.slice(0, SHOWN_MAX) ?? '?'),
        depth: this.#depth + 1,
        at: key,
      });
      if (name === undefined || name === '' || name === '<<') throw value.refuse('a key must be plain text; merge keys are not taken');
      if (seen.has(name)) throw value.refuse('the key stands there twice');
      seen.add(name);
      return [name, value];
    });
  }

  /** The field of that name. @throws bad-spec when it is not there */
  required(fields: Partial<Record<string, Field>>, name: string): Field {
    const field = fields[name];
    if (field === undefined) throw this.refuse(`${name} is missing`);
    return field;
  }

  /** The elements of a list. */
  list(most: number): Field[] {
    if (!isSeq(this.#node)) throw this.refuse(`it is ${this.#kind()}; due is a list`);
    if (this.#node.items.length > most) throw this.refuse(`it has ${this.#node.items.length} elements; at most ${most} are taken`);
    return this.#node.items.map((item, index) => {
      const node = item as Node | null;
      return new Field(this.#reading, node, { path: `${this.path}[${index}]`, depth: this.#depth + 1, at: node });
    });
  }

  /** A plain value as it stands in the document (`0.5`, `true`, `nginx`), at most so many characters, no control characters but those of text. */
  text(lengthMax = 4096): string {
    if (!isScalar(this.#node) || this.#node.value === null) throw this.refuse(`it is ${this.#kind()}; due is a text`);
    const { value, source } = this.#node;
    const text = typeof value === 'string' ? value : (source ?? String(value));
    if (text.length > lengthMax) throw this.refuse(`it has ${text.length} characters; at most ${lengthMax} are taken`);
    if (/[^\P{Cc}\t\n\r]|\p{Cs}/u.test(text)) throw this.refuse('it holds a control character or half a character');
    return text;
  }

  /** A text of a certain form. */
  matching(form: RegExp, due: string, lengthMax = 256): string {
    const text = this.text(lengthMax);
    if (!form.test(text)) throw this.refuse(`got ${shown(text)}; due is ${due}`);
    return text;
  }

  /** One of some words. */
  oneOf<Word extends string>(words: readonly Word[]): Word {
    const text = this.text(256);
    if (!words.includes(text as Word)) throw this.refuse(`got ${shown(text)}; due is ${words.join(', ')}`);
    return text as Word;
  }

  /** A whole number within bounds. */
  integer({ least, greatest }: Bounds): number {
    const text = this.text(64);
    const value = /^-?\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= greatest)) {
      throw this.refuse(`got ${shown(text)}; due is a whole number from ${least} to ${greatest}`);
    }
    return value === 0 ? 0 : value;
  }

  boolean(): boolean {
    return this.oneOf(['true', 'false']) === 'true';
  }

  #position(): { line: number; column: number } {
    const { line, col } = this.#reading.lines.linePos(this.#at?.range?.[0] ?? 0);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  }

  #kind(): string {
    if (this.isNull) return 'empty';
    return this.isMap ? 'a map' : this.isList ? 'a list' : 'a plain value';
  }
}

/** A value as it is shown in an error: short, quoted. */
export function shown(text: string): string {
  return JSON.stringify(text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text);
}

function joinPath(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}

function badSpec(fault: { field: string; line: number; column: number; reason: string; hint?: string | undefined }): MillraceError {
  const { field, line, column, reason } = fault;
  return new MillraceError('bad-spec', {
    actor: 'caller',
    message: `Line ${line}, column ${column}: ${field === '' ? '' : `${field}: `}${reason}`,
    values: { field, line, column, reason },
    hint: fault.hint ?? 'Correct the document; docs/job-format.md has the whole format on one page.',
  });
}

/** Refuses what the parser would need long for, or a deep stack. */
function checkSize(text: string): void {
  if (text.length > DOCUMENT_LENGTH_MAX) {
    throw badSpec({ field: '', line: 1, column: 1, reason: `it has ${text.length} characters; at most ${DOCUMENT_LENGTH_MAX} are taken` });
  }
  let open = 0;
  let line = 1;
  for (const character of text) {
    if (character === '\n') line += 1;
    else if (character === '[' || character === '{') open += 1;
    else if (character === ']' || character === '}') open = Math.max(0, open - 1);
    if (open > BRACKETS_MAX) throw badSpec({ field: '', line, column: 1, reason: `more than ${BRACKETS_MAX} brackets are open` });
  }
}

function parseSafely(text: string, lineCounter: LineCounter): Document {
  try {
    // The parser compares every key with every other one; `entries` does that with a set.
    return parseDocument(text, { lineCounter, uniqueKeys: false, prettyErrors: false, logLevel: 'silent', merge: false, schema: 'core' });
  } catch (cause) {
    // It has no limit of depth: block style of thousands of levels ends its stack.
    throw badSpec({ field: '', line: 1, column: 1, reason: `it cannot be parsed: ${(cause as Error).message.slice(0, SHOWN_MAX)}` });
  }
}

/** Collects the anchors by name; gives the first node whose anchor another one had already. */
function collectAnchors(root: Node | null, anchors: Map<string, Node>): Node | undefined {
  const waiting: unknown[] = [root];
  while (waiting.length > 0) {
    const node = waiting.pop();
    if ((isScalar(node) || isMap(node) || isSeq(node)) && node.anchor !== undefined) {
      if (anchors.has(node.anchor)) return node;
      anchors.set(node.anchor, node);
    }
    if (isSeq(node)) waiting.push(...node.items);
    if (isMap(node)) waiting.push(...node.items.flatMap((pair) => [pair.key, pair.value]));
  }
  return undefined;
}
