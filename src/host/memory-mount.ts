import { readFileSync } from 'node:fs';
import { runProgram } from './run-program.ts';

const BYTES_PER_INODE = 4096;
const INODES_MIN = 256;

/**
 * Puts a memory file system of hard size on a folder, which every user may write to; an earlier one there is replaced. As root only.
 * @throws program-failed
 */
export async function mountMemory(folder: string, sizeBytes: number): Promise<void> {
  await unmountMemory(folder);
  await runProgram('mount', [
    '-t',
    'tmpfs',
    '-o',
    `size=${sizeBytes},nr_inodes=${Math.max(INODES_MIN, Math.ceil(sizeBytes / BYTES_PER_INODE))},mode=0777,nosuid,nodev,noexec`,
    'millrace',
    folder,
  ]);
}

/** Takes it away with all that is in it; a folder without one stays as it is. */
export async function unmountMemory(folder: string): Promise<void> {
  const isMounted = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[1] === folder);
  if (isMounted) await runProgram('umount', ['-l', folder]);
}
