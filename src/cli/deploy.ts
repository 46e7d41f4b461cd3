import { readFileSync } from 'node:fs';
import { type Allocation, deployNetwork, writeManifest } from '../chain/index.ts';
import { readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { ownWallet } from './secrets.ts';
import { commandLog, folderOf, rememberChain, settingSources } from './session.ts';

/** Options of `millrace deploy`. */
export interface DeployCommandOptions {
  profile: string;
  beacon?: string;
  allocations?: string;
  computeAllocations?: string;
  stableToken?: string;
  juryVotes?: string;
  out?: string;
}

const HOLDERS_MAX = 1000;

/** Deploys the contracts with the wallet's key and writes the manifest. Running it again goes on, or verifies what is there. */
export async function deploy(context: CommandContext, options: DeployCommandOptions): Promise<void> {
  const folder = folderOf(context);
  const rpcUrl = readSetting('rpcUrl', settingSources(context))?.value;
  if (rpcUrl === undefined) {
    throw new MillraceError('no-rpc-url', { actor: 'caller', message: 'Which chain?', hint: 'Give --rpc-url or set MILLRACE_RPC_URL.' });
  }
  const signer = await ownWallet(folder);
  context.output.note(`Deploying ${context.flags.network} with profile ${options.profile} from ${signer.address} …`);
  const manifest = await deployNetwork({
    rpcUrl,
    name: context.flags.network,
    profile: options.profile,
    signer,
    folder: folder.root,
    manifestPath: folder.manifest,
    beacon: options.beacon === undefined ? undefined : parseAddress('--beacon', options.beacon),
    stableToken: options.stableToken === undefined ? undefined : parseAddress('--stable-token', options.stableToken),
    allocations: readAllocations('--allocations', options.allocations),
    computeLaunch: readAllocations('--compute-allocations', options.computeAllocations),
    juryVotes: options.juryVotes === undefined ? undefined : Number(options.juryVotes),
    log: commandLog(context, 'deploy'),
  });
  rememberChain(folder, rpcUrl);
  const handedOut = options.out ?? folder.manifest;
  if (handedOut !== folder.manifest) writeManifest(handedOut, manifest);
  context.output.result({ network: manifest.name, chainId: manifest.chainId, manifest: handedOut, modules: manifest.modules }, () =>
    [
      `${manifest.name} is on chain ${manifest.chainId}. Manifest: ${handedOut}`,
      table(
        ['module', 'address'],
        Object.entries(manifest.modules).map(([name, module]) => [name, module.address]),
      ),
      'No role is held by a plain account (millrace status --powers).',
    ].join('\n'),
  );
}

/** First holders of a token: a JSON object of address to amount in tokens. @throws bad-allocations, bad-address, bad-amount */
function readAllocations(flag: string, path: string | undefined): Allocation[] | undefined {
  if (path === undefined) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw new TypeError('not an object');
  } catch (cause) {
    throw new MillraceError('bad-allocations', {
      actor: 'caller',
      message: `Cannot read first holders of the token from ${path}`,
      values: { path },
      hint: 'Expected JSON such as {"0x…": "1000.5"}: address and amount in tokens.',
      cause,
    });
  }
  const holders = Object.entries(parsed).map(([to, amount]) => ({
    to: parseAddress(flag, to),
    amount: parseAmount(String(amount), TOKEN_DECIMALS),
  }));
  if (holders.length > 0 && holders.length <= HOLDERS_MAX) return holders;
  throw new MillraceError('bad-allocations', {
    actor: 'caller',
    message: `Got ${holders.length} first holders in ${path}, expected 1 to ${HOLDERS_MAX}`,
    values: { path, got: holders.length, max: HOLDERS_MAX },
  });
}
