import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { linuxPrograms } from './abuse.cases.ts';
import { executorCases } from './executor.cases.ts';
import { ownerTag } from './owner-tag.ts';
import { SandboxExecutor } from './sandbox-executor.ts';

const imageFolder = mkdtempSync(join(tmpdir(), 'millrace-images-'));
after(() => rmSync(imageFolder, { recursive: true, force: true }));

/** Control groups, folders and processes that belong to this process's jobs. */
function leftovers(): string[] {
  const groups = ['memory', 'pids', 'cpu', 'cpuacct', ''].flatMap((controller) => {
    const folder = join('/sys/fs/cgroup', controller, 'millrace');
    return list(folder).map((name) => join(folder, name));
  });
  const folders = list(tmpdir()).filter((name) => name.startsWith('millrace-job-'));
  const processes = list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => read(`/proc/${pid}/cmdline`).includes(ownerTag()));
  return [...groups, ...folders, ...processes].filter((name) => name.includes(ownerTag()) || /^\d+$/.test(name));
}

const list = (folder: string) => {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
};
const read = (file: string) => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
};

executorCases('bubblewrap with the software of this machine', async () => ({
  executor: new SandboxExecutor({ imageFolder }),
  ...linuxPrograms(),
  leftovers,
}));
