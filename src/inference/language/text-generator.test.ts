import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { ChatRequest, ChatResult, Engine, EnginePart, SamplingParameters } from '../engines/engine.ts';
import { CHAT_BYTES_MAX, textOfChat } from './chat-text.ts';
import { createTextGenerator, TEXT_CARD } from './text-generator.ts';

const engine = createTextGenerator({ limits: { idleMs: 0 } });
after(() => engine.close());

test('the same request gets the same bits, alone or beside others, and another seed another answer', async () => {
  const alone = await ask('The whale', { seed: 1, outputTokensMax: 60 });
  const beside = await Promise.all([1, 2, 3, 1].map((seed) => ask('The whale', { seed, outputTokensMax: 60 })));
  assert.deepEqual(beside[0], alone);
  assert.deepEqual(beside[3], alone);
  assert.equal(new Set(beside.map(({ text }) => text)).size, 3);
  assert.equal(new Set(beside.map(({ outputDigest }) => outputDigest)).size, 3);
  assert.deepEqual(
    await ask('The whale', { temperature: 0, seed: 1, outputTokensMax: 30 }),
    await ask('The whale', { temperature: 0, seed: 2, outputTokensMax: 30 }),
  );
});

test('an answer far longer than the context is written on from its last half', async () => {
  const result = await ask('The whale', { seed: 4, outputTokensMax: 600 });
  assert.deepEqual(result.usage, { unit: 'tokens', input: 9, output: 600 });
  assert.equal(result.finish, 'length');
  assert.match(result.text.slice(-200), / the /);
});

test('pieces come while it writes; they are the text, and their tokens and log-probabilities are those of the result', async () => {
  const parts: EnginePart[] = [];
  const result = await ask(
    'Call me Ishmael.',
    { seed: 2, outputTokensMax: 90, logprobs: 3, stop: ['zzz'] },
    { onPart: (part) => parts.push(part) },
  );
  const texts = parts.filter((part) => part.type === 'text');
  assert.equal(texts.map(({ text }) => text).join(''), result.text);
  assert.equal(
    texts.reduce((sum, { tokens }) => sum + tokens, 0),
    90,
  );
  assert.ok(texts.length > 8);
  assert.deepEqual(
    texts.flatMap(({ logprobs }) => logprobs),
    result.logprobs,
  );
  assert.equal(result.logprobs?.length, 90);
  for (const { logprob, top } of result.logprobs ?? [])
    assert.ok(logprob <= 0 && top.length === 3 && (top[0]?.logprob as number) >= logprob);
});

test('a stop text ends the answer and is left out of it', async () => {
  const free = await ask('Call me Ishmael.', { seed: 2, outputTokensMax: 90 });
  const stop = free.text.slice(20, 25);
  const stopped = await ask('Call me Ishmael.', { seed: 2, outputTokensMax: 90, stop: [stop] });
  assert.equal(stopped.finish, 'stop');
  assert.equal(stopped.text, free.text.slice(0, free.text.indexOf(stop)));
  assert.equal(stopped.usage.output, Buffer.byteLength(stopped.text + stop));
});

test('messages are joined by empty lines without roles, and only the last 256 bytes are read', async () => {
  const request: ChatRequest = {
    task: 'chat',
    messages: [
      { role: 'system', content: [{ type: 'text', text: 'One' }] },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'Tw' },
          { type: 'text', text: 'o' },
        ],
      },
    ],
    sampling: {},
  };
  assert.equal(Buffer.from(textOfChat(request)).toString(), 'One\n\nTwo');
  assert.equal(Buffer.from(textOfChat({ ...request, messages: [] })).toString(), '\n');
  const tail = 'the whale '.repeat(26);
  const [long, short] = [await ask(`Other words. ${tail}`, { outputTokensMax: 20 }), await ask(tail, { outputTokensMax: 20 })];
  assert.equal(long.usage.input, 256);
  assert.deepEqual(long, short);
});

test('a caller who goes ends the work at once, and the engine goes on with others', async () => {
  const abort = new AbortController();
  const gone = ask('The whale', { outputTokensMax: 2048 }, { signal: abort.signal, onPart: () => abort.abort() });
  await assert.rejects(gone, { code: 'request-aborted' });
  assert.equal(engine.state(), 'warm');
  assert.equal((await ask('The whale', { outputTokensMax: 5 })).usage.output, 5);
});

test('what it cannot do is refused by name', async () => {
  const message = (content: ChatRequest['messages'][number]['content']) => [{ role: 'user' as const, content }];
  const text = message([{ type: 'text', text: 'Hello' }]);
  const refused = (request: Partial<ChatRequest>, code: string) =>
    assert.rejects(engine.run({ task: 'chat', messages: text, sampling: {}, ...request }, { signal: AbortSignal.timeout(30_000) }), {
      code,
      actor: 'caller',
    });
  await refused({ tools: [{ name: 'f' }] }, 'unsupported-parameter');
  await refused({ sampling: { responseFormat: { type: 'schema', name: 's', schema: {} } } }, 'unsupported-parameter');
  await refused({ messages: message([{ type: 'image', bytes: new Uint8Array(4) }]) }, 'unsupported-parameter');
  await refused({ messages: message([{ type: 'text', text: 'x'.repeat(CHAT_BYTES_MAX + 1) }]) }, 'text-too-long');
  await refused({ witness: { nonce: '0x12', operator: '0x34' } }, 'bad-witness-request');
});

test('a witness is the same for the same run, another for another nonce or operator, and changes nothing of the answer', async () => {
  const witness = { nonce: `0x${'1'.repeat(64)}` as const, operator: `0x${'a'.repeat(40)}` as const };
  const plain = await ask('The whale', { outputTokensMax: 20 });
  const [first, again, other] = [
    await ask('The whale', { outputTokensMax: 20 }, { witness }),
    await ask('The whale', { outputTokensMax: 20 }, { witness }),
    await ask('The whale', { outputTokensMax: 20 }, { witness: { ...witness, operator: `0x${'b'.repeat(40)}` } }),
  ];
  assert.deepEqual(first, again);
  assert.deepEqual({ ...first, witness: undefined }, { ...plain, witness: undefined });
  assert.notEqual(first.witness?.digest, other.witness?.digest);
  assert.ok((first.witness?.taps.length ?? 0) > 0);
});

test('portable arithmetic writes the same answer, and can be stopped too', async () => {
  const portable = createTextGenerator({ arithmetic: 'portable' });
  const request = { seed: 6, outputTokensMax: 120 };
  const [one, other] = await Promise.all([ask('The whale', request), ask('The whale', request, { of: portable })]);
  assert.deepEqual(other, one);
  const abort = new AbortController();
  const gone = ask('The whale', { outputTokensMax: 2048 }, { of: portable, signal: abort.signal, onPart: () => abort.abort() });
  await assert.rejects(gone, { code: 'request-aborted' });
  assert.equal(portable.state(), 'warm');
  await portable.close();
});

test('the card says what it is', () => {
  assert.equal(engine.card, TEXT_CARD);
  assert.equal(TEXT_CARD.contextTokens, 256);
  assert.match(TEXT_CARD.limits.join(' '), /toy.*does not answer questions/s);
});

function ask(
  text: string,
  sampling: SamplingParameters,
  more: { onPart?: (part: EnginePart) => void; signal?: AbortSignal; witness?: ChatRequest['witness']; of?: Engine } = {},
): Promise<ChatResult> {
  const { signal = AbortSignal.timeout(60_000), onPart, witness, of = engine } = more;
  return of.run(
    {
      task: 'chat',
      messages: [{ role: 'user', content: [{ type: 'text', text }] }],
      sampling,
      ...(witness === undefined ? {} : { witness }),
    },
    { signal, onPart },
  );
}
