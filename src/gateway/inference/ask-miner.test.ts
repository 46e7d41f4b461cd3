import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { createInferenceReceipts } from '../../inference/index.ts';
import { TEST_DOMAIN } from '../../inference/serving/miner-fixture.ts';
import { askMiner, type MinerAnswer } from './ask-miner.ts';
import type { KnownMiner } from './miner-directory.ts';

const EVENT = `data: {"choices":[{"delta":{"content":"${'grain '.repeat(100)}"}}]}\n\n`;
/** Streams for as long as somebody reads. */
const endless = createServer((request, response) => {
  request.resume();
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  const timer = setInterval(() => response.write(EVENT), 5);
  response.on('close', () => clearInterval(timer));
});
await new Promise<void>((resolve) => endless.listen(0, '127.0.0.1', resolve));
after(() => {
  endless.closeAllConnections();
  endless.close();
});

function ask(signal: AbortSignal): Promise<MinerAnswer> {
  const endpoint = `http://127.0.0.1:${(endless.address() as AddressInfo).port}`;
  const target = { miner: { entry: { endpoint } }, model: {}, codec: createInferenceReceipts(TEST_DOMAIN), keep: false };
  const limits = { firstPartMs: 60_000, idleMs: 60_000 };
  const request = {
    path: '/v1/chat/completions',
    query: '',
    headers: {},
    body: Buffer.from('{}'),
    requestHash: '0x' as const,
    stream: true,
  };
  return askMiner(
    { ...target, miner: target.miner as KnownMiner, model: target.model as never },
    { ...request, ...limits, signal },
    undefined,
  );
}

async function readPart(answer: MinerAnswer): Promise<number> {
  assert.ok(answer.parts);
  const { value } = await answer.parts.next();
  return (value as Buffer).length;
}

test('who leaves a stream early, by any way, has had what was read', async () => {
  const gone = new AbortController();
  const aborted = await ask(gone.signal);
  const read = (await readPart(aborted)) + (await readPart(aborted));
  gone.abort();
  assert.equal((await aborted.outcome).passedBytes, read);

  const left = await ask(new AbortController().signal);
  const readThere = await readPart(left);
  await left.parts?.return(undefined);
  assert.equal((await left.outcome).passedBytes, readThere);
  assert.ok(read >= EVENT.length && readThere > 0);
});
