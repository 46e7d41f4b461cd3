import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { CountedRequest, OfferedModel, TokenCount, TokenCounter } from '../../inference/index.ts';
import type { AnswerOutcome } from './ask-miner.ts';
import type { Question } from './question.ts';

/** Counters of tokens, by the root of the model whose tokenizer counts. */
export type Tokenizers = ReadonlyMap<Hex, TokenCounter>;

/** Words at the end, and how a stream was cut into tokens, make small differences: so much above a recount is paid as it was signed. */
const SLACK_UNITS = 4;
const SLACK_DIVISOR = 50;

/** Counts that are too high, and what is paid instead. */
export interface RecountFault {
  input: bigint;
  output: bigint;
  fault: MillraceError;
}

/** An answer whose tokens are counted again. */
export interface Recounted {
  model: OfferedModel;
  question: Question;
  request: CountedRequest;
  outcome: AnswerOutcome;
}

/**
 * Counts input and output of a chat again where the model's tokenizer is known. Where it is not, counts are too high for certain that are above
 * the bytes of the whole answer, because a token has a byte at least, or above the most that the request can have been. Undefined when the
 * miner's counts hold: up to four units and one in fifty above the recount.
 */
export async function recountFault(tokenizers: Tokenizers | undefined, of: Recounted): Promise<RecountFault | undefined> {
  const { model, question, outcome } = of;
  if (model.unit !== 'tokens' || outcome.signed === undefined) return undefined;
  const { inputs, outputs } = outcome.signed.receipt;
  const counted = await countAgain(tokenizers?.get(model.root), of);
  const bounds =
    counted === undefined
      ? { input: question.inputMax(model.unit), output: question.task === 'chat' ? outcome.passedBytes : Number.MAX_SAFE_INTEGER }
      : { input: withSlack(counted.input), output: withSlack(counted.output) };
  const honest = counted ?? bounds;
  const isHigh = { input: Number(inputs.units) > bounds.input, output: Number(outputs.units) > bounds.output };
  if (!isHigh.input && !isHigh.output) return undefined;
  const [what, got, max] = isHigh.output
    ? (['output', outputs.units, honest.output] as const)
    : (['input', inputs.units, honest.input] as const);
  return {
    input: isHigh.input ? BigInt(honest.input) : inputs.units,
    output: isHigh.output ? BigInt(honest.output) : outputs.units,
    fault: new MillraceError('token-count-inflated', {
      actor: 'peer',
      message: `The miner counts ${got} tokens of ${what}, it is ${max} at most`,
      values: { what, got, max },
    }),
  };
}

function withSlack(units: number): number {
  return units + Math.floor(units / SLACK_DIVISOR) + SLACK_UNITS;
}

async function countAgain(count: TokenCounter | undefined, { question, request, outcome }: Recounted): Promise<TokenCount | undefined> {
  if (count === undefined || outcome.kept === undefined || question.task !== 'chat') return undefined;
  const text = textOf(outcome.kept, question.stream);
  return text === undefined ? undefined : count(request, text);
}

/** The text of a chat answer, streamed or not; undefined when there is more than text in it. */
function textOf(bytes: Buffer, isStream: boolean): string | undefined {
  try {
    if (!isStream) {
      const { choices, output } = JSON.parse(bytes.toString('utf8')) as {
        choices?: Choice[];
        output?: { content?: { text?: string }[] }[];
      };
      if (choices !== undefined) return choices[0]?.message?.tool_calls === undefined ? (choices[0]?.message?.content ?? '') : undefined;
      return output?.map((item) => item.content?.map((part) => part.text ?? '').join('') ?? '').join('');
    }
    let text = '';
    for (const line of bytes.toString('utf8').split('\n')) {
      if (!line.startsWith('data: {')) continue;
      const event = JSON.parse(line.slice(6)) as { type?: string; delta?: string; choices?: Choice[] };
      if (event.type === 'response.output_text.delta') text += event.delta ?? '';
      const delta = event.choices?.[0]?.delta;
      if (delta?.tool_calls !== undefined) return undefined;
      text += delta?.content ?? '';
    }
    return text;
  } catch {
    return undefined;
  }
}

interface Choice {
  message?: { content?: string | null; tool_calls?: unknown };
  delta?: { content?: string | null; tool_calls?: unknown };
}
