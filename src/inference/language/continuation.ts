import { MillraceError } from '../../errors.ts';
import type { ChatRequest, ChatResult, RunOptions, TokenLogprob } from '../engines/engine.ts';
import { bytesOf, createWitnessRecord, digestOutputs } from '../engines/witness.ts';
import { textOfChat } from './chat-text.ts';
import type { LanguageModel } from './language-model.ts';
import { createDrawer, type DrawnToken, readSampling, type Sampling } from './sampling.ts';
import { createTextPieces, type TextPiece } from './text-pieces.ts';

/** What the layers wrote while each token was drawn: for each token, the stream after each layer. */
type Streams = (readonly Float32Array[])[];

/** A model with its weights' root. */
export interface RootedModel {
  model: LanguageModel;
  root: string;
}

/**
 * Continues a conversation byte by byte. The model reads the last `context` bytes; when they are full it begins anew with the last half of
 * them. The answer depends on the request and the weights alone, and its digest is that of the bytes drawn: any copy of the engine must
 * draw them again. A witness holds streams after layers, at tokens that the record picks.
 * @throws unsupported-parameter, text-too-long, request-aborted, bad-witness-request
 */
export async function continueChat(
  { model, root }: RootedModel,
  request: ChatRequest,
  { signal, onPart }: Pick<RunOptions, 'signal' | 'onPart'>,
): Promise<ChatResult> {
  const sampling = readSampling(request.sampling);
  const record = request.witness === undefined ? undefined : createWitnessRecord(request.witness, root);
  const text = [...textOfChat(request).subarray(-model.shape.context)];
  const input = text.length;
  const pieces = createTextPieces(sampling.stop);
  const given: TextPiece[] = [];
  const give = (piece: TextPiece | undefined) => {
    if (piece === undefined) return;
    given.push(piece);
    const logprobs = sampling.logprobs === undefined ? {} : { logprobs: piece.logprobs };
    onPart?.({ type: 'text', text: piece.text, tokens: piece.tokens, ...logprobs });
  };
  const streams: Streams | undefined = record === undefined ? undefined : [];
  const output: number[] = [];
  let isStopped = false;
  for await (const token of drawTokens(model, text, { sampling, streams })) {
    if (signal.aborted) throw aborted(output.length);
    output.push(token.id);
    const step = pieces.take(token.id, sampling.logprobs === undefined ? undefined : shown(token));
    give(step.piece);
    isStopped = step.isStopped;
    if (isStopped || output.length === sampling.outputTokensMax) break;
  }
  give(pieces.end());
  for (const at of record?.pick('stream', output.length * model.shape.layers) ?? []) {
    const layer = at % model.shape.layers;
    const token = (at - layer) / model.shape.layers;
    record?.add(`token.${token}.layer.${layer}`, [model.shape.width], bytesOf(streams?.[token]?.[layer] as Float32Array));
  }
  return {
    task: 'chat',
    text: given.map((piece) => piece.text).join(''),
    toolCalls: [],
    finish: isStopped ? 'stop' : 'length',
    usage: { unit: 'tokens', input, output: output.length },
    outputDigest: digestOutputs([{ name: 'bytes', shape: [output.length], bytes: Uint8Array.from(output) }]),
    ...(record === undefined ? {} : { witness: record.finish() }),
    ...(sampling.logprobs === undefined ? {} : { logprobs: given.flatMap(({ logprobs }) => logprobs) }),
  };
}

/** Draws without end; the text of at most `context` bytes grows and is halved in place. */
async function* drawTokens(
  model: LanguageModel,
  text: number[],
  { sampling, streams }: { sampling: Sampling; streams: Streams | undefined },
): AsyncGenerator<DrawnToken> {
  const { context } = model.shape;
  const draw = createDrawer(sampling);
  const reading = model.open({ hasStreams: streams !== undefined });
  let logits = await reading.start(text);
  while (true) {
    streams?.push(reading.streams());
    const token = draw(logits);
    yield token;
    const isFull = text.length === context;
    if (isFull) text.splice(0, context / 2);
    text.push(token.id);
    logits = isFull ? await reading.start(text) : await reading.append(token.id);
  }
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
