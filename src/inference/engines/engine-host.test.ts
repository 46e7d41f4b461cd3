import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine } from './engine.ts';
import type { EngineLimits } from './engine-host.ts';
import { findIsolation } from './engine-sandbox.ts';
import { createObedientEngine } from './engine-socket.cases.ts';
import { shareEngine } from './engine-socket.ts';

const open: Engine[] = [];
after(() => Promise.all(open.map((engine) => engine.close())));

function start(limits: Partial<EngineLimits> = {}): Engine {
  const engine = createObedientEngine(limits);
  open.push(engine);
  return engine;
}

/** What the kernel says to a command. */
async function order(engine: Engine, texts: string[], signal = new AbortController().signal): Promise<string> {
  const { vectors } = await engine.run({ task: 'embedding', texts }, { signal });
  return Buffer.from(vectors[0] as Float32Array).toString();
}

describe('an engine in its process', () => {
  it('is cold, then warm, gives parts as they come, and sees nothing of our environment', async () => {
    process.env.MILLRACE_SECRET_FOR_TEST = 'x';
    const engine = start();
    assert.equal(engine.state(), 'cold');
    const words: string[] = [];
    await engine.run(
      { task: 'embedding', texts: ['stream', 'one two three'] },
      { signal: new AbortController().signal, onPart: (part) => words.push(part.type === 'text' ? part.text : '') },
    );
    assert.equal(engine.state(), 'warm');
    assert.deepEqual(words, ['one', 'two', 'three']);
    const names = (await order(engine, ['environment'])).split(' ');
    assert.deepEqual(
      names.filter(
        (name) => !['HOME', 'LANG', 'ORT_DISABLE_TELEMETRY', 'PATH', 'PWD', 'TZ'].includes(name) && !name.startsWith('NODE_CHANNEL_'),
      ),
      [],
    );
  });

  it('has no network where the machine lets us take it away', async (context) => {
    if (findIsolation() === 'process') return context.skip('neither bubblewrap nor a network namespace is allowed on this machine');
    assert.match(await order(start(), ['network']), /^(ENETUNREACH|EACCES|EPERM)$/);
  });

  it('is killed when it takes too long, and comes back for the next request', async () => {
    const engine = start({ requestTimeoutMs: 1_500 });
    await engine.warm();
    await assert.rejects(order(engine, ['spin']), { code: 'engine-timeout' });
    assert.match(await order(engine, ['name']), /^[0-9a-f-]{36}$/);
  });

  it('that takes too much memory ends with a typed error, and this process does not grow', async () => {
    const before = process.memoryUsage().rss;
    await assert.rejects(order(start({ memoryBytesMax: 128 << 20 }), ['hoard']), { code: 'engine-memory' });
    assert.ok(process.memoryUsage().rss - before < 100 << 20);
  });

  it('that dies tells so to who waits, and is started again after a pause', async () => {
    const engine = start();
    await assert.rejects(order(engine, ['die']), { code: 'engine-failed' });
    assert.equal(engine.state(), 'failed');
    await assert.rejects(order(engine, ['name']), { code: 'engine-failed' });
    while (engine.state() === 'failed') await sleep(50);
    assert.match(await order(engine, ['name']), /^[0-9a-f-]{36}$/);
  });

  it('takes no more requests than its queue holds, and none of another task or size', async () => {
    const engine = start({ queueMax: 2 });
    const waits = Array.from({ length: 3 }, () => order(engine, ['wait', '300']));
    await assert.rejects(order(engine, ['wait', '1']), { code: 'engine-busy' });
    await Promise.all(waits);
    await assert.rejects(engine.run({ task: 'ocr', image: new Uint8Array(1) }, { signal: new AbortController().signal }), {
      code: 'wrong-task',
    });
    await assert.rejects(order(engine, ['x'.repeat(100_001)]), { code: 'text-too-long' });
    await assert.rejects(
      order(
        engine,
        Array.from({ length: 257 }, () => 'x'),
      ),
      { code: 'text-too-long' },
    );
  });

  it('lets a caller leave, while waiting and at work, and kills work that does not listen', async () => {
    const engine = start({ abortGraceMs: 300 });
    const name = await order(engine, ['name']);
    const first = new AbortController();
    const working = order(engine, ['wait', '60000'], first.signal);
    const second = new AbortController();
    const waiting = order(engine, ['name'], second.signal);
    second.abort();
    await assert.rejects(waiting, { code: 'request-aborted' });
    first.abort();
    await assert.rejects(working);
    assert.equal(await order(engine, ['name']), name);
    const third = new AbortController();
    const spinning = order(engine, ['spin'], third.signal);
    third.abort();
    await assert.rejects(spinning, { code: 'request-aborted' });
  });

  it('is shared: who comes second is served by the first, and takes over when the first has gone', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'millrace-engines-test-'));
    const [one, other] = [shareEngine(start(), folder), shareEngine(start(), folder)];
    open.push(one, other);
    const name = await order(one, ['name']);
    assert.equal(await order(other, ['name']), name);
    await assert.rejects(order(other, ['die']), { code: 'engine-failed' });
    const left = new AbortController();
    setTimeout(() => left.abort(), 50);
    await assert.rejects(order(other, ['wait', '60000'], left.signal));
    await one.close();
    assert.notEqual(await order(other, ['name']), name);
    rmSync(folder, { recursive: true, force: true });
  });

  it('is shared between processes; when its holder is killed in the middle of a request, that request is answered all the same', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'millrace-engines-test-'));
    const holder = spawn(process.execPath, [join(import.meta.dirname, 'engine-socket.cases.ts'), folder], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(createInterface({ input: holder.stdout }), 'line')) as [string];
    const engine = shareEngine(start(), folder);
    open.push(engine);
    assert.equal(await order(engine, ['name']), line);
    const slow = order(engine, ['wait', '400']);
    await sleep(100);
    holder.kill('SIGKILL');
    await slow;
    assert.notEqual(await order(engine, ['name']), line);
    rmSync(folder, { recursive: true, force: true });
  });
});
