import { type Abi, BaseError, decodeErrorResult, type Hex, toFunctionSelector } from 'viem';
import { type Actor, causesOf, type ErrorValue, MillraceError, toMillraceError } from '../errors.ts';
import { errorsAbi } from './contracts.generated.ts';

/** Errors of the EVM itself and of tokens that are not ours, decoded beside our own. */
const FOREIGN_ERRORS = [
  { type: 'error', name: 'Error', inputs: [{ name: 'reason', type: 'string' }] },
  { type: 'error', name: 'Panic', inputs: [{ name: 'panic', type: 'uint256' }] },
] as const;

/** Contract errors that somebody else than the caller must act on. All others say what the caller did wrong. */
const ACTORS: Record<string, Actor> = {
  'bad-signature': 'peer',
  panic: 'bug',
  'reentrancy-guard-reentrant-call': 'bug',
};

/** What to do next, for contract errors whose values alone do not say it. */
const HINTS: Record<string, string> = {
  'already-registered': 'An operator holds one uid of a subnet; make another operator for another one.',
  'changed-too-recently': 'Wait until the time that it names; rules change at most so often.',
  'deadline-not-reached': 'Wait until the deadline has passed.',
  'erc20-insufficient-allowance': 'Approve the amount first.',
  'erc20-insufficient-balance': 'Get more of the token first.',
  'exit-too-early': 'Wait until the withdrawal delay is over.',
  'insufficient-allowance': 'Approve the amount at the rails first.',
  'insufficient-balance': 'Deposit more first.',
  'insufficient-unlocked': 'Deposit more stake, or wait until obligations end.',
  'lock-above-limit': 'Allow a larger lock, or wait: the cost falls with time.',
  'lock-not-due': 'End the subnet first, and wait until the time that it names.',
  'no-seat-free': 'Wait for the next settlement, which gives permits by stake.',
  'not-subnet-owner': 'Use the wallet of the subnet’s owner.',
  'offer-expired': 'Ask for a new offer.',
  'price-above-limit': 'Allow a higher price, or wait: it falls by half in each half-life while nobody registers.',
  'randomness-not-fixed': 'Fix the randomness of that time first; anyone may.',
  'release-frozen': 'Wait until the open dispute is decided.',
  'rotation-too-early': 'Wait until the rotation delay is over.',
  'stake-too-small': 'Stake more; stake counts from the next second on.',
  'take-too-high': 'Choose a take within the limit.',
  'time-not-reached': 'Wait until the chain has passed that time.',
  'too-few-jurors': 'Wait until more operators hold seats, or until votes of other disputes are settled.',
};

interface AbiInput {
  name?: string;
  type: string;
  components?: readonly AbiInput[];
}

/** One custom error of the contracts and the code that clients see. */
export interface ContractErrorEntry {
  name: string;
  code: string;
  actor: Actor;
  hint: string | undefined;
  inputs: readonly AbiInput[];
}

/** The error code of a Solidity error: `InsufficientUnlocked` is `insufficient-unlocked`, `ERC20InvalidSender` is `erc20-invalid-sender`. */
export function errorCodeOf(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .replace(/([A-Z]+)([A-Z][a-z])/g, '$1-$2')
    .toLowerCase();
}

/** Every custom error of every contract with its code, for `docs/errors.md`. */
export function contractErrors(): ContractErrorEntry[] {
  return [...entriesBySelector().values()];
}

/**
 * What a contract reverted with, as a typed error: code from the Solidity name, values from its arguments.
 * Data that no known error fits becomes `transaction-reverted` with its selector.
 */
export function revertError(data: Hex, context: { doing: string; cause?: unknown; values?: Record<string, ErrorValue> }): MillraceError {
  const entry = entriesBySelector().get(data.slice(0, 10));
  const args = entry === undefined ? undefined : decodeArguments(entry, data);
  if (entry === undefined || args === undefined) {
    return new MillraceError('transaction-reverted', {
      actor: 'chain',
      message: `${context.doing} was reverted by the contract${data === '0x' ? ' without a reason' : ` with unknown error ${data.slice(0, 10)}`}`,
      values: { ...context.values, selector: data === '0x' ? null : data.slice(0, 10) },
      hint: 'The manifest may belong to another version of the contracts, or a called contract gave no reason.',
      cause: context.cause,
    });
  }
  const values: Record<string, ErrorValue> = {};
  entry.inputs.forEach((input, index) => {
    values[input.name || `value${index}`] = args[index] as ErrorValue;
  });
  const shown = Object.entries(values).map(([name, value]) => `${name} ${String(value)}`);
  return new MillraceError(entry.code, {
    actor: entry.actor,
    message: `${context.doing} was refused by the contract: ${entry.name}${shown.length > 0 ? ` (${shown.join(', ')})` : ''}`,
    values: { ...context.values, ...values },
    hint: entry.hint,
    cause: context.cause,
  });
}

/**
 * Anything that a chain call threw, as a typed error: a decoded contract error, or who else can act.
 * @param doing what was tried, as the start of a sentence
 */
export function chainError(error: unknown, doing: string, values: Record<string, ErrorValue> = {}): MillraceError {
  if (error instanceof MillraceError) return error;
  const data = revertDataOf(error);
  if (data !== undefined) return revertError(data, { doing, cause: error });
  const message =
    error instanceof BaseError
      ? error.shortMessage + (error.details ? ` (${error.details})` : '')
      : String((error as Error)?.message ?? error);
  if (/insufficient funds|gas \* price \+ value|exceeds the balance/i.test(message)) {
    return new MillraceError('no-funds', {
      actor: 'caller',
      message: `${doing} needs more of the chain's own coin than the account has`,
      values,
      hint: 'Send some to the account, for fees.',
      cause: error,
    });
  }
  if (isNetworkError(error)) {
    return new MillraceError('chain-unreachable', {
      actor: 'chain',
      message: `${doing} failed: the chain does not answer (${firstLine(message)})`,
      values,
      hint: 'Check that the chain runs and the RPC address is right; "millrace status" shows both.',
      cause: error,
    });
  }
  if (!(error instanceof BaseError)) return toMillraceError(error);
  return new MillraceError('chain-refused', {
    actor: 'chain',
    message: `${doing} failed: ${firstLine(message)}`,
    values,
    hint: 'The chain gave the reason above.',
    cause: error,
  });
}

/** The bytes that a contract reverted with, found anywhere in the chain of causes; `undefined` when nothing was reverted. */
export function revertDataOf(error: unknown): Hex | undefined {
  let reverted = false;
  for (const step of causesOf(error)) {
    const { data, message, code } = step as { data?: unknown; message?: unknown; code?: unknown };
    const bytes = typeof data === 'object' && data !== null ? (data as { data?: unknown }).data : data;
    if (typeof bytes === 'string' && /^0x([0-9a-fA-F]{2})*$/.test(bytes) && bytes !== '0x') return bytes.toLowerCase() as Hex;
    if (code === 3 || (typeof message === 'string' && /execution reverted/i.test(message))) reverted = true;
  }
  return reverted ? '0x' : undefined;
}

function isNetworkError(error: unknown): boolean {
  for (const step of causesOf(error)) {
    const { name, code } = step as { name?: string; code?: string };
    if (name === 'HttpRequestError' || name === 'TimeoutError' || name === 'SocketClosedError') return true;
    if (code === 'ECONNREFUSED' || code === 'ECONNRESET' || code === 'UND_ERR_SOCKET' || code === 'ENOTFOUND') return true;
  }
  return false;
}

function firstLine(message: string): string {
  return (message.split('\n')[0] as string).slice(0, 300);
}

let entries: Map<string, ContractErrorEntry> | undefined;

/** Made on first use: most processes meet no such error, and the selectors of all of them take 30 ms. */
function entriesBySelector(): Map<string, ContractErrorEntry> {
  if (entries !== undefined) return entries;
  const items = [...errorsAbi, ...FOREIGN_ERRORS] as readonly { name: string; inputs: readonly AbiInput[] }[];
  entries = new Map(items.map((item) => [toFunctionSelector(`${item.name}(${item.inputs.map(typeOf).join(',')})`), entryOf(item)]));
  return entries;
}

function entryOf({ name, inputs }: { name: string; inputs: readonly AbiInput[] }): ContractErrorEntry {
  const code = errorCodeOf(name);
  return { name, code, actor: ACTORS[code] ?? 'caller', hint: HINTS[code], inputs };
}

function typeOf(input: AbiInput): string {
  if (!input.type.startsWith('tuple')) return input.type;
  return `(${(input.components ?? []).map(typeOf).join(',')})${input.type.slice(5)}`;
}

function decodeArguments(entry: ContractErrorEntry, data: Hex): readonly unknown[] | undefined {
  try {
    const abi = [{ type: 'error', name: entry.name, inputs: entry.inputs }] as unknown as Abi;
    return (decodeErrorResult({ abi, data }).args as readonly unknown[] | undefined) ?? [];
  } catch {
    return undefined;
  }
}
