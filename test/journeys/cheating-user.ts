/** The user of the journey of the cheating miners: asks through the gateway, and checks all that comes back. */
import { createHash } from 'node:crypto';
import type { SeededRandom } from '../../src/inference/consensus/seeded-random.ts';
import {
  createInferenceReceipts,
  inferenceReceiptDomain,
  type OfferedModel,
  priceUp,
  RECEIPT_HEADER,
  verifyReceipt,
} from '../../src/inference/index.ts';
import { readAnswer, signedBytes } from '../../src/inference/judging/answer-content.ts';
import { type ReplayVerdict, replayRequest } from '../../src/inference/judging/replay.ts';
import { type CheatingNetwork, type JourneyMiner, until } from './cheating-network.ts';

/** How a question is asked. */
export interface Asking {
  /** Asked first; where absent the gateway chooses. */
  miner?: JourneyMiner;
  /** Nobody else is to answer. */
  isOnly?: boolean;
  isStream: boolean;
  tokensMax?: number;
  /** The first bytes of the answer are there. */
  onFirst?: () => void;
}

/** What the user saw of one question. Money in base units. */
export interface Told {
  asking: Asking;
  by: JourneyMiner | undefined;
  /** Where it was no answer. */
  code: string | undefined;
  /** What running the question again says of the answer by its receipt. */
  verdict: ReplayVerdict | undefined;
  /** The receipt is its miner's, for this question and this answer, and within its own limits. */
  isSigned: boolean;
  charged: bigint;
  signed: bigint;
  /** What question and answer come to at the miner's price. */
  due: bigint;
  /** The same with what a recount lets pass: four units and one in fifty, of input and of output. */
  dueMax: bigint;
}

const CHAT = '/v1/chat/completions';
/** All who run questions again share one engine. */
const REPLAY_MS = 240_000;
const WORDS = ['whale', 'ship', 'captain', 'harpoon', 'sea', 'night', 'mast', 'sailor', 'storm', 'leg', 'coffin', 'island', 'oil', 'deck'];
const STOP = '.';
const BEGINNING = ['Tell me of the', 'What became of the', 'Describe the', 'Why does the captain fear the'];

/** A user; `told` grows with each question. */
export function createUser(network: CheatingNetwork, random: SeededRandom): { told: Told[]; ask(asking: Asking): Promise<Told> } {
  const told: Told[] = [];
  return {
    told,
    async ask(asking) {
      const question = questionOf(network, random, asking);
      const response = await fetch(`${network.url}${CHAT}`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          authorization: `Bearer ${network.key}`,
          'millrace-replay': 'allow',
          ...wishOf(asking),
        },
        body: question.body,
      });
      const chunks: Uint8Array[] = [];
      for await (const chunk of response.body ?? []) {
        if (chunks.push(chunk) === 1) asking.onFirst?.();
      }
      const one = await check(network, { asking, question, response, bytes: Buffer.concat(chunks) });
      told.push(one);
      return one;
    },
  };
}

interface Question {
  body: string;
  inputBytes: number;
  /** A stop text is made, counted and left out. */
  stopBytes: number;
}

function questionOf({ engine }: CheatingNetwork, random: SeededRandom, { isStream, tokensMax }: Asking): Question {
  const content = `${random.pick(BEGINNING)} ${random.pick(WORDS)} and the ${random.pick(WORDS)} ${random.integer(1, 999)}: `;
  const hasStop = tokensMax === undefined && random.fraction() < 0.5;
  const body = JSON.stringify({
    model: engine.card.id,
    messages: [{ role: 'user', content }],
    max_tokens: tokensMax ?? random.integer(24, 64),
    seed: random.integer(0, 1 << 30),
    stream: isStream,
    ...(hasStop ? { stop: [STOP] } : {}),
  });
  return { body, inputBytes: Buffer.byteLength(content), stopBytes: hasStop ? STOP.length : 0 };
}

function wishOf({ miner, isOnly }: Asking): Record<string, string> {
  if (miner === undefined) return {};
  const names = [`operator-${miner.operatorId}`];
  return { 'millrace-provider': JSON.stringify(isOnly === true ? { only: names } : { order: names }) };
}

interface Answered {
  asking: Asking;
  question: Question;
  response: Response;
  bytes: Buffer;
}

async function check(network: CheatingNetwork, answered: Answered): Promise<Told> {
  const { asking, question, response, bytes } = answered;
  const by = network.miners.find(({ operatorId }) => operatorId.toString() === response.headers.get('millrace-operator'));
  const code = errorIn(response, bytes);
  const nothing = { asking, by, code, verdict: undefined, isSigned: false, charged: 0n, signed: 0n, due: 0n, dueMax: 0n };
  if (code !== undefined) return nothing;
  const answerType = response.headers.get('content-type') as string;
  const receipt = response.headers.get(RECEIPT_HEADER) ?? /\n: millrace-receipt (\S+)/.exec(bytes.toString('latin1'))?.[1] ?? '';
  const codec = createInferenceReceipts(inferenceReceiptDomain(network.subnet.client));
  const requestBody = Buffer.from(question.body);
  const sample = { path: CHAT, contentType: 'application/json', requestBody, answerType, answer: bytes, receipt };
  const modelOf = (root: string) => (root === network.engine.card.root ? { engine: network.engine } : undefined);
  const verdict = await replayRequest(sample, { codec, modelOf, isOwn: true, signal: AbortSignal.timeout(REPLAY_MS) });
  const said = readAnswer('chat', answerType, signedBytes(answerType, bytes));
  const output = (said.task === 'chat' ? Buffer.byteLength(said.text) : 0) + question.stopBytes;
  const price = priceOf(network);
  const due = priceUp(price, { input: BigInt(question.inputBytes), output: BigInt(output) });
  const dueMax = priceUp(price, { input: withSlack(question.inputBytes), output: withSlack(output) });
  const cost = response.headers.get('millrace-cost');
  try {
    const { receipt: signed } = verifyReceipt(codec, receipt, {
      miner: (await network.subnet.client.read('operators', 'operator', [by?.operatorId ?? 0n])).nodeKey,
      requestHash: sha256(requestBody),
      responseHash: sha256(signedBytes(answerType, bytes)),
    });
    const charged = cost === null ? await chargeOf(network, signed.inputs.receiptId) : BigInt(cost);
    return { asking, by, code, verdict, isSigned: true, charged, signed: signed.outputs.price, due, dueMax };
  } catch {
    return { asking, by, code, verdict, isSigned: false, charged: BigInt(cost ?? 0n), signed: 0n, due, dueMax };
  }
}

/** All miners ask the same. */
function priceOf({ gateway, engine }: CheatingNetwork): OfferedModel {
  return (gateway.directory.serving(engine.card.id, 'chat')[0] as { model: OfferedModel }).model;
}

/** What the gateway has in its book for an answer that it has just streamed. */
async function chargeOf({ gateway }: CheatingNetwork, receiptId: string): Promise<bigint> {
  let charged: bigint | undefined;
  await until('the receipt is kept', async () => {
    charged = await gateway.receipts.find(receiptId, true).then(
      (kept) => BigInt(kept.charged),
      () => undefined,
    );
    return charged !== undefined;
  });
  return charged as bigint;
}

/** The code of an error, whether it came instead of an answer or ended a stream; `silence` where a stream just ends. */
function withSlack(units: number): bigint {
  return BigInt(units + Math.floor(units / 50) + 4);
}

function errorIn(response: Response, bytes: Buffer): string | undefined {
  const text = bytes.toString('utf8');
  if (response.status !== 200) return codeIn(text);
  if (response.headers.get('content-type')?.startsWith('text/event-stream') !== true) return undefined;
  const failure = /\ndata: (\{"error".*)\n/.exec(`\n${text}`)?.[1];
  if (failure !== undefined) return codeIn(failure);
  return text.includes('data: [DONE]') ? undefined : 'silence';
}

function codeIn(text: string): string {
  return (JSON.parse(text) as { error: { code: string } }).error.code;
}

function sha256(bytes: Uint8Array): `0x${string}` {
  return `0x${createHash('sha256').update(bytes).digest('hex')}`;
}
