import { existsSync } from 'node:fs';
import { formatAmount, formatDuration, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { openWallet } from './secrets.ts';
import { folderOf, openSession, stakeUnitOf } from './session.ts';
import { nextProof } from './status.ts';
import { supervisorStatus } from './up.ts';

/** `millrace` alone: what runs, the balance, and the next command. */
export async function overview(context: CommandContext): Promise<void> {
  const folder = folderOf(context);
  const supervisor = await supervisorStatus(folder);
  if (supervisor?.phase !== 'ready') {
    const existing = existsSync(folder.manifest);
    context.output.result({ running: false, network: context.flags.network, exists: existing }, () =>
      existing
        ? `The network "${context.flags.network}" is here but does not run.\nNext: millrace up`
        : 'Millrace pools disks, processors, models and sensors into one network.\nNothing runs here yet. Next: millrace up    (all commands: millrace --help)',
    );
    return;
  }
  const session = await openSession(context);
  const signer =
    session.manifest.profile === 'dev' ? await openWallet({ ...context, output: { ...context.output, note() {} } }, session) : undefined;
  const { client } = session;
  const token = client.address('networkToken');
  const balance =
    signer === undefined
      ? undefined
      : (await client.read('networkToken', 'balanceOf', [signer.address])) +
        (await client.read('rails', 'balanceOf', [token, signer.address]));
  const proof = await nextProof(client, await client.now());
  const value = {
    running: true,
    network: session.manifest.name,
    profile: session.manifest.profile,
    rpcUrl: session.rpcUrl,
    balance,
    processes: supervisor.parts.length,
    nextSeedInSeconds: proof.seedInSeconds,
  };
  context.output.result(value, () =>
    [
      `The network "${value.network}" runs: ${value.processes} processes, chain at ${value.rpcUrl}, profile ${value.profile}${session.manifest.notSecure ? ' (NOT SECURE: for trying only)' : ''}.`,
      ...(balance === undefined
        ? []
        : [
            `Balance ${formatAmount(balance, TOKEN_DECIMALS)} ${stakeUnitOf(session.manifest)}. Next proof in ${formatDuration(proof.seedInSeconds)}.`,
          ]),
      'Next: millrace put FILE --copies 2    (all commands: millrace --help)',
    ].join('\n'),
  );
}
