import { createHash } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import type { ChatRequest, ChatResult, RunOptions, TokenLogprob } from '../engines/engine.ts';
import { textOfChat } from './chat-text.ts';
import type { LanguageModel } from './language-model.ts';
import { createDrawer, type DrawnToken, readSampling } from './sampling.ts';
import { witnessOf } from './tensor-witness.ts';
import { createTextPieces, type TextPiece } from './text-pieces.ts';

/**
 * Continues a conversation byte by byte. The model reads the last `context` bytes; when they are full it begins anew with the last half of
 * them. The answer depends on the request and the weights alone, and its digest is the SHA-256 of the bytes drawn: any copy of the engine
 * must draw them again.
 * @throws unsupported-parameter, text-too-long, request-aborted
 */
export async function continueChat(
  { model, root }: { model: LanguageModel; root: string },
  request: ChatRequest,
  options: Pick<RunOptions, 'signal' | 'onPart'>,
): Promise<ChatResult> {
  const sampling = readSampling(request.sampling);
  const { context } = model.shape;
  const text = [...textOfChat(request).subarray(-context)];
  const input = text.length;
  const draw = createDrawer(sampling);
  const pieces = createTextPieces(sampling.stop);
  const given: TextPiece[] = [];
  const give = (piece: TextPiece | undefined) => {
    if (piece === undefined || (piece.text === '' && piece.tokens === 0)) return;
    given.push(piece);
    const logprobs = sampling.logprobs === undefined ? {} : { logprobs: piece.logprobs };
    options.onPart?.({ type: 'text', text: piece.text, tokens: piece.tokens, ...logprobs });
  };
  const reading = model.open({ hasStreams: request.witness !== undefined });
  const streams: (readonly Float32Array[])[] = [];
  const output: number[] = [];
  let logits = await reading.start(text);
  let isStopped = false;
  while (true) {
    if (options.signal.aborted) throw aborted(output.length);
    const token = draw(logits);
    output.push(token.id);
    streams.push(reading.streams());
    const step = pieces.take(token.id, sampling.logprobs === undefined ? undefined : shown(token));
    give(step.piece);
    isStopped = step.isStopped;
    if (isStopped || output.length >= sampling.outputTokensMax) break;
    const isFull = text.length === context;
    if (isFull) text.splice(0, context / 2);
    text.push(token.id);
    logits = isFull ? await reading.start(text) : await reading.append(token.id);
  }
  give(pieces.end());
  return {
    task: 'chat',
    text: given.map((piece) => piece.text).join(''),
    toolCalls: [],
    finish: isStopped ? 'stop' : 'length',
    usage: { unit: 'tokens', input, output: output.length },
    outputDigest: `0x${createHash('sha256').update(Uint8Array.from(output)).digest('hex')}`,
    ...(request.witness === undefined ? {} : { witness: witnessOf(request.witness, root, streams) }),
    ...(sampling.logprobs === undefined ? {} : { logprobs: given.flatMap(({ logprobs }) => logprobs) }),
  };
}

function shown({ id, logprob, top }: DrawnToken): TokenLogprob {
  return { token: tokenName(id), logprob, top: top.map((each) => ({ token: tokenName(each.id), logprob: each.logprob })) };
}

/** A byte as text: itself if it is ASCII, else as llama.cpp writes bytes. */
function tokenName(byte: number): string {
  return byte < 0x80 ? String.fromCharCode(byte) : `<0x${byte.toString(16).toUpperCase()}>`;
}

function aborted(tokens: number): MillraceError {
  return new MillraceError('request-aborted', {
    actor: 'caller',
    message: `The request was ended after ${tokens} tokens`,
    values: { tokens },
  });
}
