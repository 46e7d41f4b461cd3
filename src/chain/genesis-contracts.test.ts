import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { keccak256, toHex } from 'viem';
import { silentLogger } from '../log.ts';
import { listForeignModules } from './build.ts';
import { connectChain, createChainTransport } from './client.ts';
import { deployNetwork } from './deploy.ts';
import { X402_CHANNELS, X402_DEPOSIT_COLLECTOR } from './genesis-contracts.ts';
import type { Manifest } from './manifest.ts';
import { developmentSigner } from './signer.ts';
import { type ChainSupervisorOptions, startChainSupervisor } from './supervisor.ts';
import { callRpc, SINK } from './supervisor-fixture.ts';

const deployer = developmentSigner(0, 'dev');

function chainOptions(feeBps: number): ChainSupervisorOptions {
  const folder = join(mkdtempSync(join(tmpdir(), 'millrace-genesis-')), 'chain');
  return { folder, accounts: [{ address: deployer.address, balance: 10n ** 24n }], channels: { deployer: deployer.address, feeBps } };
}

function deploy(rpcUrl: string): Promise<Manifest> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-genesis-'));
  const manifestPath = join(folder, 'network.json');
  return deployNetwork({ rpcUrl, name: 'test', profile: 'dev', signer: deployer, folder, manifestPath, embedded: true, log: silentLogger });
}

test('payment channels stand in the genesis block, for the token that is deployed later, and outlive snapshot and replay', async () => {
  const options = chainOptions(100);
  let chain = await startChainSupervisor(options);
  try {
    const manifest = await deploy(chain.rpcUrl);
    assert.equal(manifest.modules.channels?.address, X402_CHANNELS);
    const codeAt = async (address: string) => (await callRpc<`0x${string}`>(chain.rpcUrl, 'eth_getCode', [address, 'latest'])).result;
    const collector = await codeAt(X402_DEPOSIT_COLLECTOR);
    assert.ok(collector?.toLowerCase().includes(X402_CHANNELS.slice(2).toLowerCase()), 'the collector serves the channels');
    assert.equal((await callRpc(chain.rpcUrl, 'anvil_setCode', [X402_CHANNELS, '0x00'])).error?.code, -32601);
    for (const withSnapshot of [false, true]) {
      if (withSnapshot) await chain.snapshot();
      await chain.stop();
      chain = await startChainSupervisor(options);
      const client = await connectChain({ rpcUrl: chain.rpcUrl, manifest });
      assert.deepEqual(await listForeignModules(client), []);
      assert.equal(await client.read('channels', 'feeToken'), client.address('networkToken'));
      assert.equal(await client.read('channels', 'feeBps'), 100n);
      assert.equal(await codeAt(X402_DEPOSIT_COLLECTOR), collector);
      assert.equal(manifest.modules.channels.codeHash, keccak256((await codeAt(X402_CHANNELS)) ?? '0x'));
    }
  } finally {
    await chain.stop();
  }
});

test('channels of a genesis block that do not fit the network are left alone: another fee, or a deployer that sent something before', async () => {
  const dear = await startChainSupervisor(chainOptions(101));
  const late = await startChainSupervisor(chainOptions(100));
  try {
    const { account } = deployer;
    const raw = await account.signTransaction({
      type: 'eip1559',
      chainId: 31_337,
      nonce: 0,
      to: SINK,
      gas: 21_000n,
      maxFeePerGas: 10n ** 10n,
    });
    assert.ok((await callRpc(late.rpcUrl, 'eth_sendRawTransactionSync', [raw])).result);
    for (const { rpcUrl } of [dear, late]) {
      const manifest = await deploy(rpcUrl);
      const address = manifest.modules.channels?.address;
      assert.ok(address !== undefined && address !== X402_CHANNELS);
      const client = await connectChain({ rpcUrl, manifest });
      assert.equal(await client.read('channels', 'feeToken'), client.address('networkToken'));
      assert.equal(await client.read('registry', 'get', [toHex('channels', { size: 32 })]), address);
      assert.ok((await createChainTransport(rpcUrl).getCode({ address: X402_CHANNELS })) !== undefined);
    }
  } finally {
    await dear.stop();
    await late.stop();
  }
});
