import type { Hex } from 'viem';
import { MillraceError } from '../errors.ts';
import type { BlockMaker } from './block-maker.ts';
import { decodeSignedTransaction } from './raw-transaction.ts';
import { hex, type OwnMethod, pinBlock, ruleOf, TRACERS } from './rpc-policy.ts';
import { RPC_CODES, type RpcHandler } from './rpc-server.ts';

/** What the public methods are answered from. */
export interface ChainRpcOptions {
  maker: BlockMaker;
  chainId: number;
  gasLimit: bigint;
  clientVersion: string;
}

/** Answers one of the supervisor's own methods. */
type OwnAnswer = (params: unknown[], options: ChainRpcOptions) => Promise<unknown> | unknown;

const RECEIPT_TIMEOUT_MS_MAX = 60_000;
const RECEIPT_TIMEOUT_MS = 20_000;
const ADDRESS = /^0x[0-9a-fA-F]{40}$/;
/** Methods whose answer is null, not an error, for a block that does not exist (yet). */
const NULL_WHEN_ABSENT = /^eth_get(Block|TransactionBy|Uncle)/;

const OWN_ANSWERS: Record<OwnMethod, OwnAnswer> = {
  eth_accounts: () => [],
  eth_blockNumber: (_, { maker }) => hex(maker.head().number),
  eth_chainId: (_, { chainId }) => hex(chainId),
  // Room for a few full blocks: at most an eighth more each.
  eth_gasPrice: (_, { maker }) => hex((maker.head().nextBaseFeePerGas * 3n) / 2n),
  eth_getLogs: ([filter], { maker }) => readLogs(filter, maker),
  eth_getTransactionCount: ([address, tag], { maker }) => readNonce(address, tag, maker),
  // A tip would only create an account for the block's random coinbase.
  eth_maxPriorityFeePerGas: () => '0x0',
  eth_sendRawTransaction: ([raw], options) => send(raw, options),
  eth_sendRawTransactionSync: ([raw, timeoutMs], options) => sendAndWait(raw, timeoutMs, options),
  eth_syncing: () => false,
  net_listening: () => true,
  net_peerCount: () => '0x0',
  net_version: (_, { chainId }) => String(chainId),
  web3_clientVersion: (_, { clientVersion }) => clientVersion,
};

/** The handler of the embedded chain's JSON-RPC: allow-listed methods, read at the newest complete block. */
export function createChainRpc(options: ChainRpcOptions): RpcHandler {
  return async (method, params) => {
    const rule = ruleOf(method);
    switch (rule.kind) {
      case 'refused':
        throw rpcError(RPC_CODES.methodNotFound, `${method} is refused: ${rule.reason}`);
      case 'own':
        return await OWN_ANSWERS[method as OwnMethod](params, options);
      case 'inclusion':
        return await readInclusion(method, params, options.maker);
      case 'read':
        return await readPinned(method, params, rule.tagIndex, options.maker);
    }
  };
}

async function readPinned(method: string, params: unknown[], tagIndex: number | undefined, maker: BlockMaker): Promise<unknown> {
  if (tagIndex === undefined) return await maker.read(method, params);
  const block = pinBlock(params[tagIndex], maker.head().number);
  if (block === 'future') {
    if (NULL_WHEN_ABSENT.test(method)) return null;
    throw rpcError(RPC_CODES.server, `header not found: got ${JSON.stringify(params[tagIndex])}, newest ${hex(maker.head().number)}`);
  }
  const pinned = [...params];
  while (pinned.length < tagIndex) pinned.push(null);
  pinned[tagIndex] = block;
  return await maker.read(method, pinned);
}

/** A transaction or receipt is shown only from a complete block; anvil's own pool is not shown. */
async function readInclusion(method: string, params: unknown[], maker: BlockMaker): Promise<unknown> {
  const found = (await maker.read('eth_getTransactionByHash', [params[0]])) as { blockNumber: Hex | null } | null;
  if (found?.blockNumber === null || found?.blockNumber === undefined) {
    if (method === 'debug_traceTransaction') throw rpcError(RPC_CODES.server, 'transaction not found');
    return null;
  }
  await maker.headReached(Number(found.blockNumber));
  const tracer = method === 'debug_traceTransaction' ? (params[1] as { tracer?: unknown } | undefined)?.tracer : undefined;
  if (!TRACERS.has(tracer)) throw rpcError(RPC_CODES.invalidParams, 'only built-in tracers are run');
  return method === 'eth_getTransactionByHash' ? found : await maker.read(method, params);
}

async function readLogs(filter: unknown, maker: BlockMaker): Promise<unknown> {
  if (typeof filter !== 'object' || filter === null) throw rpcError(RPC_CODES.invalidParams, 'expected a filter object');
  const { fromBlock, toBlock, blockHash, address, topics } = filter as Record<string, unknown>;
  if (blockHash !== undefined) return await maker.read('eth_getLogs', [{ blockHash, address, topics }]);
  const head = maker.head().number;
  const from = pinBlock(fromBlock, head);
  const to = pinBlock(toBlock, head);
  if (from === 'future') return [];
  return await maker.read('eth_getLogs', [{ fromBlock: from, toBlock: to === 'future' ? hex(head) : to, address, topics }]);
}

async function readNonce(address: unknown, tag: unknown, maker: BlockMaker): Promise<unknown> {
  if (typeof address !== 'string' || !ADDRESS.test(address)) throw rpcError(RPC_CODES.invalidParams, 'expected an address');
  if (tag === 'pending') return hex(await maker.nextNonce(address.toLowerCase() as Hex));
  return await readPinned('eth_getTransactionCount', [address, tag], 1, maker);
}

async function send(raw: unknown, { maker, chainId, gasLimit }: ChainRpcOptions): Promise<Hex> {
  const transaction = decodeSignedTransaction(raw, chainId, gasLimit);
  await maker.submit(transaction);
  return transaction.hash;
}

/** EIP-7966: answers with the receipt. */
async function sendAndWait(raw: unknown, timeoutMs: unknown, options: ChainRpcOptions): Promise<unknown> {
  const limitMs = typeof timeoutMs === 'number' && timeoutMs > 0 ? Math.min(timeoutMs, RECEIPT_TIMEOUT_MS_MAX) : RECEIPT_TIMEOUT_MS;
  const deadline = performance.now() + limitMs;
  const hash = await send(raw, options);
  for (let number = options.maker.head().number; ; number += 1) {
    const receipt = await readInclusion('eth_getTransactionReceipt', [hash], options.maker);
    if (receipt !== null) return receipt;
    const leftMs = deadline - performance.now();
    const reached = leftMs > 0 && (await within(options.maker.headReached(number + 1), leftMs));
    if (!reached) throw rpcError(4, `no receipt of ${hash} within ${limitMs} ms; the transaction still waits`);
  }
}

async function within(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  try {
    return await Promise.race([promise.then(() => true), timeout]);
  } finally {
    clearTimeout(timer);
  }
}

function rpcError(rpcCode: number, message: string): MillraceError {
  return new MillraceError('rpc-refused', { actor: 'caller', message, values: { rpcCode } });
}
