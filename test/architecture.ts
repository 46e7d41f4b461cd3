import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';

/** A source file by its path from the root of the repository. */
export interface Source {
  path: string;
  text: string;
}

/** The rungs of `src/`, highest first. Imports point down; folders of one rung never import one another. */
export const LADDER: readonly (readonly string[])[] = [
  ['cli'],
  ['node', 'gateway'],
  ['operations'],
  ['storage', 'compute', 'inference'],
  ['governance'],
  ['token'],
  ['chain', 'connect', 'data', 'host'],
];

const FILE_LINES_MAX = 500;
const FUNCTION_LINES_MAX = 70;
const FLAT_FILES_MAX = 25;
const FORBIDDEN_WORDS = new Set(['util', 'utils', 'helper', 'helpers', 'common', 'core', 'shared', 'manager', 'service', 'impl']);
const FORBIDDEN_TYPE = /(Manager|Service|Helpers?|Utils?|Impl)$|^I[A-Z][a-z]/;
const EXPORT = /^export (?:default )?(?:declare )?(?:abstract )?(?:async )?(function\*?|const|let|class|enum|interface|type) ([\w$]+)/;
const IMPORT = /(?:\bfrom\s+|\bimport\s+|\bimport\(\s*)'(\.[^']*)'/g;

/** Every `.ts` file below the folders, without the generated ones. */
export function readSources(root: string, ...folders: string[]): Source[] {
  return folders
    .map((folder) => join(root, folder))
    .filter((folder) => statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true)
    .flatMap((folder) => readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)))
    .filter((path) => path.endsWith('.ts') && !path.endsWith('.generated.ts') && !path.includes('node_modules'))
    .map((path) => ({ path: relative(root, path), text: readFileSync(path, 'utf8') }))
    .sort((one, other) => (one.path < other.path ? -1 : 1));
}

/** Every breach of the house style in some files, one sentence each. */
export function findBreaches(sources: readonly Source[]): string[] {
  return [
    ...sources.flatMap((source) => [...ladderBreaches(source), ...nameBreaches(source), ...sizeBreaches(source), ...textBreaches(source)]),
    ...depthBreaches(sources),
  ];
}

/** Test files and shared suites may import sideways and upward. */
function isTest(path: string): boolean {
  return /\.(test|cases)\.ts$/.test(path);
}

/** The folder of `src/` that a path lies in; empty for a file at its root, undefined outside. */
function folderOf(path: string): string | undefined {
  const parts = path.split('/');
  return parts[0] !== 'src' ? undefined : parts.length > 2 ? parts[1] : '';
}

function rungOf(folder: string): number {
  return LADDER.findIndex((rung) => rung.includes(folder));
}

function ladderBreaches({ path, text }: Source): string[] {
  const folder = folderOf(path);
  if (folder === undefined) return [];
  if (folder !== '' && rungOf(folder) === -1) return [`${path}: folder ${folder} is not on the ladder`];
  if (isTest(path)) return [];
  return [...withoutComments(text).matchAll(IMPORT)].flatMap(([, specifier]) => {
    const target = join(dirname(path), specifier as string);
    const fault = importFault(path, folder, target);
    return fault === undefined ? [] : [`${path}: imports ${target}: ${fault}`];
  });
}

function importFault(path: string, folder: string, target: string): string | undefined {
  if (target.endsWith('.json')) return undefined;
  const other = folderOf(target);
  if (other === undefined) return 'code in src/ imports nothing outside src/';
  if (isTest(target)) return 'only tests import tests';
  if (other === '' || other === folder) return undefined;
  if (folder === '') return 'a file at the root of src/ imports no folder';
  if (rungOf(other) === -1) return 'that folder is not on the ladder';
  if (rungOf(other) <= rungOf(folder)) return rungOf(other) === rungOf(folder) ? 'imports never point sideways' : 'imports never point up';
  // What tests stand on may stand on one another; the product enters by the door.
  if (isFixture(path) && isFixture(target)) return undefined;
  return target === `src/${other}/index.ts` ? undefined : `enter ${other} through its index.ts (seen from ${path})`;
}

const isFixture = (path: string): boolean => path.endsWith('-fixture.ts');

function nameBreaches({ path, text }: Source): string[] {
  const words = path.split(/[/.-]/).filter((word) => FORBIDDEN_WORDS.has(word.toLowerCase()));
  const names = text.split('\n').flatMap((line) => EXPORT.exec(line)?.[2] ?? []);
  return [
    ...words.map((word) => `${path}: "${word}" names nothing`),
    ...names.filter((name) => FORBIDDEN_TYPE.test(name)).map((name) => `${path}: the name ${name} says nothing`),
  ];
}

function sizeBreaches({ path, text }: Source): string[] {
  const lines = text.split('\n');
  const fileBreach = lines.length - 1 > FILE_LINES_MAX ? [`${path}: ${lines.length - 1} lines, at most ${FILE_LINES_MAX}`] : [];
  const spans = functionSpans(lines);
  const long = spans
    .map((span) => ({ first: span.first, length: ownLines(span, spans, lines) }))
    .filter(({ length }) => length > FUNCTION_LINES_MAX);
  return [
    ...fileBreach,
    ...long.map(({ first, length }) => `${path}:${first + 1}: a function of ${length} lines, at most ${FUNCTION_LINES_MAX}`),
  ];
}

/** A function that makes an object of functions is measured like a class: its named inner functions count by themselves. */
function ownLines(span: Span, spans: readonly Span[], lines: readonly string[]): number {
  const named =
    /^\s*(?:const [\w$]+ = |(?:async )?function |[\w$]+: |(?:async |get |set |\*)*[\w$]+(?:<.*>)?\([^=]*\)(?:: .+)? \{$|async [\w$]+\($)/;
  const inner = spans.filter(({ first, last }) => first > span.first && last < span.last && named.test(lines[first] ?? ''));
  const outermost = inner.filter(({ first, last }) => !inner.some((other) => other.first < first && last < other.last));
  return outermost.reduce((rest, { first, last }) => rest - (last - first), span.last - span.first + 1);
}

interface Span {
  first: number;
  last: number;
}

/**
 * First and last line of each function. The formatter closes a function at the indentation at which it was opened, so
 * the indentation is the measure; a `describe` is a list of tests, not a function.
 */
function functionSpans(lines: readonly string[]): Span[] {
  const opens =
    /\bfunction\b.*\{$|=> \{$|^\s*(?:async |static |get |set |private |override |\*)*[\w$#]+(?:<.*>)?\(.*\)(?:: .+)? \{$|^\s*\)(?:: .+)? (?:=> )?\{$/;
  const isNoFunction = /^\s*(?:\} )?(?:if|for|while|switch|catch|else|with|describe)\b/;
  return lines.flatMap((line, index) => {
    if (!opens.test(line) || isNoFunction.test(line)) return [];
    const indent = indentOf(line);
    const isTail = /^\s*\)/.test(line); // the end of parameters over several lines: the function began above
    const first = isTail ? lastIndexBefore(lines, index, (above) => indentOf(above) === indent) : index;
    if (isNoFunction.test(lines[first] ?? '')) return [];
    const length = lines.slice(index + 1).findIndex((below) => indentOf(below) === indent && /^\s*[})\]]/.test(below));
    return [{ first, last: length === -1 ? lines.length - 1 : index + 1 + length }];
  });
}

function lastIndexBefore(lines: readonly string[], end: number, matches: (line: string) => boolean): number {
  for (let index = end - 1; index >= 0; index -= 1) if (matches(lines[index] as string)) return index;
  return end;
}

function indentOf(line: string): number {
  return line.trim() === '' ? -1 : line.length - line.trimStart().length;
}

function textBreaches({ path, text }: Source): string[] {
  const lines = text.split('\n');
  const isSource = path.startsWith('src/') && !isTest(path);
  return lines.flatMap((line, index) => {
    const at = `${path}:${index + 1}`;
    const bare = isSource && /throw new Error\(/.test(line) ? [`${at}: throw a MillraceError, not a bare Error`] : [];
    const exported = isTest(path) ? null : EXPORT.exec(line);
    const isMute = exported !== null && !isDocumented(lines, index, exported[2] as string);
    return isMute ? [...bare, `${at}: ${exported[2]} has no doc comment`] : bare;
  });
}

/** True when a doc comment stands above; the second and later signatures of an overloaded function share the first's. */
function isDocumented(lines: readonly string[], index: number, name: string): boolean {
  const above = lines[index - 1] ?? '';
  return above.trimEnd().endsWith('*/') || lines.slice(0, index).some((line) => line.startsWith(`export function ${name}`));
}

function depthBreaches(sources: readonly Source[]): string[] {
  const code = sources.filter(({ path }) => path.startsWith('src/') && !isTest(path));
  return code
    .filter(({ path }) => path.split('/').length > 3)
    .filter(({ path }) => code.filter((other) => folderOf(other.path) === folderOf(path)).length <= FLAT_FILES_MAX)
    .map(
      ({ path }) => `${path}: ${basename(dirname(path))} is a third level, and ${folderOf(path)} has not passed ${FLAT_FILES_MAX} files`,
    );
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
}
