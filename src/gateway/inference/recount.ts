import type { Hex } from 'viem';
import { MillraceError } from '../../errors.ts';
import type { OfferedModel } from '../../inference/index.ts';
import type { AnswerOutcome } from './ask-miner.ts';
import type { Question } from './question.ts';

/** The number of tokens in a text, by the root of the model whose tokenizer counts. */
export type Tokenizers = ReadonlyMap<Hex, (text: string) => number>;

/** Words at the end, and how a stream was cut into tokens, make small differences. */
const SLACK_UNITS = 4;
const SLACK_SHARE = 0.02;

/** A count of output that is too high, and the honest one. */
export interface RecountFault {
  units: number;
  fault: MillraceError;
}

/**
 * Counts the output of a chat again where its tokenizer is known; where it is not, a count above the bytes of the whole answer is too high for
 * certain, because a token has a byte at least. Undefined when the miner's count holds.
 */
export function recountFault(
  tokenizers: Tokenizers | undefined,
  model: OfferedModel,
  question: Question,
  outcome: AnswerOutcome,
): RecountFault | undefined {
  if (model.unit !== 'tokens' || outcome.signed === undefined) return undefined;
  const claimed = Number(outcome.signed.receipt.outputs.units);
  const count = tokenizers?.get(model.root);
  let units = outcome.passedBytes;
  if (count !== undefined && outcome.kept !== undefined && question.task === 'chat') {
    const text = textOf(outcome.kept, question.stream);
    if (text === undefined) return undefined;
    units = count(text);
    if (claimed <= units * (1 + SLACK_SHARE) + SLACK_UNITS) return undefined;
  } else if (claimed <= units) return undefined;
  const fault = new MillraceError('token-count-inflated', {
    actor: 'peer',
    message: `The miner counts ${claimed} tokens of output, it is ${units} at most`,
    values: { got: claimed, max: units },
  });
  return { units, fault };
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
