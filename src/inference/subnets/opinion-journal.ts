import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import type { Opening } from './weights-row.ts';

/** What a validator committed to, on its disk before it is on the chain: without its salt a commit can never be opened. */
export interface OpinionJournal {
  /** Adds an opening of an epoch; when this returns it survives a crash. */
  add(epoch: bigint, opening: Opening & { commitment: Hex }): void;
  /** The opening that belongs to a commitment. @throws opinion-journal-broken */
  find(epoch: bigint, commitment: Hex): Opening | undefined;
  /** Epochs with openings. */
  epochs(): bigint[];
  /** Forgets epochs before one. */
  forgetBefore(epoch: bigint): void;
}

type Line = Opening & { commitment: Hex };
const NAME = /^(\d{1,20})\.json$/;

/** The journal of one uid of one subnet in a folder. */
export function openOpinionJournal(folder: string): OpinionJournal {
  const pathOf = (epoch: bigint) => join(folder, `${epoch}.json`);
  const epochs = () =>
    existsSync(folder) ? readdirSync(folder).flatMap((name) => (NAME.test(name) ? [BigInt(name.slice(0, -'.json'.length))] : [])) : [];
  return {
    add(epoch, opening) {
      writeFileDurably(pathOf(epoch), `${JSON.stringify([...readLines(pathOf(epoch)), opening])}\n`);
    },
    find: (epoch, commitment) => readLines(pathOf(epoch)).find((line) => line.commitment === commitment),
    epochs,
    forgetBefore(epoch) {
      for (const old of epochs().filter((at) => at < epoch)) rmSync(pathOf(old), { force: true });
    },
  };
}

function readLines(path: string): Line[] {
  if (!existsSync(path)) return [];
  try {
    const lines = JSON.parse(readFileSync(path, 'utf8')) as Line[];
    if (lines.every(({ salt, row, commitment }) => [salt, row, commitment].every((value) => /^0x[0-9a-f]*$/.test(value)))) return lines;
  } catch {
    // reported below
  }
  throw new MillraceError('opinion-journal-broken', {
    actor: 'host',
    message: `${path} does not hold the salts of an epoch's commits`,
    values: { path },
    hint: 'Restore it: otherwise those commits expire unopened.',
  });
}
