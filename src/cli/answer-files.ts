import { writeFile } from 'node:fs/promises';
import { asOutputError, prepareOutput } from '../storage/index.ts';

/** A file that an answer of a model becomes. */
export interface AnswerFile {
  path: string;
  bytes: Uint8Array;
}

/** Makes sure, before a model is asked and paid, that its answer can be written to these files; a file that is there is replaced then.
 * @throws output-exists for a folder, output-unwritable, disk-full */
export async function prepareAnswerFiles(paths: readonly string[]): Promise<void> {
  for (const path of paths) await prepareOutput(path, { kind: 'file', overwrite: true });
}

/** Writes what a model has answered. @throws output-unwritable, disk-full */
export async function writeAnswerFiles(files: readonly AnswerFile[]): Promise<void> {
  for (const { path, bytes } of files) {
    await writeFile(path, bytes).catch((error) => {
      throw asOutputError(error, path);
    });
  }
}
