import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SandboxExecutor } from '../../host/index.ts';
import { silentLogger } from '../../log.ts';
import { TEST_DEVICE, until } from './lease-fixture.ts';
import { openRental } from './rental.ts';

const folder = mkdtempSync(join(tmpdir(), 'millrace-rental-'));
const executor = new SandboxExecutor({ imageFolder: join(folder, 'images') });
after(async () => {
  await executor.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a renter that kills its own sandbox finds another, its command started again, and probes answered', async (context) => {
  const report = await executor.inspect();
  if (!report.takesForeign) return context.skip(`no sandbox for strangers here: ${report.missing.map(({ what }) => what).join('; ')}`);
  const main = { argv: ['/bin/sh', '-c', 'echo begun; sleep 63'] };
  const place = join(folder, 'one');
  const rental = openRental({ executor, resources: TEST_DEVICE.resources, folder: place, main, log: silentLogger });
  const printed = async () => {
    let text = '';
    for await (const bytes of rental.output.read({ follow: false, signal: new AbortController().signal }))
      text += Buffer.from(bytes).toString();
    return text;
  };
  try {
    assert.equal(await rental.probe(), true);
    await until('its command has begun', async () => (await printed()).startsWith('begun\n'));
    const run = await rental.run({ argv: ['/bin/sh', '-c', 'kill -9 -1'] });
    for (const stream of [run.stdout, run.stderr]) stream.resume();
    assert.equal(await run.ended, undefined);
    assert.equal(await rental.probe(), true);
    await until('its command has begun again', async () => (await printed()).split('begun\n').length === 3);
    assert.equal(rental.status().restarts, 1);
    // A stopped agent answers nothing: its sandbox is made anew too.
    const stopping = await rental.run({ argv: ['/bin/sh', '-c', 'kill -STOP 2'] });
    for (const stream of [stopping.stdout, stopping.stderr]) stream.resume();
    await until('the agent is stopped and replaced', async () => (await rental.probe()) && rental.status().restarts === 2);
  } finally {
    await rental.close();
  }
  assert.equal(existsSync(place), false);
});

test('what a command printed is kept for the last mebibyte, and followed as it comes', async () => {
  const { OutputLog } = await import('./output-log.ts');
  const log = new OutputLog();
  log.write(Buffer.alloc(1 << 20, 'a'));
  log.write(Buffer.from('end'));
  const stop = new AbortController();
  let text = '';
  const following = (async () => {
    for await (const bytes of log.read({ follow: true, signal: stop.signal })) text += Buffer.from(bytes).toString();
  })();
  await until('what is kept is read', () => text.endsWith('end'));
  assert.equal(text.length, 1 << 20);
  log.write(Buffer.from(' and more'));
  await until('what comes is read', () => text.endsWith(' and more'));
  stop.abort();
  await following;
});
