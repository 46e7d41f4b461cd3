import { readFileSync } from 'node:fs';
import { hexToBytes, isHex } from 'viem';
import { MillraceError } from '../errors.ts';
import {
  acceptSubnetOwner,
  type Beacon,
  boundsText,
  burnForSubnet,
  changeRules,
  createSubnet,
  DEFAULT_SUBNET_RULES,
  declareBeacon,
  dissolveSubnet,
  proposeSubnetOwner,
  QUICKNET,
  RULE_TEXTS,
  readNextRules,
  readSubnet,
  returnSubnetLock,
  ruleValueText,
  withRules,
} from '../inference/index.ts';
import { formatAmount, formatDuration, parseAmount, parseDuration, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { subnetNumber } from './model-node.ts';
import { table } from './output.ts';
import { openSender } from './sending.ts';
import { openSession, stakeUnitOf } from './session.ts';

const BEACON_BYTES_MAX = 16_384;

type Opened = Awaited<ReturnType<typeof openSender>> & { unit: string };

/** Options of `millrace subnet create`. */
export interface SubnetCreateOptions {
  tempo: string;
  lockMax?: string;
  set?: string[];
}

/** Creates a subnet of the wallet's, for a lock that comes back when it is ended. */
export async function subnetCreate(context: CommandContext, kind: string, options: SubnetCreateOptions): Promise<void> {
  const tempoSeconds = parseDuration(options.tempo);
  const rules = withRules(DEFAULT_SUBNET_RULES, options.set ?? []);
  const lockMax = options.lockMax === undefined ? undefined : parseAmount(options.lockMax, TOKEN_DECIMALS);
  await asSender(context, async ({ client, sender, unit }) => {
    const lock = await client.read('subnets', 'lockCost');
    context.output.note(`A subnet locks ${formatAmount(lock, TOKEN_DECIMALS)} ${unit} now.`);
    const subnetId = await createSubnet(client, { sender, kind, tempoSeconds, rules, lockMax: lockMax ?? lock });
    const { lock: paid } = await client.read('subnets', 'subnet', [subnetId]);
    context.output.result({ subnetId, kind, tempoSeconds, lock: paid, unit, rules }, () =>
      [
        `Subnet ${subnetId} (${kind}) has epochs of ${formatDuration(tempoSeconds)}; ${formatAmount(paid, TOKEN_DECIMALS)} ${unit} are locked until it is ended.`,
        `Its share of the emission is what is burnt for it: millrace subnet burn ${subnetId} AMOUNT. Its beacon: millrace subnet beacon ${subnetId} quicknet`,
      ].join('\n'),
    );
  });
}

/** Every rule with its bounds and meaning, and of one subnet its present value. */
export async function subnetRules(context: CommandContext, id: string | undefined): Promise<void> {
  const rules = id === undefined ? DEFAULT_SUBNET_RULES : (await readSubnet((await openSession(context)).client, subnetNumber(id))).rules;
  const items = RULE_TEXTS.map((text) => ({
    name: text.name,
    value: rules[text.name],
    shown: ruleValueText(text, rules),
    bounds: boundsText(text),
    meaning: text.meaning,
  }));
  context.output.result({ items, next: null }, () =>
    table(
      ['rule', id === undefined ? 'default' : 'now', 'bounds', 'meaning'],
      items.map(({ name, shown, bounds, meaning }) => [name, shown, bounds, meaning]),
    ),
  );
}

/** The owner changes rules of a subnet, from its next epoch on. */
export async function subnetSet(context: CommandContext, id: string, changes: string[]): Promise<void> {
  const subnetId = subnetNumber(id);
  await asSender(context, async ({ client, sender }) => {
    const { rules: before, fromEpoch } = await readNextRules(client, subnetId);
    const rules = withRules(before, changes);
    await changeRules({ sender, subnetId, rules });
    context.output.result({ subnetId, fromEpoch, rules }, () => `Subnet ${subnetId}: ${changes.join(', ')} from its next epoch on.`);
  });
}

/** Ends a subnet: its owner at any time, anybody when nothing was settled for long. */
export async function subnetDissolve(context: CommandContext, id: string): Promise<void> {
  const subnetId = subnetNumber(id);
  await asSender(context, async ({ sender }) => {
    const { hash } = await dissolveSubnet({ sender, subnetId });
    context.output.result(
      { subnetId, transaction: hash },
      () => `Subnet ${subnetId} is over. Its lock, when it is due: millrace subnet return-lock ${subnetId}`,
    );
  });
}

/** Gives the lock of an ended subnet back to its creator. */
export async function subnetReturnLock(context: CommandContext, id: string): Promise<void> {
  const subnetId = subnetNumber(id);
  await asSender(context, async ({ sender, unit }) => {
    const amount = await returnSubnetLock({ sender, subnetId });
    context.output.result(
      { subnetId, amount },
      () => `${formatAmount(amount, TOKEN_DECIMALS)} ${unit} went back to the creator of subnet ${subnetId}.`,
    );
  });
}

/** Hands a subnet over: the owner proposes an address, which accepts with its own wallet. */
export async function subnetOwner(
  context: CommandContext,
  id: string,
  address: string | undefined,
  options: { accept: boolean },
): Promise<void> {
  const subnetId = subnetNumber(id);
  if ((address === undefined) !== options.accept) {
    throw new MillraceError('bad-option', { actor: 'caller', message: 'Expected one of: the address of the new owner, --accept' });
  }
  const proposed = address === undefined ? undefined : parseAddress('address', address);
  await asSender(context, async ({ client, sender }) => {
    if (proposed === undefined) await acceptSubnetOwner({ sender, subnetId });
    else await proposeSubnetOwner({ sender, subnetId, proposed });
    const owner = await client.read('subnets', 'ownerOf', [subnetId]);
    context.output.result({ subnetId, owner, proposed: proposed ?? null }, () =>
      proposed === undefined
        ? `The owner of subnet ${subnetId} is ${owner}.`
        : `${proposed} may take subnet ${subnetId}: millrace subnet owner ${subnetId} --accept (with that wallet).`,
    );
  });
}

/** Burns tokens for a subnet: its share of the emission is measured by what was burnt for it, old burns less. */
export async function subnetBurn(context: CommandContext, id: string, amountText: string): Promise<void> {
  const subnetId = subnetNumber(id);
  const amount = parseAmount(amountText, TOKEN_DECIMALS);
  await asSender(context, async ({ client, sender, unit }) => {
    await burnForSubnet(client, { sender, subnetId, amount });
    const { emissionShareMillionths } = await readSubnet(client, subnetId);
    context.output.result(
      { subnetId, amount, emissionShareMillionths },
      () =>
        `${formatAmount(amount, TOKEN_DECIMALS)} ${unit} are burnt; subnet ${subnetId} now has ${(emissionShareMillionths / 10_000).toFixed(2)} % of the emission.`,
    );
  });
}

/** The owner says to which beacon’s rounds commits are sealed: `quicknet`, or a file that describes another. */
export async function subnetBeacon(context: CommandContext, id: string, which: string): Promise<void> {
  const subnetId = subnetNumber(id);
  const beacon = which === 'quicknet' ? QUICKNET : readBeacon(which);
  await asSender(context, async ({ sender }) => {
    await declareBeacon({ sender, subnetId, beacon });
    const { genesis, periodSeconds, label } = beacon;
    context.output.result({ subnetId, beacon: { genesis, periodSeconds, label } }, () => `Subnet ${subnetId} seals to: ${label}`);
  });
}

/** A beacon as a JSON file states it: `{genesis, periodSeconds, publicKey: 96 bytes in hex, label}`. @throws bad-beacon-file */
function readBeacon(path: string): Beacon {
  try {
    const text = readFileSync(path, 'utf8');
    if (text.length > BEACON_BYTES_MAX) throw new TypeError('too long');
    const { genesis, periodSeconds, publicKey, label } = JSON.parse(text) as Record<string, unknown>;
    const hex = `0x${String(publicKey).replace(/^0x/, '')}`;
    if (!isHex(hex) || hex.length !== 194 || typeof label !== 'string' || !Number.isSafeInteger(periodSeconds))
      throw new TypeError('a field is missing');
    return { genesis: BigInt(genesis as number), periodSeconds: periodSeconds as number, publicKey: hexToBytes(hex), label };
  } catch (cause) {
    throw new MillraceError('bad-beacon-file', {
      actor: 'caller',
      message: `Cannot read a beacon from ${path.slice(0, 200)}`,
      values: { path: path.slice(0, 200) },
      hint: 'Expected "quicknet", or a JSON file with genesis, periodSeconds, publicKey (96 bytes in hex) and label.',
      cause,
    });
  }
}

async function asSender(context: CommandContext, act: (opened: Opened) => Promise<void>): Promise<void> {
  const opened = await openSender(context);
  try {
    await act({ ...opened, unit: stakeUnitOf(opened.manifest) });
  } finally {
    opened.sender.close();
  }
}
