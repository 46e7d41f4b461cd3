import { mkdirSync } from 'node:fs';
import { MillraceError } from '../errors.ts';
import { type CallerKeyRules, type CallerKeys, withCallerKeys } from '../gateway/index.ts';
import { formatAmount, formatDuration, parseAmount, parseDuration, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { gatewayFolder, tellGateway } from './gateway-run.ts';
import { table } from './output.ts';
import { wholeNumber } from './put.ts';
import { folderOf, openSession, stakeUnitOf } from './session.ts';

/** Options of `millrace gateway keys create`. */
export interface KeyOptions {
  budget?: string;
  period?: string;
  perMinute?: string;
  models?: string[];
  expires?: string;
  zeroRetention: boolean;
}

/** Rules of a key as they go over the control socket. */
type WireRules = Omit<CallerKeyRules, 'budget'> & { budget?: string };

/** A key as it comes over the control socket. */
interface ShownKey extends WireRules {
  id: string;
  spent: string;
  isRevoked: boolean;
}

const NAME_LENGTH_MAX = 80;

/** Makes a key for a caller of the gateway; it is printed once and kept nowhere but as a hash. Works while the gateway runs and while it does not. */
export async function keysCreate(context: CommandContext, name: string, options: KeyOptions): Promise<void> {
  const rules = wireRules(name, options);
  const { key, id } = (await keyCommand(context, 'keys-create', { rules })) as { key: string; id: string };
  context.output.result({ key, id, ...rules }, () => `${key}\nKey ${id} for ${name}: it is shown this once. ${budgetText(rules)}`);
}

/** All keys of the gateway with what they have spent; the keys themselves nobody has. */
export async function keysList(context: CommandContext): Promise<void> {
  const { manifest } = await openSession(context);
  const items = (await keyCommand(context, 'keys-list', {})) as ShownKey[];
  const unit = stakeUnitOf(manifest);
  context.output.result({ items, unit, next: null }, () => {
    if (items.length === 0) return 'There is no key yet: millrace gateway keys create NAME';
    const rows = items.map((item) => [
      item.id,
      item.name,
      item.isRevoked ? 'revoked' : expiryText(item.expiresAt),
      formatAmount(BigInt(item.spent), TOKEN_DECIMALS),
      budgetText(item),
    ]);
    return table(['key', 'name', 'state', `spent (${unit})`, 'budget'], rows);
  });
}

/** Ends a key at once. @throws key-unknown */
export async function keysRevoke(context: CommandContext, id: string): Promise<void> {
  await keyCommand(context, 'keys-revoke', { id });
  context.output.result({ id, isRevoked: true }, () => `The key ${id} is good for nothing any more.`);
}

/** Does what a key command asks, on the keys of a running gateway or of one that does not run. @throws key-unknown, too-many-keys, unknown-command */
export async function answerKeyCommand(keys: CallerKeys, command: string, given: Record<string, unknown>): Promise<unknown> {
  if (command === 'keys-list') return keys.list();
  if (command === 'keys-revoke') {
    await keys.revoke(String(given.id));
    return null;
  }
  if (command === 'keys-create') {
    const { budget, ...rules } = given.rules as WireRules;
    return keys.create({ ...rules, ...(budget === undefined ? {} : { budget: BigInt(budget) }) });
  }
  throw new MillraceError('unknown-command', { actor: 'caller', message: `The gateway does not know "${command}"`, values: { command } });
}

/** Over the socket of the running gateway; else on its folder, which nobody else may open meanwhile. */
async function keyCommand(context: CommandContext, command: string, given: Record<string, unknown>): Promise<unknown> {
  const { socket, serving } = gatewayFolder(folderOf(context));
  try {
    return await tellGateway(socket, command, given);
  } catch (error) {
    if (!(error instanceof MillraceError) || error.code !== 'gateway-not-running') throw error;
  }
  mkdirSync(serving, { recursive: true, mode: 0o700 });
  return withCallerKeys(serving, async (keys) => answerKeyCommand(keys, command, given));
}

function wireRules(name: string, options: KeyOptions): WireRules {
  if (name.length === 0 || name.length > NAME_LENGTH_MAX || /[\p{Cc}]/u.test(name)) {
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: `Got a name of ${name.length} characters, expected 1 to ${NAME_LENGTH_MAX} printable ones`,
      values: { got: name.length },
    });
  }
  const { budget, period, perMinute, models, expires } = options;
  const nowSeconds = Math.floor(Date.now() / 1000);
  return {
    name,
    ...(budget === undefined ? {} : { budget: parseAmount(budget, TOKEN_DECIMALS).toString() }),
    ...(period === undefined ? {} : { periodSeconds: parseDuration(period) }),
    ...(perMinute === undefined ? {} : { requestsPerMinute: wholeNumber('--per-minute', perMinute) }),
    ...(models === undefined ? {} : { models }),
    ...(expires === undefined ? {} : { expiresAt: nowSeconds + parseDuration(expires) }),
    ...(options.zeroRetention ? { zeroRetention: true } : {}),
  };
}

function budgetText({ budget, periodSeconds, requestsPerMinute, models }: WireRules): string {
  const money =
    budget === undefined
      ? 'no budget: it can spend the whole purse'
      : `${formatAmount(BigInt(budget), TOKEN_DECIMALS)}${periodSeconds === undefined ? ' in all' : ` every ${formatDuration(periodSeconds)}`}`;
  return [
    money,
    ...(requestsPerMinute === undefined ? [] : [`${requestsPerMinute} requests a minute`]),
    ...(models === undefined ? [] : [models.join(' ')]),
  ].join(', ');
}

function expiryText(expiresAt: number | undefined): string {
  if (expiresAt === undefined) return 'good';
  return expiresAt * 1000 <= Date.now() ? 'expired' : `until ${new Date(expiresAt * 1000).toISOString().slice(0, 16)}Z`;
}
