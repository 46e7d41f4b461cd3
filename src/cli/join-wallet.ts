import { existsSync } from 'node:fs';
import { encodeFunctionData, erc20Abi } from 'viem';
import { type ChainClient, createKeystore, createSender, developmentSigner, type Signer } from '../chain/index.ts';
import { systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { tokenBalance } from '../token/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { askNewPassword, ownWallet } from './secrets.ts';
import type { Session } from './session.ts';

/** What a wallet needs before a machine can join, base units. */
export interface JoinMoney {
  wei: bigint;
  /** Of the network's token. */
  tokens: bigint;
  /** Of the compute network's token. */
  computeTokens: bigint;
}

const LOOK_AGAIN_MS = 2_000;
const FAUCET_INDEX = 0;
const FAUCET_TRIES = 5;

/** The wallet of this network on this machine; a new one where there is none. */
export async function wallet(context: CommandContext, { folder }: Pick<Session, 'folder'>): Promise<Signer> {
  if (existsSync(folder.wallet)) return await ownWallet(folder);
  const signer = await createKeystore({ path: folder.wallet, password: await askNewPassword() });
  context.output.note(`A new wallet, ${signer.address}. Back up ${folder.wallet}: nobody can restore it.`);
  return signer;
}

/**
 * Waits until the wallet holds what joining costs. On profile `dev` the faucet, whose key is public, gives it; else somebody must send it.
 * @throws no-funds after `waitSeconds`
 */
export async function awaitMoney(
  context: CommandContext,
  session: Session,
  given: { signer: Signer; needed: JoinMoney; waitSeconds: number },
): Promise<void> {
  const { client, manifest } = session;
  const { signer, needed, waitSeconds } = given;
  if (manifest.profile === 'dev') await askFaucet(session, signer, needed);
  const deadlineMs = systemClock.nowMs() + waitSeconds * 1000;
  for (let isSaid = false; ; isSaid = true) {
    const lacks = lackingText(await holdings(client, signer), needed);
    if (lacks === '') return;
    if (!isSaid && waitSeconds > 0) context.output.note(`Waiting for money at ${signer.address}: it lacks ${lacks}.`);
    if (systemClock.nowMs() >= deadlineMs) throw noMoney(signer, lacks);
    await systemClock.sleep(LOOK_AGAIN_MS, context.signal);
  }
}

async function holdings(client: ChainClient, { address }: Signer): Promise<JoinMoney> {
  const [wei, tokens, computeTokens] = await Promise.all([
    client.public.getBalance({ address }),
    tokenBalance(client, { token: 'network', account: address }),
    tokenBalance(client, { token: 'compute', account: address }),
  ]);
  return { wei, tokens, computeTokens };
}

function lackingText(has: JoinMoney, needed: JoinMoney): string {
  const names = { wei: 'of the chain’s coin', tokens: 'network tokens', computeTokens: 'compute tokens' };
  return (Object.keys(names) as (keyof JoinMoney)[])
    .filter((kind) => has[kind] < needed[kind])
    .map((kind) => `${formatAmount(needed[kind] - has[kind], TOKEN_DECIMALS)} ${names[kind]}`)
    .join(', ');
}

/** Others use the faucet's key at the same time: what fails for that is tried again. */
async function askFaucet({ client, folder, log }: Session, signer: Signer, needed: JoinMoney): Promise<void> {
  const { address } = signer;
  const faucet = createSender({ client, signer: developmentSigner(FAUCET_INDEX, 'dev'), journalFolder: folder.client, log });
  const transfer = (amount: bigint) => encodeFunctionData({ abi: erc20Abi, functionName: 'transfer', args: [address, amount] });
  try {
    for (let tries = 0; tries < FAUCET_TRIES; tries += 1) {
      const has = await holdings(client, signer);
      if (lackingText(has, needed) === '') return;
      try {
        if (has.wei < needed.wei) await faucet.send({ to: address, value: needed.wei - has.wei });
        if (has.tokens < needed.tokens) {
          await faucet.send({ contract: 'networkToken', functionName: 'transfer', args: [address, needed.tokens - has.tokens] });
        }
        if (has.computeTokens < needed.computeTokens) {
          await faucet.send({ to: client.address('computeToken'), data: transfer(needed.computeTokens - has.computeTokens) });
        }
      } catch (error) {
        log.warn('faucet-failed', { reason: (error as Error).message });
        await systemClock.sleep(LOOK_AGAIN_MS / 2);
      }
    }
  } finally {
    faucet.close();
  }
}

function noMoney({ address }: Signer, lacks: string): MillraceError {
  return new MillraceError('no-funds', {
    actor: 'caller',
    message: `The wallet ${address} lacks ${lacks}`,
    values: { address, lacks },
    hint: `Send it there (millrace wallet send ${address} AMOUNT from a wallet that has it), or wait for it with --wait 1h.`,
  });
}
