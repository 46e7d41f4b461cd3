import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { PaymentPayload, PaymentRequirements } from '@x402/core/types';
import { BatchSettlementEvmScheme as StockClientScheme } from '@x402/evm/batch-settlement/client';
import { BatchSettlementEvmScheme as StockFacilitatorScheme } from '@x402/evm/batch-settlement/facilitator';
import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import { type Abi, type Address, encodeFunctionData, type Hex, verifyTypedData } from 'viem';
import { X402_CHANNELS } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { readChannel } from './channels.ts';
import { startClaimer } from './voucher-claimer.ts';
import { type ChannelsNetwork, startChannelsNetwork, startPaidServer, TEST_INTERVAL } from './voucher-fixture.ts';

let network: ChannelsNetwork;
before(async () => {
  network = await startChannelsNetwork();
});
after(() => network?.stop());

interface ReadCall {
  address: Address;
  abi: readonly unknown[];
  functionName: string;
  args?: readonly unknown[];
}

/** Reads for the stock package. Its Multicall3 is on no embedded chain: the calls are made one by one. */
async function readForStock(call: ReadCall): Promise<unknown> {
  const { client } = network;
  if (call.functionName !== 'tryAggregate') return client.public.readContract({ ...call, abi: call.abi as Abi });
  const [, calls] = call.args as [boolean, { target: Address; callData: Hex }[]];
  return Promise.all(
    calls.map(async ({ target, callData }) => ({
      success: true,
      returnData: (await client.public.call({ to: target, data: callData })).data ?? '0x',
    })),
  );
}

/** The stock client of x402 v2, as its documentation shows it; `index` is its development key. */
function stockFetch(index: number): typeof fetch {
  const { account } = network.signer(index);
  const signer = {
    address: account.address,
    signTypedData: (message: unknown) => account.signTypedData?.(message as never) as Promise<Hex>,
    readContract: readForStock,
  };
  const client = new x402Client().register(`eip155:${network.client.chainId}`, new StockClientScheme(signer as never));
  client.setSpendControls(false);
  return wrapFetchWithPayment(fetch, client) as typeof fetch;
}

test('the stock x402 client opens a channel without gas, pays, is corrected after it lost its state, and is claimed on chain', async () => {
  const { client } = network;
  const token = client.address('stableToken');
  const receiver = await network.receiver();
  const server = await startPaidServer(receiver, { amount: 250n, token });
  try {
    const pay = stockFetch(3);
    for (const path of ['/a', '/b', '/c']) {
      const answer = await pay(`${server.url}${path}`);
      assert.equal(answer.status, 200, await answer.text());
    }
    const [channel] = [...receiver.channels()];
    assert.ok(channel !== undefined);
    assert.equal(channel.config.payer, network.signer(3).address);
    assert.equal(channel.charged, 750n);
    assert.equal((await readChannel(client, channel.key)).balance, 2_500n);
    // A new process of that client: its storage is gone.
    const again = await stockFetch(3)(`${server.url}/d`);
    assert.equal(again.status, 200);
    assert.equal(receiver.codec.channelId(channel.config), channel.key);
    assert.deepEqual(
      server.credits.map(({ charged, isRepeat }) => [charged, isRepeat]),
      [250n, 250n, 250n, 250n].map((charged) => [charged, false]),
    );
    const claimer = startClaimer({ client, receiver, sender: network.sender(1), intervalSeconds: TEST_INTERVAL });
    await claimer.claimNow();
    await claimer.stop();
    assert.equal((await readChannel(client, channel.key)).totalClaimed, 1_000n);
    assert.equal(await client.read('stableToken', 'balanceOf', [receiver.receiver]), 1_000n);
  } finally {
    await server.stop();
    await receiver.close();
  }
});

test('the stock facilitator verifies our payer’s vouchers, claims them and settles, also in the token that pays a fee', async () => {
  const { client } = network;
  const authorizer = network.signer(1);
  const payer = await network.payer(2);
  const facilitator = new StockFacilitatorScheme(stockSigner(1) as never, {
    address: authorizer.address,
    signTypedData: (message) => authorizer.signTypedData(message as never),
  });
  try {
    for (const [name, expected] of [
      ['stableToken', 5_000n],
      ['networkToken', 4_950n],
    ] as const) {
      const asset = client.address(name);
      const requirements: PaymentRequirements = {
        scheme: 'batch-settlement',
        network: `eip155:${client.chainId}`,
        amount: '5000',
        asset,
        payTo: authorizer.address,
        maxTimeoutSeconds: 60,
        extra: {
          receiverAuthorizer: authorizer.address,
          withdrawDelay: 900,
          name: 'whatever',
          version: '1',
          assetTransferMethod: 'eip3009',
        },
      };
      const demand = { x402Version: 2, resource: { url: 'https://stock.example/x' }, accepts: [requirements] };
      const required = Buffer.from(JSON.stringify(demand)).toString('base64');
      const payment = await payer.payment({ required, amountMax: 5_000n });
      const payload = JSON.parse(Buffer.from(payment.header, 'base64').toString()) as PaymentPayload;
      const verified = await facilitator.verify(payload, requirements);
      assert.equal(verified.isValid, true, JSON.stringify(verified));
      const overdrawn = structuredClone(payload) as typeof payload & { payload: { voucher: { maxClaimableAmount: string } } };
      overdrawn.payload.voucher.maxClaimableAmount = '5001';
      assert.equal((await facilitator.verify(overdrawn, requirements)).isValid, false);
      const { channelConfig, voucher } = payload.payload as {
        channelConfig: object;
        voucher: { maxClaimableAmount: string; signature: Hex };
      };
      const claims = [
        {
          voucher: { channel: channelConfig, maxClaimableAmount: voucher.maxClaimableAmount },
          signature: voucher.signature,
          totalClaimed: '5000',
        },
      ];
      const settle = (more: Record<string, unknown>) => facilitator.settle({ ...payload, payload: more }, requirements);
      const claimed = await settle({ type: 'claim', claims });
      assert.equal(claimed.success, true, JSON.stringify(claimed));
      const before = await client.read(name, 'balanceOf', [authorizer.address]);
      const settled = await settle({ type: 'settle', receiver: authorizer.address, token: asset });
      assert.equal(settled.success, true, JSON.stringify(settled));
      assert.equal(settled.amount, expected.toString());
      assert.equal(await client.read(name, 'balanceOf', [authorizer.address]), before + expected);
      payment.abandon();
    }
  } finally {
    await payer.close();
  }
});

/** What the stock facilitator signs and reads with; it sends by our sender. */
function stockSigner(index: number) {
  const { client } = network;
  return {
    getAddresses: () => [network.signer(index).address],
    readContract: readForStock,
    verifyTypedData: (call: Parameters<typeof verifyTypedData>[0]) => verifyTypedData(call),
    async writeContract({ address, abi, functionName, args }: ReadCall) {
      assert.equal(address, X402_CHANNELS);
      const data = encodeFunctionData({ abi: abi as Abi, functionName, args });
      return (await network.sender(index).send({ to: address, data })).hash;
    },
    sendTransaction: () => Promise.reject(new MillraceError('not-expected', { actor: 'bug', message: 'no such transaction is needed' })),
    waitForTransactionReceipt: ({ hash }: { hash: Hex }) => client.public.waitForTransactionReceipt({ hash, pollingInterval: 50 }),
    getCode: ({ address }: { address: Address }) => client.public.getCode({ address }),
  };
}
