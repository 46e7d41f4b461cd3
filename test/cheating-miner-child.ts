// A miner as a process of its own, honest or with one dishonest change; told what to do and killed by the journey that starts it.
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { connectChain, createSender, developmentSigner, readManifest } from '../src/chain/index.ts';
import { openTransportIdentity, startPeerServer } from '../src/connect/index.ts';
import type { ChatRequest, ChatResult, EngineRequest, RunOptions } from '../src/inference/engines/engine.ts';
import {
  createInferenceReceipts,
  createMiner,
  type Engine,
  fetchOf,
  inferenceReceiptDomain,
  openEngineSet,
  RECEIPT_HEADER,
  type ServingAnswer,
  textProgram,
} from '../src/inference/index.ts';
import { encodeReceipt } from '../src/inference/serving/receipt.ts';
import { createLogger } from '../src/log.ts';
import { openReceiver, startClaimer } from '../src/token/index.ts';

/** What a miner does: `dies` is honest until it is killed, and so is its twin. */
export type Conduct = 'honest' | 'dies' | 'swaps the model' | 'copies' | 'fast garbage' | 'counts too much' | 'signs above the limit';

/** How a miner is started. */
export interface CheatingMinerOptions {
  conduct: Conduct;
  rpcUrl: string;
  manifestPath: string;
  /** Of this miner. */
  folder: string;
  /** Of the models, and of the engine that all miners of this machine share. */
  dataFolder: string;
  keyIndex: number;
  operatorId: string;
  logFile: string;
  /** Where one that copies gets its answers, as a paying customer. */
  source: { url: string; key: string; operators: string[] };
}

const PRICE = {
  unit: 'tokens',
  inputPerMillion: 5n * 10n ** 16n,
  outputPerMillion: 2n * 10n ** 17n,
  perRequest: 10n ** 14n,
} as const;
const OUTPUT_MAX = 2048;
const CLAIM_SECONDS = 30;
/** The worse model sees so many characters of what was said. */
const WORSE_WINDOW = 8;
const INFLATED_BY = 300;
const ABOVE_LIMIT = 4n;

const options = JSON.parse(process.argv[2] as string) as CheatingMinerOptions;
const manifest = readManifest(options.manifestPath);
const client = await connectChain({ rpcUrl: options.rpcUrl, manifest });
const signer = developmentSigner(options.keyIndex, 'dev');
const log = createLogger({ role: `miner-${options.operatorId}`, level: 'info', file: options.logFile });
const sender = createSender({ client, signer, journalFolder: join(options.folder, 'keys'), log });
const operatorId = BigInt(options.operatorId);
const codec = createInferenceReceipts(inferenceReceiptDomain(client));
const honest = openEngineSet({ dataFolder: options.dataFolder, programs: [textProgram()], logger: log }).engine(textProgram().card.id);

await sender.send({ contract: 'receiptCourt', functionName: 'enrol', args: [operatorId] });
const receiver = await openReceiver({
  client,
  receiver: signer.address,
  folder: join(options.folder, 'earned'),
  tokens: ['network'],
  claimIntervalSeconds: CLAIM_SECONDS,
  sender,
});
const claimer = startClaimer({ client, receiver, sender, intervalSeconds: CLAIM_SECONDS, log });
const miner = createMiner({
  operatorId,
  signer,
  domain: inferenceReceiptDomain(client),
  profile: 'dev',
  models: [{ engine: engineOf(options.conduct), price: PRICE, outputUnitsMax: OUTPUT_MAX, concurrency: 8, parameters: ['seed', 'stop'] }],
  receiver,
  token: client.address('networkToken'),
  now: () => client.now(),
  log,
});
const identity = await openTransportIdentity(options.folder);
const isForger = options.conduct === 'signs above the limit';
const fetch_ = fetchOf(async (request) => {
  const answer = await miner.answer(request);
  return isForger ? forged(answer) : answer;
});
const server = await startPeerServer({ port: 0, identity, fetch: fetch_ });

process.on('SIGTERM', async () => {
  await server.stop(100);
  await miner.stop();
  await claimer.stop();
  await receiver.close();
  process.exit(0);
});
// A journey that dies takes its miners with it.
process.on('disconnect', () => process.exit(1));
process.send?.({ ready: true, port: server.port, transportKey: identity.transportKey });

function engineOf(conduct: Conduct): Engine {
  const answers: Partial<Record<Conduct, (request: ChatRequest, how: RunOptions) => Promise<ChatResult>>> = {
    'swaps the model': (request, how) => honest.run(shortened(request), how),
    copies: copied,
    'fast garbage': garbage,
    'counts too much': inflated,
  };
  const answer = answers[conduct];
  if (answer === undefined) return honest;
  const run = (request: EngineRequest, how: RunOptions) => answer(request as ChatRequest, how);
  return { card: honest.card, run: run as Engine['run'], state: () => 'warm', warm: async () => {}, close: async () => {} };
}

/** A cheaper model: it looks at the last few characters only. */
function shortened(request: ChatRequest): ChatRequest {
  const text = textOf(request.messages.at(-1)).slice(-WORSE_WINDOW);
  return { ...request, messages: [{ role: 'user', content: [{ type: 'text', text }] }] };
}

async function garbage({ sampling }: ChatRequest, { onPart }: RunOptions): Promise<ChatResult> {
  const text = randomBytes(sampling.outputTokensMax ?? 16)
    .toString('latin1')
    .replace(/[^a-z ]/g, 'x');
  onPart?.({ type: 'text', text, tokens: text.length });
  const usage = { unit: 'tokens', input: 16, output: text.length } as const;
  return { task: 'chat', text, toolCalls: [], finish: 'length', usage, outputDigest: `0x${randomBytes(32).toString('hex')}` };
}

/** Half as much again and more: output up to what was agreed on, input by a lump. */
async function inflated(request: ChatRequest, how: RunOptions): Promise<ChatResult> {
  const result = await honest.run(request, how);
  const output = Math.min(request.sampling.outputTokensMax ?? OUTPUT_MAX, result.usage.output * 2);
  return { ...result, usage: { ...result.usage, input: result.usage.input + INFLATED_BY, output } };
}

/** It has no model: it buys the answer from others and copies what it can, text, digest and witness. */
async function copied({ messages, sampling }: ChatRequest, { signal, onPart }: RunOptions): Promise<ChatResult> {
  const { url, key, operators } = options.source;
  const { outputTokensMax, topP, topK: _topK, ...rest } = sampling;
  const body = {
    model: honest.card.id,
    messages: messages.map((message) => ({ role: message.role, content: textOf(message) })),
    max_tokens: outputTokensMax,
    ...(topP === undefined ? {} : { top_p: topP }),
    ...(rest.temperature === undefined ? {} : { temperature: rest.temperature }),
    ...(rest.seed === undefined ? {} : { seed: rest.seed }),
    ...(rest.stop === undefined ? {} : { stop: rest.stop }),
    provider: { only: operators },
  };
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${key}` };
  const answer = await fetch(`${url}/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify(body), signal });
  const { choices } = (await answer.json()) as { choices: { message: { content: string }; finish_reason: ChatResult['finish'] }[] };
  const [choice] = choices as [(typeof choices)[0]];
  const text = choice.message.content;
  const { receipt } = codec.fromJson(Buffer.from(answer.headers.get(RECEIPT_HEADER) as string, 'base64url').toString('utf8'));
  const { outputDigest, witness, units } = receipt.outputs;
  onPart?.({ type: 'text', text, tokens: Number(units) });
  const usage = { unit: 'tokens', input: Number(receipt.inputs.units), output: Number(units) } as const;
  return { task: 'chat', text, toolCalls: [], finish: choice.finish_reason, usage, outputDigest, witness: { digest: witness, taps: [] } };
}

/** Its receipts count more than was agreed on, under its own good signature. */
async function forged(answer: ServingAnswer): Promise<ServingAnswer> {
  const encoded = answer.headers[RECEIPT_HEADER];
  const headers = encoded === undefined ? answer.headers : { ...answer.headers, [RECEIPT_HEADER]: await signedAbove(encoded) };
  const { body } = answer;
  if (typeof body === 'string' || body instanceof Uint8Array) return { ...answer, headers };
  return { ...answer, headers, body: forgedStream(body) };
}

async function* forgedStream(body: AsyncIterable<string | Uint8Array>): AsyncGenerator<string | Uint8Array> {
  for await (const piece of body) {
    const [before, encoded, after] = String(piece).split(/: millrace-receipt (\S+)/);
    yield encoded === undefined ? piece : `${before}: ${RECEIPT_HEADER} ${await signedAbove(encoded)}${after}`;
  }
}

async function signedAbove(encoded: string): Promise<string> {
  const { receipt } = codec.fromJson(Buffer.from(encoded, 'base64url').toString('utf8'));
  const units = receipt.inputs.outputUnitsMax * ABOVE_LIMIT;
  const lie = { ...receipt, outputs: { ...receipt.outputs, units } };
  return encodeReceipt(codec, { receipt: lie, signature: await codec.sign(signer, lie) });
}

function textOf(message: ChatRequest['messages'][number] | undefined): string {
  return (message?.content ?? []).map((part) => (part.type === 'text' ? part.text : '')).join('');
}
