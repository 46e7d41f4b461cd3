import { join } from 'node:path';
import {
  type Address,
  type ContractFunctionArgs,
  type ContractFunctionName,
  type Hex,
  isAddressEqual,
  keccak256,
  parseTransaction,
} from 'viem';
import { type Clock, systemClock } from '../clock.ts';
import { MillraceError } from '../errors.ts';
import { type FolderLock, lockFolder } from '../lock.ts';
import type { Logger } from '../log.ts';
import { type Abis, type AnyChainEvent, type ChainClient, toChainEvent } from './client.ts';
import { abis, type ModuleName } from './contracts.generated.ts';
import { chainError } from './errors.ts';
import { bumpFees, chooseFees, feesOf, limitFees, perGas } from './fees.ts';
import type { Manifest } from './manifest.ts';
import {
  type DoneTransaction,
  type JournalEntry,
  openSenderJournal,
  type PendingTransaction,
  type PlainCall,
  type SenderJournal,
} from './sender-journal.ts';
import type { Signer } from './signer.ts';
import {
  broadcast,
  callHashOf,
  encodeModuleCall,
  estimateGas,
  findReceipt,
  type RpcReceipt,
  revertReason,
  type SignedTransaction,
  signCall,
} from './transaction.ts';

/** Name of a function of a module that changes state. */
export type WriteName<N extends ModuleName> = ContractFunctionName<Abis[N], 'nonpayable' | 'payable'>;

/** A call of a module's function. */
export interface ContractCall<N extends ModuleName, F extends WriteName<N>> {
  contract: N;
  functionName: F;
  args: ContractFunctionArgs<Abis[N], 'nonpayable' | 'payable', F>;
  value?: bigint;
  /** Idempotency key: a second send with the same key and call gives the first one's receipt, also after a crash. */
  key?: string;
}

/** A call of any address; `to: null` creates a contract from `data`. */
export interface RawCall {
  to: Address | null;
  data?: Hex;
  value?: bigint;
  key?: string;
}

/** What a transaction did. */
export interface Receipt {
  hash: Hex;
  blockNumber: bigint;
  blockHash: Hex;
  gasUsed: bigint;
  /** The created contract, when the call created one. */
  contractAddress: Address | null;
  /** Decoded events of the network's modules, in order. */
  events: AnyChainEvent[];
}

/** Sends transactions of one key, each effect exactly once. */
export interface Sender {
  readonly address: Address;
  /**
   * Simulates, signs, writes to the journal, broadcasts, and waits for the receipt. A call that would be reverted costs nothing.
   * @throws the contract's error code, no-funds, out-of-gas, sender-journal-unwritable, nonce-taken, idempotency-conflict, sender-closed, chain-unreachable
   */
  send<N extends ModuleName, F extends WriteName<N>>(call: ContractCall<N, F>): Promise<Receipt>;
  send(call: RawCall): Promise<Receipt>;
  /** Transactions that were sent and have no receipt yet. */
  pendingCount(): number;
  /** Stops waiting (what was sent stays sent, and is taken up by the next sender of this key) and frees the key. */
  close(): void;
}

/** What a sender needs of a chain client. */
export type SenderClient = Pick<ChainClient, 'chainId' | 'public' | 'address' | 'pollIntervalMs'> & {
  manifest: Pick<Manifest, 'genesisHash' | 'randomness' | 'modules'>;
};

/** How a sender works; times in milliseconds. */
export interface SenderOptions {
  client: SenderClient;
  signer: Signer;
  /** Holds the journal and the lock of the key. */
  journalFolder: string;
  log: Logger;
  clock?: Clock;
  /** Blocks that a receipt must be deep, its own included. Default 1. */
  confirmations?: number;
  /** After this long without a receipt the fee is raised. Default 45,000. */
  stuckAfterMs?: number;
  /** No unit of gas is ever paid more, in wei. Default 1,000 gwei. */
  feePerGasMax?: bigint;
}

const SEARCH_BLOCKS_MAX = 2048n;
const KEY_LENGTH_MAX = 256;
const REPEAT_ATTEMPTS = 50;
const GAS_ATTEMPTS = 3;
const FEE_PER_GAS_MAX = 1_000_000_000_000n;

/**
 * The sender of one key on one chain. There is one per key: a second one, in this process or another, is refused. Transactions that an
 * earlier process left without a receipt are taken up at once.
 * @throws key-in-use, sender-journal-broken
 */
export function createSender(options: SenderOptions): Sender {
  const { client, signer, journalFolder } = options;
  const folder = join(journalFolder, `sender-${signer.address.toLowerCase()}`);
  const lock = lockKey(folder, signer.address);
  let journal: SenderJournal;
  try {
    journal = openSenderJournal(join(folder, `${client.chainId}-${client.manifest.genesisHash.slice(2, 18)}.ndjson`));
  } catch (error) {
    lock.release();
    throw error;
  }
  const state = new SenderState(options, journal);
  for (const pending of journal.pending.values()) {
    state
      .track(pending, true)
      .catch((error) => options.log.warn('resumed-transaction-failed', { nonce: pending.nonce, reason: error.message }));
  }
  return {
    address: signer.address,
    send: (call: ContractCall<ModuleName, never> | RawCall) => state.send(call),
    pendingCount: () => journal.pending.size,
    close() {
      if (state.closing.signal.aborted) return;
      state.closing.abort(closed(signer.address));
      journal.close();
      lock.release();
    },
  } as Sender;
}

class SenderState {
  readonly closing = new AbortController();
  readonly #options: SenderOptions;
  readonly #clock: Clock;
  readonly #journal: SenderJournal;
  readonly #tracked = new Map<number, Promise<Receipt>>();
  readonly #starting = new Map<string, { callHash: Hex; receipt: Promise<Receipt> }>();
  readonly #modules = new Map<string, ModuleName>();
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: SenderOptions, journal: SenderJournal) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#journal = journal;
    for (const [name, entry] of Object.entries(options.client.manifest.modules)) {
      if (Object.hasOwn(abis, name)) this.#modules.set(entry.address.toLowerCase(), name as ModuleName);
    }
  }

  async send(call: ContractCall<ModuleName, never> | RawCall): Promise<Receipt> {
    const plain =
      'contract' in call
        ? encodeModuleCall(this.#options.client, call as never)
        : { to: call.to, data: call.data ?? '0x', value: call.value ?? 0n };
    const doing = 'contract' in call ? `${call.contract}.${String(call.functionName)}` : `A call of ${call.to ?? 'a new contract'}`;
    const { key } = call;
    if (key === undefined) return this.#submit(plain, undefined, doing);
    if (key === '' || key.length > KEY_LENGTH_MAX) {
      const message = `Got an idempotency key of ${key.length} characters, expected 1 to ${KEY_LENGTH_MAX}`;
      throw new MillraceError('bad-idempotency-key', { actor: 'bug', message, values: { length: key.length } });
    }
    const callHash = callHashOf(plain);
    const starting = this.#starting.get(key);
    const pending = [...this.#journal.pending.values()].find((entry) => entry.key === key);
    const done = this.#journal.done.get(key);
    const known = starting?.callHash ?? pending?.callHash ?? done?.callHash;
    if (known !== undefined && known !== callHash) throw idempotencyConflict(key);
    if (starting !== undefined) return starting.receipt;
    const receipt =
      pending !== undefined ? this.track(pending, true) : done !== undefined ? this.#repeat(key, done) : this.#submit(plain, key, doing);
    this.#starting.set(key, { callHash, receipt });
    return receipt.finally(() => this.#starting.delete(key));
  }

  /** Waits until a journalled transaction is settled; one wait per nonce. */
  track(pending: PendingTransaction, resumed: boolean): Promise<Receipt> {
    let wait = this.#tracked.get(pending.nonce);
    if (wait === undefined) {
      wait = this.#settle(pending, resumed).finally(() => this.#tracked.delete(pending.nonce));
      this.#tracked.set(pending.nonce, wait);
    }
    return wait;
  }

  /** One after another: simulate, take a nonce, journal, broadcast. The wait for the receipt is outside, so sends overlap. */
  async #submit(call: PlainCall, key: string | undefined, doing: string): Promise<Receipt> {
    for (let attempt = 1; ; attempt += 1) {
      const turn = this.#queue.then(() => this.#broadcastNew(call, key, doing));
      this.#queue = turn.catch(() => {});
      const pending = await turn;
      try {
        return await this.track(pending, false);
      } catch (error) {
        // What a call has to do may grow between simulation and block, as at a period's start. It had no effect: once more, with what it needs now.
        if (!(error instanceof MillraceError) || error.code !== 'out-of-gas' || attempt === GAS_ATTEMPTS) throw error;
        this.#options.log.info('gas-estimated-again', { doing, nonce: pending.nonce });
      }
    }
  }

  async #broadcastNew(call: PlainCall, key: string | undefined, doing: string): Promise<PendingTransaction> {
    const { client, signer, log } = this.#options;
    this.closing.signal.throwIfAborted();
    try {
      // With transactions of ours on the way, what they will have done counts too.
      const blockTag = this.#journal.pending.size > 0 ? 'pending' : 'latest';
      const gas = await estimateGas(client.public, { from: signer.address, call, blockTag, doing });
      const fees = limitFees(await chooseFees(client.public, this.#tipless()), this.#feePerGasMax());
      for (let attempt = 0; ; attempt += 1) {
        const nonce = Math.max(await this.#transactionCount(), this.#journal.nextNonce);
        const block = Number(await client.public.getBlockNumber({ cacheTime: 0 }));
        const version = await signCall(signer, call, { chainId: client.chainId, nonce, gas, fees });
        this.#append({ kind: 'sent', nonce, key, callHash: callHashOf(call), ...version, block });
        const pending = this.#journal.pending.get(nonce) as PendingTransaction;
        const outcome = await broadcast(client.public, version, log);
        if (outcome === 'accepted' || outcome === 'unknown') return pending;
        const nonceUsed = outcome === 'nonce-too-low';
        this.#append({ kind: 'void', nonce, used: nonceUsed });
        if (!nonceUsed) throw outcome;
        if (attempt === 4) throw nonceTaken(signer.address, nonce, undefined);
        log.warn('nonce-taken-elsewhere', { address: signer.address, nonce });
      }
    } catch (error) {
      throw chainError(error, doing, { address: signer.address });
    }
  }

  async #settle(pending: PendingTransaction, resumed: boolean): Promise<Receipt> {
    const { client, log, stuckAfterMs = 45_000, confirmations = 1 } = this.#options;
    const { nonce } = pending;
    if (resumed) for (const version of pending.versions) await broadcast(client.public, version, log);
    let lastActionMs = this.#clock.nowMs();
    let takenSeen = 0;
    for (let delayMs = 15; ; delayMs = Math.min(2 * delayMs, client.pollIntervalMs())) {
      try {
        const receipt = await findReceipt(
          client.public,
          pending.versions.map(({ hash }) => hash),
        );
        this.closing.signal.throwIfAborted();
        if (receipt !== null) {
          if (confirmations === 1 || (await this.#depthOf(receipt)) >= confirmations) return await this.#conclude(pending, receipt);
        } else if ((await this.#transactionCount()) > nonce) {
          // Seen three times, so that one lagging node behind a load balancer does not mislead us.
          takenSeen += 1;
          if (takenSeen >= 3) return await this.#concludeTaken(pending);
        } else if (this.#clock.nowMs() - lastActionMs >= stuckAfterMs) {
          lastActionMs = this.#clock.nowMs();
          await this.#unstick(pending);
        }
      } catch (error) {
        const failure = chainError(error, 'Waiting for a receipt', { nonce });
        if (failure.code !== 'chain-unreachable' && failure.code !== 'chain-refused') throw failure;
        log.warn('receipt-wait-failed', { nonce, reason: failure.message });
      }
      await this.#clock.sleep(delayMs, this.closing.signal);
    }
  }

  /** Sends again what nodes may have forgotten, and replaces the transaction by one with a higher fee. */
  async #unstick(pending: PendingTransaction): Promise<void> {
    const { client, signer, log } = this.#options;
    const count = await this.#transactionCount();
    for (let nonce = count; nonce < pending.nonce; nonce += 1) {
      const raw = this.#journal.recentRaw.get(nonce);
      if (raw !== undefined) await broadcast(client.public, { hash: keccak256(raw), raw }, log);
    }
    const last = pending.versions.at(-1) as SignedTransaction;
    await broadcast(client.public, last, log);
    // On the embedded chain nobody bids; behind an earlier nonce that is missing, a higher fee changes nothing.
    if (this.#tipless() || count < pending.nonce) return;
    const old = parseTransaction(last.raw);
    const fees = bumpFees(feesOf(old), await chooseFees(client.public, false));
    if (perGas(fees) > this.#feePerGasMax()) {
      log.warn('fee-limit-reached', { nonce: pending.nonce, feePerGas: perGas(fees), limit: this.#feePerGasMax() });
      return;
    }
    const { nonce, key, callHash, block } = pending;
    const call: PlainCall = { to: old.to ?? null, data: old.data ?? '0x', value: old.value ?? 0n };
    const version = await signCall(signer, call, { chainId: client.chainId, nonce, gas: old.gas ?? 21_000n, fees });
    this.#append({ kind: 'sent', nonce, key, callHash, ...version, block });
    log.info('fee-raised', { nonce, hash: version.hash, feePerGas: perGas(fees) });
    await broadcast(client.public, version, log);
  }

  async #conclude(pending: PendingTransaction, receipt: RpcReceipt): Promise<Receipt> {
    const { client, signer } = this.#options;
    const { nonce, key, callHash } = pending;
    this.closing.signal.throwIfAborted();
    if (receipt.status !== '0x1') {
      this.#append({ kind: 'void', nonce, used: true });
      throw await revertReason(client.public, signer.address, (pending.versions[0] as SignedTransaction).raw, receipt);
    }
    this.#append({ kind: 'done', nonce, key, callHash, hash: receipt.transactionHash });
    return this.#toReceipt(receipt);
  }

  /** The nonce was used by a transaction that this sender did not make: the same call counts as ours, another one is reported. */
  async #concludeTaken(pending: PendingTransaction): Promise<Receipt> {
    const { client, signer, log } = this.#options;
    const { nonce } = pending;
    const taker = await this.#findTaker(pending);
    const same = taker !== undefined && callHashOf({ to: taker.to, data: taker.input, value: taker.value }) === pending.callHash;
    log.warn('nonce-taken-elsewhere', { address: signer.address, nonce, hash: taker?.hash, sameCall: same });
    const receipt = same ? await findReceipt(client.public, [taker.hash]) : null;
    if (receipt !== null) return this.#conclude(pending, receipt);
    this.#append({ kind: 'void', nonce, used: true });
    throw nonceTaken(signer.address, nonce, taker?.hash);
  }

  async #findTaker(pending: PendingTransaction): Promise<{ to: Address | null; input: Hex; value: bigint; hash: Hex } | undefined> {
    const { client, signer } = this.#options;
    const head = await client.public.getBlockNumber({ cacheTime: 0 });
    const from = BigInt(pending.block);
    for (let blockNumber = from; blockNumber <= head && blockNumber <= from + SEARCH_BLOCKS_MAX; blockNumber += 1n) {
      const { transactions } = await client.public.getBlock({ blockNumber, includeTransactions: true });
      const taker = transactions.find((found) => found.nonce === pending.nonce && isAddressEqual(found.from, signer.address));
      if (taker !== undefined) return taker;
    }
    return undefined;
  }

  /** The receipt of a keyed effect that is done; sent again in the rare case that a reorganisation lost it. */
  async #repeat(key: string, done: DoneTransaction): Promise<Receipt> {
    const { client, log } = this.#options;
    const raw = this.#journal.recentRaw.get(done.nonce);
    for (let attempt = 0; attempt < REPEAT_ATTEMPTS; attempt += 1) {
      const receipt = await findReceipt(client.public, [done.hash]).catch((error) =>
        Promise.reject(chainError(error, 'Reading a receipt')),
      );
      if (receipt !== null) return this.#toReceipt(receipt);
      if (raw !== undefined) await broadcast(client.public, { hash: done.hash, raw }, log);
      await this.#clock.sleep(client.pollIntervalMs(), this.closing.signal);
    }
    throw new MillraceError('receipt-lost', {
      actor: 'chain',
      message: `Transaction ${done.hash} was done, but the chain no longer shows its receipt`,
      values: { hash: done.hash, nonce: done.nonce, key },
      hint: 'The node may have dropped old receipts; look it up in another node.',
    });
  }

  /** A closed sender's journal belongs to the next one. */
  #append(entry: JournalEntry): void {
    this.closing.signal.throwIfAborted();
    this.#journal.append(entry);
  }

  async #transactionCount(): Promise<number> {
    const { client, signer } = this.#options;
    return client.public.getTransactionCount({ address: signer.address, blockTag: 'latest' });
  }

  async #depthOf(receipt: RpcReceipt): Promise<number> {
    const head = await this.#options.client.public.getBlockNumber({ cacheTime: 0 });
    return Number(head - BigInt(receipt.blockNumber)) + 1;
  }

  #toReceipt(receipt: RpcReceipt): Receipt {
    const events = receipt.logs.flatMap((log) => {
      const module = this.#modules.get(log.address.toLowerCase());
      const event = module === undefined ? undefined : toChainEvent(module, log);
      return event === undefined ? [] : [event];
    });
    const { transactionHash: hash, blockHash, contractAddress } = receipt;
    return { hash, blockNumber: BigInt(receipt.blockNumber), blockHash, gasUsed: BigInt(receipt.gasUsed), contractAddress, events };
  }

  #feePerGasMax(): bigint {
    return this.#options.feePerGasMax ?? FEE_PER_GAS_MAX;
  }

  #tipless(): boolean {
    return this.#options.client.manifest.randomness.source === 'trusted-operator';
  }
}

function lockKey(folder: string, address: Address): FolderLock {
  try {
    return lockFolder(folder);
  } catch (error) {
    if (!(error instanceof MillraceError) || error.code !== 'folder-busy') throw error;
    throw new MillraceError('key-in-use', {
      actor: 'caller',
      message: `Process ${error.values.holderPid} sends transactions with key ${address}; one key has one sender`,
      values: { address, pid: error.values.holderPid },
      hint: 'Stop that process, or use another key.',
      cause: error,
    });
  }
}

function nonceTaken(address: Address, nonce: number, hash: Hex | undefined): MillraceError {
  return new MillraceError('nonce-taken', {
    actor: 'caller',
    message: `Nonce ${nonce} of ${address} was used by ${hash ?? 'another transaction'}, which this sender did not make; the call was not sent`,
    values: { address, nonce, hash },
    hint: 'Something else uses this key. If the call is still wanted, send it again.',
  });
}

function idempotencyConflict(key: string): MillraceError {
  return new MillraceError('idempotency-conflict', {
    actor: 'bug',
    message: `Idempotency key "${key}" was used for another call`,
    values: { key },
    hint: 'A key names one effect; use another key for another call.',
  });
}

function closed(address: Address): MillraceError {
  return new MillraceError('sender-closed', {
    actor: 'caller',
    message: `The sender of ${address} is closed`,
    values: { address },
    hint: 'What was sent is taken up when a sender of this key is opened again.',
  });
}
