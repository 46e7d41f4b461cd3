import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { type Outcome, root } from './suite.ts';

const SUMMARY = /: (\d+) tests? passed, (\d+) failed, (\d+) skipped \(\d+ total tests?\)/g;
const SKIPPED = /^\[SKIP(?:: ([^\]]*))?\] (.*)$/gm;

/** forge of the npm package for this platform, else on PATH, else undefined. */
export function findForge(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const cpu = process.arch === 'x64' ? 'amd64' : process.arch;
  const places = [join(root, 'node_modules/@foundry-rs', `forge-${process.platform}-${cpu}`, 'bin')];
  return [...places, ...(env.PATH ?? '').split(delimiter)].map((folder) => join(folder, 'forge')).find((path) => existsSync(path));
}

/** Runs the tests of the contracts and compares their gas with the snapshot; prints all of it when it is over, so that other tests can run beside it. */
export async function runForge(): Promise<Outcome> {
  const forge = findForge();
  if (forge === undefined) {
    const skip = `contracts: no forge for ${process.platform} ${process.arch}; install Foundry 1.7 and put it on PATH`;
    return { passed: 0, failed: 0, skipped: 1, skips: [skip], faults: [] };
  }
  // tools/solc.cjs looks for `node` on PATH: the one that runs this.
  const path = [dirname(process.execPath), dirname(forge), process.env.PATH].join(delimiter);
  const child = spawn(process.execPath, ['tools/contracts.ts', 'test'], { cwd: root, env: { ...process.env, PATH: path } });
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  }
  child.stdin.end();
  const [code] = (await once(child, 'close')) as [number | null];
  const text = Buffer.concat(chunks).toString();
  process.stdout.write(text);
  return readForge(text, code);
}

/** The outcome in what runs of `forge test` printed; output without a summary, or a failure it does not count, is a fault. */
export function readForge(text: string, code: number | null): Outcome {
  const summaries = [...text.matchAll(SUMMARY)];
  const sum = (part: number) => summaries.reduce((before, summary) => before + Number(summary[part]), 0);
  const [passed, failed, skipped] = [sum(1), sum(2), sum(3)];
  const skips = [...text.matchAll(SKIPPED)].map(([, reason, name]) => `contracts: ${name}: ${reason || 'no reason given'}`);
  const isFault = summaries.length === 0 || (code !== 0 && failed === 0);
  return {
    passed,
    failed,
    skipped,
    skips,
    faults: isFault ? [`the tests of the contracts, or the comparison of gas, ended with ${code}; see above`] : [],
  };
}
