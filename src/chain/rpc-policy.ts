/** How a method of the embedded chain's JSON-RPC is answered. */
export type RpcRule =
  /** Passed to anvil. `tagIndex`: which parameter names a block; it is pinned to the newest complete block. */
  | { kind: 'read'; tagIndex?: number }
  /** A read whose answer names the block that it is from; held back until that block is complete. */
  | { kind: 'inclusion' }
  /** Answered by the supervisor itself. */
  | { kind: 'own' }
  /** Refused, with the reason that the client is told. */
  | { kind: 'refused'; reason: string };

const READS: Record<string, number | undefined> = {
  web3_sha3: undefined,
  eth_getBalance: 1,
  eth_getCode: 1,
  eth_getStorageAt: 2,
  eth_getProof: 2,
  eth_call: 1,
  eth_estimateGas: 1,
  eth_createAccessList: 1,
  eth_simulateV1: 1,
  eth_feeHistory: 1,
  eth_blobBaseFee: undefined,
  eth_getBlockByHash: undefined,
  eth_getBlockByNumber: 0,
  eth_getBlockReceipts: 0,
  eth_getBlockTransactionCountByHash: undefined,
  eth_getBlockTransactionCountByNumber: 0,
  eth_getTransactionByBlockHashAndIndex: undefined,
  eth_getTransactionByBlockNumberAndIndex: 0,
  eth_getUncleByBlockHashAndIndex: undefined,
  eth_getUncleByBlockNumberAndIndex: 0,
  eth_getUncleCountByBlockHash: undefined,
  eth_getUncleCountByBlockNumber: 0,
};

const INCLUSIONS = ['eth_getTransactionByHash', 'eth_getTransactionReceipt', 'debug_traceTransaction'];

/** Tracers that are part of anvil. Any other name is a program of the caller's, which anvil would run without limits. */
export const TRACERS: ReadonlySet<unknown> = new Set([
  undefined,
  'callTracer',
  'flatCallTracer',
  'prestateTracer',
  '4byteTracer',
  'noopTracer',
]);

/** Methods that the supervisor answers itself. */
export const OWN_METHODS = [
  'eth_accounts',
  'eth_blockNumber',
  'eth_chainId',
  'eth_gasPrice',
  'eth_getLogs',
  'eth_getTransactionCount',
  'eth_maxPriorityFeePerGas',
  'eth_sendRawTransaction',
  'eth_sendRawTransactionSync',
  'eth_syncing',
  'net_listening',
  'net_peerCount',
  'net_version',
  'web3_clientVersion',
] as const;

/** A method that the supervisor answers itself. */
export type OwnMethod = (typeof OWN_METHODS)[number];

const RULES: ReadonlyMap<string, RpcRule> = new Map<string, RpcRule>([
  ...Object.entries(READS).map(([method, tagIndex]): [string, RpcRule] => [method, { kind: 'read', tagIndex }]),
  ...INCLUSIONS.map((method): [string, RpcRule] => [method, { kind: 'inclusion' }]),
  ...OWN_METHODS.map((method): [string, RpcRule] => [method, { kind: 'own' }]),
]);

const CHEAT = 'it changes the chain behind its rules; chain time moves by "millrace dev warp" only';
const UNLOCKED = 'this chain holds no keys; sign the transaction yourself and use eth_sendRawTransaction';
const POOL = 'the pending pool is not exposed; a transaction is seen once it is in a block';
const POLLING = 'method not supported; poll eth_getLogs and eth_blockNumber';

/** Why a family of methods is refused; the first pattern that fits is told. */
const REASONS: readonly [RegExp, string][] = [
  [/^(anvil|evm|hardhat|tenderly|ganache)_/, CHEAT],
  [/^debug_(set|chaindb|freeze|dbGet)/i, CHEAT],
  [/^(personal|wallet|account)_/, UNLOCKED],
  [/^eth_(send|sign|fillTransaction|resend)/, UNLOCKED],
  [/^(txpool)_|^eth_(pendingTransactions|newPendingTransactionFilter)/, POOL],
  [/^eth_(new|get|uninstall).*Filter|^eth_(un)?subscribe/, POLLING],
  [/^(miner|admin|engine|clique|erigon|parity)_|^eth_(mining|coinbase|hashrate|submit|getWork)/, 'the supervisor alone makes blocks'],
];

/**
 * What is done with a method: an allow-list, so that a method which a later anvil adds is refused until it was judged.
 * Names are compared exactly.
 */
export function ruleOf(method: string): RpcRule {
  const rule = RULES.get(method);
  if (rule !== undefined) return rule;
  const reason = REASONS.find(([pattern]) => pattern.test(method))?.[1] ?? 'method not supported';
  return { kind: 'refused', reason };
}

/** Every method that is answered, in alphabetical order. */
export function allowedMethods(): string[] {
  return [...RULES.keys()].sort();
}

/** A block as a client names it, pinned to a number, a hash object, or `future` when it is not there yet. */
export type PinnedBlock = string | { blockHash: unknown; requireCanonical?: unknown } | 'future';

/**
 * Pins a block tag to the newest complete block, so that a block in the making is never read. `latest`, `pending`, `safe` and
 * `finalized` are all that block: there are no reorganisations here.
 */
export function pinBlock(tag: unknown, headNumber: number): PinnedBlock {
  if (tag === undefined || tag === null || ['latest', 'pending', 'safe', 'finalized'].includes(tag as string)) return hex(headNumber);
  if (tag === 'earliest') return '0x0';
  if (typeof tag === 'object') {
    const named = tag as { blockHash?: unknown; blockNumber?: unknown; requireCanonical?: unknown };
    if (named.blockHash !== undefined) return { blockHash: named.blockHash };
    return pinBlock(named.blockNumber, headNumber);
  }
  if (typeof tag !== 'string' || !/^0x[0-9a-fA-F]{1,64}$/.test(tag)) return 'future';
  if (tag.length === 66) return tag;
  return BigInt(tag) > BigInt(headNumber) ? 'future' : hex(Number(BigInt(tag)));
}

/** A number as JSON-RPC quantity. */
export function hex(value: number | bigint): `0x${string}` {
  return `0x${value.toString(16)}`;
}
