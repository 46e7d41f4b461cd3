import { deployNetwork } from '../chain/index.ts';
import { readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { askPassword } from './secrets.ts';
import { commandLog, folderOf, settingSources } from './session.ts';

/** Options of `millrace deploy`. */
export interface DeployCommandOptions {
  profile: string;
  beacon?: string;
  out?: string;
}

/** Deploys the contracts with the wallet's key and writes the manifest. Running it again goes on, or verifies what is there. */
export async function deploy(context: CommandContext, options: DeployCommandOptions): Promise<void> {
  const folder = folderOf(context);
  const rpcUrl = readSetting('rpcUrl', settingSources(context))?.value;
  if (rpcUrl === undefined) {
    throw new MillraceError('no-rpc-url', { actor: 'caller', message: 'Which chain?', hint: 'Give --rpc-url or set MILLRACE_RPC_URL.' });
  }
  const { openKeystore } = await import('../chain/index.ts');
  const signer = await openKeystore({ path: folder.wallet, password: await askPassword('Password of the wallet: ') });
  context.output.note(`Deploying ${context.flags.network} with profile ${options.profile} from ${signer.address} …`);
  const manifest = await deployNetwork({
    rpcUrl,
    name: context.flags.network,
    profile: options.profile,
    signer,
    folder: folder.root,
    manifestPath: options.out ?? folder.manifest,
    beacon: options.beacon as `0x${string}` | undefined,
    log: commandLog(context, 'deploy'),
  });
  context.output.result(
    { network: manifest.name, chainId: manifest.chainId, manifest: options.out ?? folder.manifest, modules: manifest.modules },
    () =>
      [
        `${manifest.name} is on chain ${manifest.chainId}. Manifest: ${options.out ?? folder.manifest}`,
        table(
          ['module', 'address'],
          Object.entries(manifest.modules).map(([name, module]) => [name, module.address]),
        ),
        'No role is held by a plain account (millrace status --powers).',
      ].join('\n'),
  );
}
