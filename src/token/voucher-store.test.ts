import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import type { Hex } from 'viem';
import { openVoucherStore, type ReceiverChannel } from './voucher-store.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-vouchers-'));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newPath = () => join(folder, `${++files}.ndjson`);
const word = (index: number): Hex => `0x${index.toString(16).padStart(64, '0')}`;
const address = `0x${'11'.repeat(20)}` as const;

function channelOf(index: number, max: bigint): ReceiverChannel {
  const config = {
    payer: address,
    payerAuthorizer: address,
    receiver: address,
    receiverAuthorizer: address,
    token: address,
    withdrawDelay: 900,
    salt: word(index),
  };
  const step = { id: '12345678n', max, amount: 1n, resource: word(0), repeats: 0 };
  const voucher = { channelId: word(index), maxClaimableAmount: max, signature: `0x${'00'.repeat(65)}` as Hex };
  return { key: word(index), config, voucher, charged: max, claimed: 0n, steps: [step], usedAt: 0 };
}

test('what was put is there again, the newest of each channel', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(5), fc.bigInt({ min: 0n, max: (1n << 128n) - 1n })), { maxLength: 40 }), async (puts) => {
      const path = newPath();
      const store = openVoucherStore(path);
      await Promise.all(puts.map(([index, max]) => store.put(channelOf(index, max))));
      const expected = [...store.all()];
      await store.close();
      const again = openVoucherStore(path);
      assert.deepEqual([...again.all()], expected);
      await again.close();
    }),
    { numRuns: 30 },
  );
});

test('a crash in the middle of a write costs the torn record only, wherever it is cut', async () => {
  const path = newPath();
  const store = openVoucherStore(path);
  await store.put(channelOf(1, 10n));
  const sound = statSync(path).size;
  await store.put(channelOf(1, 20n));
  await store.close();
  const whole = readFileSync(path);
  for (let size = sound; size < whole.length; size += 7) {
    writeFileSync(path, whole);
    truncateSync(path, size);
    const again = openVoucherStore(path);
    assert.equal(again.get(word(1))?.charged, 10n);
    await again.put(channelOf(1, 30n));
    await again.close();
    const third = openVoucherStore(path);
    assert.equal(third.get(word(1))?.charged, 30n);
    await third.close();
  }
});

test('damage before the last record is an error, never skipped', async () => {
  const path = newPath();
  const store = openVoucherStore(path);
  for (const max of [1n, 2n, 3n]) await store.put(channelOf(1, max));
  await store.close();
  const bytes = readFileSync(path);
  bytes[30] = (bytes[30] as number) ^ 1;
  writeFileSync(path, bytes);
  assert.throws(() => openVoucherStore(path), { code: 'voucher-journal-broken' });
});

test('a process that is killed has on the disk every voucher that it acknowledged', { timeout: 60_000 }, async () => {
  for (let round = 0; round < 3; round += 1) {
    const path = newPath();
    const code = `
      const { openVoucherStore } = await import(${JSON.stringify(new URL('./voucher-store.ts', import.meta.url).href)});
      const store = openVoucherStore(process.argv[1]);
      const channel = JSON.parse(process.argv[2]);
      for (let max = 1n; ; max += 1n) {
        await store.put({ ...channel, charged: max, claimed: 0n, steps: [], voucher: { ...channel.voucher, maxClaimableAmount: max } });
        process.stdout.write(max + '\\n');
      }`;
    const plain = JSON.stringify(channelOf(1, 0n), (_, value) => (typeof value === 'bigint' ? undefined : value));
    const node = spawn(
      process.execPath,
      [...process.execArgv.filter((flag) => !flag.startsWith('--test')), '--input-type=module', '-e', code, path, plain],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
        cwd: fileURLToPath(new URL('.', import.meta.url)),
      },
    );
    let printed = '';
    await new Promise<void>((resolve) => {
      node.stdout.on('data', (chunk) => {
        printed += chunk;
        if (printed.split('\n').length > 200 + 57 * round) node.kill('SIGKILL');
      });
      node.once('close', () => resolve());
    });
    const acknowledged = BigInt(printed.slice(0, printed.lastIndexOf('\n')).split('\n').at(-1) as string);
    const store = openVoucherStore(path);
    const found = store.get(word(1))?.charged ?? 0n;
    assert.ok(found >= acknowledged, `acknowledged ${acknowledged}, found ${found}`);
    await store.close();
  }
});
