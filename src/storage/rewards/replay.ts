import type { ModuleName } from '../../chain/index.ts';

/** An event as a replay takes it. Names and values are those of the contract's ABI. */
export interface ReplayEvent {
  module: ModuleName;
  name: string;
  args: Readonly<Record<string, unknown>>;
  blockNumber: bigint;
  transactionHash: string;
  /** Of its block, seconds. */
  time: bigint;
}

/** Reads a view function of a module at the block that is looked at. */
export type ReadView = (module: ModuleName, functionName: string, args: readonly unknown[]) => Promise<unknown>;

/** A number that must be what a contract says of itself. */
export interface Check {
  /** What it is of, for people. */
  what: string;
  /** Recomputed from events. */
  expected: bigint;
  /** How it must stand to what the contract says: equal to it, or at most that. Default: equal. */
  relation?: 'at-most';
  actual(read: ReadView): Promise<bigint>;
}

/** What does not fit: between an event and the rules, or between the rules and what a contract says. */
export interface Difference {
  group: string;
  what: string;
  expected: string;
  got: string;
  /** Of the event, or of the block at which the contract was asked. */
  blockNumber: bigint;
  transactionHash?: string;
}

/** Tells of an event that does not fit the rules. */
export type Report = (what: string, expected: unknown, got: unknown) => void;
/** What a rule does with an event. */
export type Handler = (args: EventArgs, event: ReplayEvent, report: Report) => void;

/**
 * One group of rules, written down a second time: it follows events, says which of them break a rule, and what the contracts must say of
 * themselves after them. Pure: no clock, no chain. It shares no code with the contracts or with the nodes.
 */
export interface Replay {
  group: string;
  /** `module.event` -> what to do. No other event concerns it. */
  handlers: Readonly<Record<string, Handler>>;
  /** What must be so at a time (seconds) when all events up to then were handled. */
  checks(time: bigint): Iterable<Check>;
  /** Called when no event follows. */
  end?(report: Report): void;
}

/** Values of an event by name and kind. */
export class EventArgs {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  /** A whole number. */
  int(name: string): bigint {
    return BigInt(this.#values[name] as bigint | number);
  }

  /** An address, lower case. */
  account(name: string): string {
    return String(this.#values[name]).toLowerCase();
  }

  /** Any word. */
  word(name: string): string {
    return String(this.#values[name]);
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  /** A struct. */
  inner(name: string): EventArgs {
    return new EventArgs(this.#values[name] as Record<string, unknown>);
  }
}

/** Sums by key; a key that was never added to is 0. */
export class Sums {
  readonly #sums = new Map<string, bigint>();

  add(key: string, amount: bigint): void {
    this.#sums.set(key, this.of(key) + amount);
  }

  of(key: string): bigint {
    return this.#sums.get(key) ?? 0n;
  }

  entries(): Iterable<[string, bigint]> {
    return this.#sums;
  }
}

/** A check of a view that gives one number. */
export function checkView(
  what: string,
  expected: bigint,
  view: [module: ModuleName, functionName: string, args?: readonly unknown[]],
): Check {
  const [module, functionName, args = []] = view;
  return { what, expected, actual: async (read) => BigInt((await read(module, functionName, args)) as bigint | number) };
}
