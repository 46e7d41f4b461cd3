import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { locateAnvil } from './anvil.ts';
import { allowedMethods, hex, pinBlock, ruleOf } from './rpc-policy.ts';
import { startChainSupervisor } from './supervisor.ts';
import { callRpc, SINK, sendForReceipt, signTransfer, temporaryFolder, testAccount, testChain } from './supervisor-fixture.ts';

/** Everything that anvil 1.7 knows (crates/anvil/core/src/eth/mod.rs, with aliases), and what other nodes have besides. */
const FOREIGN_METHODS = `
anvil_addBalance anvil_addCapability anvil_autoImpersonateAccount anvil_dealERC20 anvil_dropAllTransactions anvil_dropTransaction
anvil_dumpState anvil_enableTraces anvil_getAutomine anvil_getBlobByHash anvil_getBlobByVersionedHash anvil_getBlobsByBlockId
anvil_getBlobsByTransactionHash anvil_getGenesisTime anvil_getIntervalMining anvil_impersonateAccount anvil_impersonateSignature
anvil_increaseTime anvil_loadState anvil_metadata anvil_mine anvil_mine_detailed anvil_nodeInfo anvil_removeBlockTimestampInterval
anvil_removePoolTransactions anvil_reorg anvil_reset anvil_revert anvil_rollback anvil_setAutomine anvil_setBalance
anvil_setBlockGasLimit anvil_setBlockTimestampInterval anvil_setChainId anvil_setCode anvil_setCoinbase anvil_setERC20Allowance
anvil_setERC20Balance anvil_setExecutor anvil_setFeeAmmLiquidity anvil_setFeeToken anvil_setIntervalMining anvil_setLoggingEnabled
anvil_setMinGasPrice anvil_setNextBlockBaseFeePerGas anvil_setNextBlockTimestamp anvil_setNonce anvil_setRpcUrl anvil_setStorageAt
anvil_setTime anvil_setValidatorSignature anvil_snapshot anvil_stopImpersonatingAccount evm_increaseTime evm_mine evm_mine_detailed
evm_revert evm_setAccountNonce evm_setAutomine evm_setBlockGasLimit evm_setIntervalMining evm_setNextBlockTimestamp evm_setTime
evm_snapshot hardhat_autoImpersonateAccount hardhat_dropAllTransactions hardhat_dropTransaction hardhat_getAutomine
hardhat_impersonateAccount hardhat_metadata hardhat_mine hardhat_reset hardhat_setBalance hardhat_setCode hardhat_setCoinbase
hardhat_setLoggingEnabled hardhat_setMinGasPrice hardhat_setNextBlockBaseFeePerGas hardhat_setNonce hardhat_setPrevRandao
hardhat_setStorageAt hardhat_stopImpersonatingAccount tenderly_addBalance tenderly_setBalance personal_sign personal_unlockAccount
personal_sendTransaction eth_sign eth_signTransaction eth_signTypedData eth_signTypedData_v3 eth_signTypedData_v4 eth_sendTransaction
eth_sendTransactionSync eth_sendUnsignedTransaction eth_sendRawTransactionConditional eth_requestAccounts eth_fillTransaction
eth_newFilter eth_newBlockFilter eth_newPendingTransactionFilter eth_getFilterChanges eth_getFilterLogs eth_uninstallFilter
eth_subscribe eth_unsubscribe eth_getWork eth_submitWork eth_submitHashrate eth_mining eth_hashrate eth_coinbase eth_networkId
eth_protocolVersion eth_config eth_getAccount eth_getAccountInfo eth_getRawTransactionByHash eth_getRawTransactionByBlockHashAndIndex
eth_getRawTransactionByBlockNumberAndIndex eth_getTransactionBySenderAndNonce eth_callMany eth_getStorageValues
eth_getBlockAccessListRaw eth_pendingTransactions debug_getRawTransaction debug_codeByHash debug_dbGet debug_setHead debug_traceCall
debug_traceBlockByNumber debug_traceBlockByHash trace_transaction trace_block trace_filter trace_replayBlockTransactions
txpool_status txpool_inspect txpool_content txpool_contentFrom wallet_getCapabilities wallet_sendTransaction wallet_sendPreparedCalls
erigon_getHeaderByNumber ots_getApiLevel ots_getInternalOperations ots_hasCode ots_traceTransaction ots_getBlockDetails
ots_getBlockTransactions ots_searchTransactionsBefore ots_getTransactionBySenderAndNonce ots_getContractCreator admin_addPeer
miner_start engine_newPayloadV4 constructor __proto__ toString
`
  .trim()
  .split(/\s+/);

/** Whatever in the binary looks like a method name, so that a method of another release is tried as well. */
function methodsInBinary(): string[] {
  const text = readFileSync(locateAnvil(), 'latin1');
  return text.match(/\b(?:anvil|evm|hardhat|tenderly|eth|debug|trace|ots|erigon|txpool|personal|wallet|web3|net)_[a-zA-Z]{3,50}/g) ?? [];
}

test('every method of anvil that is not on the allow-list is refused by the running chain, with the reason', async () => {
  const allowed = new Set(allowedMethods());
  const names = [...new Set([...FOREIGN_METHODS, ...methodsInBinary()])].filter((name) => !allowed.has(name));
  const disguised = ['ANVIL_SETBALANCE', 'anvil_setBalance ', ' anvil_setBalance', 'eth_call\0', 'eth_sendtransaction', ''];
  const chain = await startChainSupervisor(testChain(temporaryFolder()));
  try {
    const before = chain.head();
    const account = testAccount(0).address;
    for (const name of [...names, ...disguised]) {
      for (const params of [[], [SINK, '0xffff'], [{ from: account, to: SINK, value: '0x1' }]]) {
        const { result, error } = await callRpc(chain.rpcUrl, name, params);
        assert.equal(result, undefined, name);
        assert.equal(error?.code, -32601, name);
        assert.match(error?.message as string, / is refused: ./, name);
      }
    }
    assert.ok(names.length > 150, `${names.length} methods tried`);
    assert.deepEqual(chain.head(), before);
    assert.equal((await callRpc(chain.rpcUrl, 'eth_getBalance', [SINK, 'latest'])).result, '0x0');
  } finally {
    await chain.stop();
  }
});

test('no account is unlocked, and every allowed method is answered by the chain', async () => {
  const chain = await startChainSupervisor(testChain(temporaryFolder()));
  try {
    assert.deepEqual((await callRpc(chain.rpcUrl, 'eth_accounts')).result, []);
    for (const method of allowedMethods()) {
      const { error } = await callRpc(chain.rpcUrl, method, []);
      assert.notEqual(error?.code, -32601, method);
    }
    for (const [method, params, expected] of [
      ['eth_chainId', [], '0x7a69'],
      ['net_version', [], '31337'],
      ['eth_maxPriorityFeePerGas', [], '0x0'],
      ['eth_getBlockByNumber', ['0x5', false], null],
      ['eth_getTransactionReceipt', [`0x${'00'.repeat(32)}`], null],
    ] as const) {
      assert.deepEqual((await callRpc(chain.rpcUrl, method, [...params])).result, expected, method);
    }
    assert.match((await callRpc(chain.rpcUrl, 'eth_getBalance', [SINK, '0x5'])).error?.message as string, /header not found/);
  } finally {
    await chain.stop();
  }
});

test('a transaction is traced by built-in tracers, and never by a program of the caller', async () => {
  const chain = await startChainSupervisor(testChain(temporaryFolder()));
  try {
    const { transactionHash } = await sendForReceipt(chain.rpcUrl, await signTransfer(testAccount(0), 0));
    const traceBy = (tracer: unknown) => callRpc<{ to: string }>(chain.rpcUrl, 'debug_traceTransaction', [transactionHash, { tracer }]);
    assert.equal((await traceBy('callTracer')).result?.to, SINK);
    for (const tracer of ['{result: () => { for (;;); }, fault: () => 0}', {}, 'muxTracer']) {
      assert.match((await traceBy(tracer)).error?.message as string, /only built-in tracers/);
    }
  } finally {
    await chain.stop();
  }
});

test('the reason names the way that is open', () => {
  const reasonOf = (method: string) => (ruleOf(method) as { reason: string }).reason;
  assert.match(reasonOf('evm_increaseTime'), /dev warp/);
  assert.match(reasonOf('eth_sendTransaction'), /eth_sendRawTransaction/);
  assert.match(reasonOf('eth_newFilter'), /eth_getLogs/);
  assert.match(reasonOf('txpool_content'), /not exposed/);
});

test('no way of naming a block reaches one above the newest complete block', () => {
  fc.assert(
    fc.property(
      fc.nat(1_000_000),
      fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 70n }), fc.anything(), fc.constantFrom('pending', 'latest', 'safe')),
      (head, tag) => {
        const pinned = pinBlock(typeof tag === 'bigint' ? hex(tag) : tag, head);
        if (typeof pinned === 'string' && pinned !== 'future' && pinned.length < 66) assert.ok(BigInt(pinned) <= BigInt(head));
      },
    ),
  );
  assert.equal(pinBlock({ blockNumber: '0x10' }, 15), 'future');
  assert.equal(pinBlock({ blockNumber: '0xf' }, 15), '0xf');
  assert.deepEqual(pinBlock({ blockHash: '0xab' }, 15), { blockHash: '0xab' });
});
