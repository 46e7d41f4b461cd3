import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { type Address, type Hex, isAddressEqual } from 'viem';
import { type ChainClient, createKeystore, keystoreAddress, nodeKeyConsent, openKeystore, type Signer } from '../chain/index.ts';
import { openTransportIdentity } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import { endpointUrl, type NetworkFolder, provisionOperator, setEndpoint } from '../node/index.ts';
import {
  claim,
  claimable,
  depositStake,
  finishExit,
  pendingExits,
  requestExit,
  stakeOf,
  syncVotes,
  withdrawEarnings,
} from '../token/index.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { askPassword } from './secrets.ts';
import { openSender } from './sending.ts';

/** What an own node of this data folder does; each kind has a folder, a node key and an operator of its own. */
export type OwnNodeKind = 'provider' | 'miner' | 'validator' | 'juror' | 'compute';

/** Which operator a command is for: by number, else the one whose node key is in this data folder. */
export interface OperatorChoice {
  operator?: string;
  /** Of which own node; the provider unless told otherwise. */
  kind?: OwnNodeKind;
}

type Opened = Awaited<ReturnType<typeof openSender>> & { operatorId: bigint };

const ROTATED = { owner: 0, beneficiary: 1 } as const;

/** The folder and node key of the provider, miner, validator or juror that is run by hand on this machine. */
export function ownNode(folder: NetworkFolder, kind: OwnNodeKind = 'provider'): { folder: string; keystore: string } {
  const path = join(folder.root, kind);
  return { folder: path, keystore: join(path, 'node-key.json') };
}

/** How the operator of an own node is to be. Money in base units of the network's token. */
export interface OwnOperatorOptions {
  kind: OwnNodeKind;
  /** `https://host:port`; empty for a node that nobody connects to. */
  endpoint: string;
  /** Who receives earnings; the wallet unless told otherwise. */
  beneficiary?: Address;
  region?: string;
  /** Own stake, topped up to this. */
  stake: bigint;
  /** Most stake that the node key may promise, when its owner has set no limit yet; 0: all of it. */
  limit: bigint;
}

/** An own node's operator and keys. */
export interface OwnOperator {
  operatorId: bigint;
  nodeKey: Signer;
  transportKey: Hex;
}

/**
 * Makes what an own node needs, as far as it is not there: node key (asks for its password), TLS key, an operator owned by the wallet, stake, and
 * the bound on what the node key may promise. Each step looks first, so it can be repeated and interrupted.
 * @throws wrong-password, no-funds, key-in-use and the chain's errors
 */
export async function initOwnOperator(opened: Awaited<ReturnType<typeof openSender>>, options: OwnOperatorOptions): Promise<OwnOperator> {
  const { client, sender, signer, folder } = opened;
  const { kind, endpoint, stake, limit, region = '', beneficiary = signer.address } = options;
  const { folder: own, keystore: path } = ownNode(folder, kind);
  mkdirSync(own, { recursive: true, mode: 0o700 });
  const password = await askPassword('Password of the node key: ');
  const nodeKey = existsSync(path) ? await openKeystore({ path, password }) : await createKeystore({ path, password });
  const { transportKey } = await openTransportIdentity(own);
  const operatorId = await provisionOperator(client, { owner: sender, nodeKey, beneficiary, transportKey, endpoint, region, stake });
  if (limit > 0n && (await client.read('stakeVault', 'lockLimitOf', [operatorId])) === 0n) {
    await sender.send({ contract: 'stakeVault', functionName: 'setLockLimit', args: [operatorId, limit] });
  }
  return { operatorId, nodeKey, transportKey };
}

/** Says on chain where the node is reached, and with which TLS key. */
export async function providerEndpoint(context: CommandContext, url: string, options: OperatorChoice & { region?: string }): Promise<void> {
  const endpoint = endpointUrl(url);
  await asOwner(context, options, async ({ client, sender, folder, operatorId }) => {
    const { transportKey } = await openTransportIdentity(ownNode(folder, options.kind).folder);
    const changed = await setEndpoint(client, sender, { operatorId, transportKey, endpoint, region: options.region });
    context.output.result({ operatorId, endpoint, transportKey, changed }, () =>
      changed ? `Operator ${operatorId} is reached at ${endpoint}.` : `Operator ${operatorId} was reached at ${endpoint} already.`,
    );
  });
}

/** Bounds how much stake the node key may promise, and so what a thief of it can do. */
export async function providerLimit(context: CommandContext, amountText: string, options: OperatorChoice): Promise<void> {
  const limit = parseAmount(amountText, TOKEN_DECIMALS);
  await asOwner(context, options, async ({ sender, operatorId }) => {
    const { hash } = await sender.send({ contract: 'stakeVault', functionName: 'setLockLimit', args: [operatorId, limit] });
    context.output.result({ operatorId, limit, transaction: hash }, () =>
      limit === 0n
        ? `Operator ${operatorId}: the node key may promise all stake.`
        : `Operator ${operatorId}: the node key may promise up to ${formatAmount(limit, TOKEN_DECIMALS)}.`,
    );
  });
}

/** Adds own stake. */
export async function providerStake(context: CommandContext, amountText: string, options: OperatorChoice): Promise<void> {
  const amount = parseAmount(amountText, TOKEN_DECIMALS);
  await asOwner(context, options, async ({ client, sender, operatorId }) => {
    const { hash } = await depositStake(client, { sender, operatorId, amount });
    const { own, available } = await stakeOf(client, { operatorId });
    context.output.result(
      { operatorId, amount, stake: own.active, available, transaction: hash },
      () =>
        `Operator ${operatorId} has staked ${formatAmount(own.active, TOKEN_DECIMALS)}, of which ${formatAmount(available, TOKEN_DECIMALS)} is free.`,
    );
  });
}

/** Takes free stake out; it is paid by `provider withdraw` after the delay, and can be slashed until then. */
export async function providerUnstake(context: CommandContext, amountText: string, options: OperatorChoice): Promise<void> {
  const amount = parseAmount(amountText, TOKEN_DECIMALS);
  await asOwner(context, options, async ({ sender, operatorId }) => {
    const ticket = await requestExit({ sender, operatorId, amount });
    context.output.result(
      { operatorId, ...ticket },
      () =>
        `${formatAmount(ticket.amount, TOKEN_DECIMALS)} leaves the stake of operator ${operatorId}. From ${chainTime(ticket.withdrawableFrom)}: millrace provider withdraw`,
    );
  });
}

/** Fetches what is due to the wallet: exits whose time has come, earnings at the rails, and what slashes credited. */
export async function providerWithdraw(context: CommandContext, options: OperatorChoice): Promise<void> {
  await asOwner(context, options, async ({ client, sender, operatorId }) => {
    const now = await client.now();
    const exits = (await pendingExits(client, { operatorId })).filter(({ who }) => isAddressEqual(who, sender.address));
    const waiting = exits.filter((exit) => exit.withdrawableFrom > now);
    let unstaked = 0n;
    for (const { exitId } of exits.filter((exit) => exit.withdrawableFrom <= now)) unstaked += await finishExit({ sender, exitId });
    const earned = await withdrawEarnings(client, { sender, token: 'network' });
    const credited = (await claimable(client, { account: sender.address })) === 0n ? 0n : await claim({ sender });
    context.output.result({ operatorId, unstaked, earned, credited, waiting }, () =>
      [
        `Stake ${formatAmount(unstaked, TOKEN_DECIMALS)}, earnings ${formatAmount(earned, TOKEN_DECIMALS)}, credits ${formatAmount(credited, TOKEN_DECIMALS)}.`,
        ...waiting.map(
          (exit) => `Exit ${exit.exitId}: ${formatAmount(exit.amount, TOKEN_DECIMALS)} from ${chainTime(exit.withdrawableFrom)}`,
        ),
      ].join('\n'),
    );
  });
}

/** Options of `millrace provider rotate`. */
export interface RotateOptions extends OperatorChoice {
  finish: boolean;
  cancel: boolean;
}

/** Starts, finishes or cancels the delayed change of owner or beneficiary, or replaces the node key at once. */
export async function providerRotate(
  context: CommandContext,
  what: string,
  address: string | undefined,
  options: RotateOptions,
): Promise<void> {
  if (what === 'node-key') {
    if (address === undefined && !options.finish && !options.cancel) return replaceNodeKey(context, options);
    throw badRotation('A node key is made here and replaced at once: no address, no --finish, no --cancel');
  }
  if (what !== 'owner' && what !== 'beneficiary') throw badRotation(`Got "${what.slice(0, 40)}", expected owner, beneficiary or node-key`);
  const ways = [address !== undefined, options.finish, options.cancel].filter(Boolean).length;
  if (ways !== 1) throw badRotation('Expected one of: a new address, --finish, --cancel');
  const role = ROTATED[what];
  const newKey = address === undefined ? undefined : parseAddress('address', address);
  await asOwner(context, options, async ({ client, sender, operatorId }) => {
    const call = { contract: 'operators' } as const;
    if (newKey !== undefined) await sender.send({ ...call, functionName: 'requestRotation', args: [operatorId, role, newKey] });
    else if (options.finish) await sender.send({ ...call, functionName: 'finishRotation', args: [operatorId, role] });
    else await sender.send({ ...call, functionName: 'cancelRotation', args: [operatorId, role] });
    if (options.finish && what === 'owner') await syncVotes({ sender, operatorId });
    const [next, effectiveFrom] = await client.read('operators', 'rotationOf', [operatorId, role]);
    const present = await client.read('operators', what === 'owner' ? 'ownerOf' : 'beneficiaryOf', [operatorId]);
    const pending = effectiveFrom === 0n ? null : { address: next, effectiveFrom };
    context.output.result({ operatorId, what, present, pending }, () =>
      pending === null
        ? `The ${what} of operator ${operatorId} is ${present}.`
        : `The ${what} of operator ${operatorId} is ${present}; from ${chainTime(effectiveFrom)} it can become ${next}: millrace provider rotate ${what} --finish${what === 'owner' ? ` --operator ${operatorId} (with the new owner’s wallet)` : ''}`,
    );
  });
}

/** Makes a new node key, lets the chain take it, and only then puts it in the old one's place; can be repeated after an interruption. */
async function replaceNodeKey(context: CommandContext, options: OperatorChoice): Promise<void> {
  await asOwner(context, options, async ({ client, sender, folder, operatorId }) => {
    const own = ownNode(folder, options.kind);
    const fresh = join(own.folder, 'node-key.new.json');
    const password = await askPassword('Password of the node key: ');
    const nodeKey = existsSync(fresh) ? await openKeystore({ path: fresh, password }) : await createKeystore({ path: fresh, password });
    if ((await client.read('operators', 'operatorOfNodeKey', [nodeKey.address])) !== operatorId) {
      const consent = await nodeKeyConsent(client, nodeKey, sender.address);
      await sender.send({ contract: 'operators', functionName: 'setNodeKey', args: [operatorId, nodeKey.address, consent] });
    }
    if (existsSync(own.keystore)) renameSync(own.keystore, join(own.folder, `node-key.old-${Date.now()}.json`));
    renameSync(fresh, own.keystore);
    context.output.result({ operatorId, what: 'node-key', present: nodeKey.address, pending: null }, () =>
      [
        `Operator ${operatorId} now works with ${nodeKey.address}; the old key can do nothing any more.`,
        `Send gas to it (millrace wallet send ${nodeKey.address} 0.1 --gas), then start the node again: millrace ${options.kind ?? 'provider'} run`,
      ].join('\n'),
    );
  });
}

/** The operator that a command is for. @throws bad-option, no-node-key, node-not-registered */
export async function operatorOf(client: ChainClient, folder: NetworkFolder, options: OperatorChoice): Promise<bigint> {
  if (options.operator !== undefined) return operatorNumber(options.operator);
  const own = ownNode(folder, options.kind);
  // Between the two steps of a replaced node key the chain knows the new one already.
  for (const path of [own.keystore, join(own.folder, 'node-key.new.json')]) {
    if (!existsSync(path)) continue;
    const operatorId = await client.read('operators', 'operatorOfNodeKey', [keystoreAddress(path)]);
    if (operatorId !== 0n) return operatorId;
  }
  throw noNodeKey(own.folder, options.kind);
}

/** There is no such node of one's own in this data folder. */
export function noNodeKey(folder: string, kind: OwnNodeKind = 'provider'): MillraceError {
  return new MillraceError('no-node-key', {
    actor: 'caller',
    message: `There is no registered node key in ${folder}`,
    values: { folder },
    hint: `Make one with \`millrace ${kind} ${kind === 'juror' ? 'enrol' : 'init'}\`, or name the operator with --operator NUMBER.`,
  });
}

async function asOwner(context: CommandContext, options: OperatorChoice, act: (opened: Opened) => Promise<void>): Promise<void> {
  const opened = await openSender(context);
  try {
    await act({ ...opened, operatorId: await operatorOf(opened.client, opened.folder, options) });
  } finally {
    opened.sender.close();
  }
}

/** The number of an operator. @throws bad-option */
export function operatorNumber(text: string): bigint {
  if (/^[1-9]\d{0,17}$/.test(text)) return BigInt(text);
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got operator "${text.slice(0, 40)}", expected its number`,
    values: { got: text.slice(0, 40) },
    hint: 'See `millrace provider show`.',
  });
}

function badRotation(message: string): MillraceError {
  return new MillraceError('bad-option', { actor: 'caller', message, hint: 'See `millrace provider rotate --help`.' });
}

/** A moment of protocol time for people, UTC. */
export function chainTime(seconds: bigint): string {
  return `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}Z`;
}
