import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type JobSpec, type RunJournals, unfinishedRun } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { asOutputError, prepareOutput } from '../storage/index.ts';

const NUMBER_MAX = 10_000;

/**
 * The folder into which a run's outputs go: the one that was named, where nothing is in it yet, else `NAME-output`, with a number where an earlier
 * run has left something. A run that goes on has the folder with which it began; of one job with several seeds each has a folder of its own below.
 * @throws output-exists, output-unwritable
 */
export async function chooseOutputFolder(options: {
  /** As on the command line. */
  given: string | undefined;
  /** Of the job. */
  name: string;
  /** Of each seed. */
  specs: readonly JobSpec[];
  account: string;
  journals: RunJournals;
}): Promise<string> {
  const { given, name, specs, account, journals } = options;
  const begun = specs.map((spec) => unfinishedRun(journals, { account, spec })?.outputFolder).find((folder) => folder !== undefined);
  const own = begun === undefined || specs.length === 1 ? begun : dirname(begun);
  const named = given === undefined ? undefined : resolve(given);
  if (own !== undefined && (named === undefined || named === own)) return own;
  const chosen = named ?? (await freeFolder(name, journals));
  if (await isNotEmpty(chosen)) {
    throw new MillraceError('output-exists', {
      actor: 'caller',
      message: `${chosen} is there and is not empty`,
      values: { path: chosen },
      hint: 'Choose another folder with --output, or remove it first.',
    });
  }
  await prepareOutput(existsSync(chosen) ? join(chosen, 'outputs') : chosen, { kind: 'folder' });
  return chosen;
}

/** The first of `NAME-output`, `NAME-output-2`, … with nothing in it that no run under way will write to. */
async function freeFolder(name: string, journals: RunJournals): Promise<string> {
  const underWay = journals
    .all()
    .filter(({ finishedAt, attempts }) => finishedAt === undefined && attempts.some(({ failure }) => failure === undefined))
    .flatMap(({ outputFolder }) => (outputFolder === undefined ? [] : [outputFolder, dirname(outputFolder)]));
  const first = resolve(`${name.replaceAll(/[^\w.-]/g, '-')}-output`);
  for (let number = 2, folder = first; ; number += 1) {
    if (number > NUMBER_MAX || (!underWay.includes(folder) && !(await isNotEmpty(folder)))) return folder;
    folder = `${first}-${number}`;
  }
}

async function isNotEmpty(folder: string): Promise<boolean> {
  try {
    return (await readdir(folder)).length > 0;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return false;
    if (code === 'ENOTDIR') return existsSync(folder);
    throw asOutputError(error, folder);
  }
}
