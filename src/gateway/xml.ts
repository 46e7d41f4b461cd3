import { MillraceError } from '../errors.ts';

/** An element of a parsed document: names without their prefix, text of its own, attributes dropped. */
export interface XmlElement {
  name: string;
  text: string;
  children: XmlElement[];
}

/** What is written as XML: text, elements of one name in a list, or elements by name. */
export type XmlValue = string | number | boolean | undefined | readonly XmlValue[] | { readonly [name: string]: XmlValue };

const DEPTH_MAX = 8;
const ELEMENTS_MAX = 50_000;
const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };
// biome-ignore lint/suspicious/noControlCharactersInRegex: what XML 1.0 forbids is what is removed
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

/** A document with one root element in the S3 namespace. */
export function xmlDocument(root: string, value: XmlValue): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${contentOf(value)}</${root}>`;
}

/** An S3 error document, which has no namespace. */
export function xmlError(value: XmlValue): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error>${contentOf(value)}</Error>`;
}

function contentOf(value: XmlValue): string {
  if (value === undefined) return '';
  if (typeof value !== 'object') return escapeXml(String(value));
  return Object.entries(value)
    .flatMap(([name, item]) => (Array.isArray(item) ? item : [item]).map((each) => [name, each] as const))
    .map(([name, item]) => (item === undefined ? '' : `<${name}>${contentOf(item as XmlValue)}</${name}>`))
    .join('');
}

/** Text for XML; characters that XML 1.0 cannot hold are left out (S3 offers `encoding-type=url` for such keys). */
export function escapeXml(text: string): string {
  return text
    .replace(FORBIDDEN, '')
    .replace(/[&<>"']/g, (letter) => `&${Object.entries(ENTITIES).find(([, each]) => each === letter)?.[0]};`)
    .replace(/\r/g, '&#13;');
}

/**
 * Parses a small document: elements and text only. Anything that can make a parser do more than read (DOCTYPE, entities of
 * one's own, processing instructions) is refused; depth and number of elements are bounded.
 * @throws malformed-xml
 */
export function parseXml(text: string): XmlElement {
  const stack: XmlElement[] = [{ name: '', text: '', children: [] }];
  const token = /<\?xml[^>]*\?>|<!--[\s\S]*?-->|<(\/?)([A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)((?:\s[^<>]*?)?)(\/?)>|([^<]+)|(<)/g;
  let elements = 0;
  for (const [, closing, , name, , selfClosing, words, stray] of text.matchAll(token)) {
    const parent = stack.at(-1) as XmlElement;
    if (stray !== undefined) throw malformed('a construct that is not accepted here');
    if (words !== undefined) parent.text += unescapeXml(words);
    if (name === undefined) continue;
    if (closing === '/') {
      if (parent.name !== name || stack.length === 1) throw malformed(`</${name.slice(0, 50)}> closes nothing`);
      stack.pop();
      continue;
    }
    elements += 1;
    if (elements > ELEMENTS_MAX || stack.length > DEPTH_MAX) throw malformed('too many elements');
    const element = { name, text: '', children: [] };
    parent.children.push(element);
    if (selfClosing !== '/') stack.push(element);
  }
  const [root] = stack[0]?.children ?? [];
  if (stack.length !== 1 || root === undefined || stack[0]?.children.length !== 1) throw malformed('one closed root element is expected');
  return root;
}

/** The text of a child element, or undefined. */
export function childText(element: XmlElement, name: string): string | undefined {
  return element.children.find((child) => child.name === name)?.text;
}

function unescapeXml(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-fA-F]{1,6})|([a-z]{2,4}));|&/g, (all, decimal, hexadecimal, name) => {
    const known = name === undefined ? undefined : ENTITIES[name as string];
    if (known !== undefined) return known;
    const point = decimal !== undefined ? Number(decimal) : hexadecimal !== undefined ? Number.parseInt(hexadecimal, 16) : -1;
    if (point < 1 || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) throw malformed(`the entity ${String(all).slice(0, 20)}`);
    return String.fromCodePoint(point);
  });
}

function malformed(why: string): MillraceError {
  return new MillraceError('malformed-xml', {
    actor: 'caller',
    message: `The XML of the request is not acceptable: ${why}`,
    values: { why },
  });
}
