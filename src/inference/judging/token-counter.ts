import type { Hex } from 'viem';
import { textOfChat } from '../language/chat-text.ts';
import { LANGUAGE_MODEL } from '../language/model-shape.ts';
import { TEXT_CARD } from '../language/text-generator.ts';
import { callReaderOf } from '../serving/call-readers.ts';

/** A request whose tokens are counted, as its caller sent it. */
export interface CountedRequest {
  path: string;
  query: string;
  contentType: string;
  bytes: Buffer;
}

/** Tokens of one request and its answer, by the model's own tokenizer. */
export interface TokenCount {
  input: number;
  /** The most that an answer with this text can have taken. */
  output: number;
}

/** Counts again what a miner has counted; undefined where the request cannot be understood. Never throws. */
export type TokenCounter = (request: CountedRequest, text: string) => Promise<TokenCount | undefined>;

/** Counters of models whose tokenizers are known here, by model root. */
export const TOKEN_COUNTERS: ReadonlyMap<Hex, TokenCounter> = new Map([[TEXT_CARD.root, countBytes]]);

/** The language model's tokens are bytes: of the conversation as it reads it, and of what it wrote, a stop text that was cut off included. */
async function countBytes({ path, query, contentType, bytes }: CountedRequest, text: string): Promise<TokenCount | undefined> {
  try {
    const modelFor = () => ({ card: TEXT_CARD, outputUnitsMax: Number.MAX_SAFE_INTEGER });
    const call = await callReaderOf(path)?.({ path, query: new URLSearchParams(query), contentType, bytes, modelFor });
    if (call?.request.task !== 'chat') return undefined;
    const stops = call.request.sampling.stop ?? [];
    const cutOff = stops.reduce((most, stop) => Math.max(most, Buffer.byteLength(stop)), 0);
    return {
      input: Math.min(textOfChat(call.request).length, LANGUAGE_MODEL.context),
      output: Buffer.byteLength(text) + cutOff,
    };
  } catch {
    return undefined; // what its miner could not read either is answered by its refusal
  }
}
