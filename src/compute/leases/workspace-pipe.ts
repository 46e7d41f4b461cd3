import { execFile } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { MillraceError } from '../../errors.ts';

const run = promisify(execFile);
const MKFIFO_TIMEOUT_MS = 10_000;

/** Makes named pipes that every user may read and write; who reaches their folder decides who can. @throws pipe-failed */
export async function makePipes(paths: readonly string[]): Promise<void> {
  try {
    await run('mkfifo', ['-m', '666', '--', ...paths], { timeout: MKFIFO_TIMEOUT_MS });
  } catch (cause) {
    throw new MillraceError('pipe-failed', {
      actor: 'host',
      message: `Named pipes could not be made: ${(cause as Error).message}`,
      hint: 'The program mkfifo (coreutils) and a disk that takes named pipes are needed.',
      cause,
    });
  }
}

/** The end of a pipe that the sandbox writes to. */
export interface PipeReader {
  readonly stream: Readable;
  /** From now on the stream ends when the sandbox has closed its side; until then it stays open though nobody writes. */
  release(): void;
  destroy(): void;
}

/** Opens a pipe to read what the sandbox will write. */
export function readPipe(path: string): PipeReader {
  const flags = constants.O_NONBLOCK | constants.O_NOFOLLOW;
  const stream = new Socket({ fd: openSync(path, constants.O_RDONLY | flags), readable: true, writable: false });
  stream.on('error', () => stream.destroy());
  let keeper: number | undefined = openSync(path, constants.O_WRONLY | flags);
  const release = () => {
    if (keeper !== undefined) closeSync(keeper);
    keeper = undefined;
  };
  return {
    stream,
    release,
    destroy() {
      release();
      stream.destroy();
    },
  };
}

/** The end of a pipe that the sandbox reads from. */
export interface PipeWriter {
  /** Resolves when the sandbox, or the pipe's own buffer, has taken the bytes; also when it never will. */
  write(bytes: Uint8Array): Promise<void>;
  /** The sandbox reads the end. */
  end(): void;
}

/** Opens a pipe to write what the sandbox will read. */
export function writePipe(path: string): PipeWriter {
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  const stream = new Socket({ fd, readable: false, writable: true });
  stream.on('error', () => stream.destroy());
  return {
    write: (bytes) =>
      new Promise((resolve) => {
        if (stream.destroyed) return resolve();
        stream.once('close', resolve);
        stream.write(bytes, () => {
          stream.off('close', resolve);
          resolve();
        });
      }),
    // A named pipe has no half-close: its end is the close.
    end: () => void stream.destroy(),
  };
}
