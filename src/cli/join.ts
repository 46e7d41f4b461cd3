import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { connectChain, type Manifest, parseManifest, writeManifest } from '../chain/index.ts';
import { readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { readAtMost } from '../read-at-most.ts';
import type { CommandContext } from './context.ts';
import type { JoinComputeOptions } from './join-compute.ts';
import { folderOf, rememberChain, settingSources } from './session.ts';

const MANIFEST_BYTES_MAX = 262_144;
const FETCH_TIMEOUT_MS = 15_000;

/** Options of `millrace join`. */
export type JoinOptions = JoinComputeOptions & { compute: boolean };

/** Takes over a network's manifest, checked against the chain, so that the other commands work on it; with `--compute` the machine computes for it. */
export async function join(context: CommandContext, source: string, options: JoinOptions): Promise<void> {
  const manifest = await takeManifest(context, source);
  if (options.compute) return await (await import('./join-compute.ts')).joinCompute(context, options);
  const folder = folderOf(context);
  context.output.result(
    { network: manifest.name, chainId: manifest.chainId, manifest: folder.manifest },
    () => `Joined ${manifest.name} on chain ${manifest.chainId}. Manifest in ${folder.manifest}.`,
  );
}

async function takeManifest(context: CommandContext, source: string): Promise<Manifest> {
  const folder = folderOf(context);
  const text = await manifestText(source);
  const manifest = parseManifest(jsonOf(text, source));
  const rpcUrl = readSetting('rpcUrl', settingSources(context))?.value;
  if (rpcUrl === undefined) {
    throw new MillraceError('no-rpc-url', {
      actor: 'caller',
      message: `No chain is known for ${manifest.name}`,
      hint: `Give --rpc-url of chain ${manifest.chainId}, or set MILLRACE_RPC_URL.`,
    });
  }
  await connectChain({ rpcUrl, manifest });
  keepManifest(folder.manifest, folder.root, manifest);
  rememberChain(folder, rpcUrl);
  return manifest;
}

function jsonOf(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MillraceError('manifest-unreadable', {
      actor: 'caller',
      message: `${source} is not JSON`,
      values: { source },
      hint: 'Get network.json from whoever runs the network.',
      cause,
    });
  }
}

function keepManifest(path: string, root: string, manifest: Manifest): void {
  if (existsSync(path)) {
    const present = parseManifest(JSON.parse(readFileSync(path, 'utf8')));
    if (present.signature !== manifest.signature) {
      throw new MillraceError('other-network-here', {
        actor: 'caller',
        message: `${path} belongs to another network`,
        values: { path },
        hint: 'Choose another name with --network.',
      });
    }
  }
  mkdirSync(root, { recursive: true, mode: 0o700 });
  writeManifest(path, manifest);
}

async function manifestText(source: string): Promise<string> {
  try {
    if (!/^https?:\/\//.test(source)) return readFileSync(source, 'utf8');
    const response = await fetch(source, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS), redirect: 'error' });
    if (!response.ok) throw new TypeError(`status ${response.status}`);
    return (await readAtMost(response.body, MANIFEST_BYTES_MAX)).toString('utf8');
  } catch (cause) {
    throw new MillraceError('manifest-unreadable', {
      actor: 'caller',
      message: `Cannot read a manifest from ${source}`,
      values: { source },
      cause,
    });
  }
}
