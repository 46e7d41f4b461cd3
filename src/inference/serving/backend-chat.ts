import { createHash } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import type { ChatContent, ChatRequest, ChatResult, EnginePart, TokenLogprob, ToolCall } from '../engines/engine.ts';

const FINISH: Record<string, ChatResult['finish']> = {
  stop: 'stop',
  length: 'length',
  tool_calls: 'tools',
  function_call: 'tools',
  content_filter: 'filter',
};
const TOOL_CALLS_MAX = 128;

/** A request in the words of OpenAI's chat completions. */
export function chatBody(model: string, request: ChatRequest, stream: boolean): Record<string, unknown> {
  const { sampling, tools, toolChoice } = request;
  return {
    model,
    messages: request.messages.map(({ role, content, name, toolCalls, toolCallId }) => ({
      role,
      content: contentOf(content),
      name,
      tool_calls: toolCalls?.map((call) => ({
        id: call.id,
        type: 'function',
        function: { name: call.name, arguments: call.argumentsJson },
      })),
      tool_call_id: toolCallId,
    })),
    max_tokens: sampling.outputTokensMax,
    temperature: sampling.temperature,
    top_p: sampling.topP,
    top_k: sampling.topK,
    seed: sampling.seed,
    stop: sampling.stop,
    frequency_penalty: sampling.frequencyPenalty,
    presence_penalty: sampling.presencePenalty,
    ...(sampling.logprobs === undefined ? {} : { logprobs: true, top_logprobs: sampling.logprobs }),
    response_format: formatOf(sampling.responseFormat),
    tools: tools?.map((tool) => ({ type: 'function', function: tool })),
    tool_choice: typeof toolChoice === 'object' ? { type: 'function', function: toolChoice } : toolChoice,
    ...(stream ? { stream: true, stream_options: { include_usage: true } } : {}),
  };
}

function contentOf(content: readonly ChatContent[]): unknown {
  if (content.length === 0) return null;
  const [only] = content;
  if (content.length === 1 && only?.type === 'text') return only.text;
  return content.map((part) =>
    part.type === 'text'
      ? part
      : { type: 'image_url', image_url: { url: `data:${imageType(part.bytes)};base64,${Buffer.from(part.bytes).toString('base64')}` } },
  );
}

function imageType(bytes: Uint8Array): string {
  if (bytes[0] === 0x89) return 'image/png';
  if (bytes[0] === 0x47) return 'image/gif';
  return bytes[0] === 0x52 ? 'image/webp' : 'image/jpeg';
}

function formatOf(format: ChatRequest['sampling']['responseFormat']): unknown {
  if (format === undefined || format.type === 'text') return undefined;
  if (format.type === 'json') return { type: 'json_object' };
  return { type: 'json_schema', json_schema: { name: format.name, schema: format.schema, strict: true } };
}

interface WireUsage {
  prompt_tokens?: unknown;
  completion_tokens?: unknown;
}

interface WireDelta {
  content?: unknown;
  tool_calls?: { index?: number; id?: string; function?: { name?: string; arguments?: string } }[];
}

interface WireChoice {
  delta?: WireDelta;
  message?: WireDelta;
  finish_reason?: string | null;
  logprobs?: { content?: { token?: unknown; logprob?: unknown; top_logprobs?: { token?: unknown; logprob?: unknown }[] }[] } | null;
}

/** A whole completion of a backend. @throws engine-failed */
export function readCompletion(value: Record<string, unknown>): ChatResult {
  const choice = (value.choices as WireChoice[] | undefined)?.[0];
  if (choice?.message === undefined) throw garbage('choices');
  const text = typeof choice.message.content === 'string' ? choice.message.content : '';
  const toolCalls = (choice.message.tool_calls ?? []).slice(0, TOOL_CALLS_MAX).map((call, index) => toolCallOf(call, index));
  const usage = value.usage as WireUsage | undefined;
  return resultOf({ text, toolCalls, finish: choice.finish_reason ?? 'stop', usage, logprobs: logprobsOf(choice), parts: 0 });
}

/** Puts the events of a streamed completion together, and hands its pieces on. */
export function createChatReader(onPart: (part: EnginePart) => void): { take(data: string): void; end(): ChatResult } {
  let text = '';
  let finish: string | undefined;
  let usage: WireUsage | undefined;
  let parts = 0;
  let logprobs: TokenLogprob[] | undefined;
  const calls: ToolCall[] = [];
  const takeCalls = (wire: NonNullable<WireDelta['tool_calls']>) => {
    for (const piece of wire) {
      const index = Number.isInteger(piece.index) ? (piece.index as number) : 0;
      if (index < 0 || index > calls.length || index >= TOOL_CALLS_MAX) throw garbage('tool calls');
      const known = calls[index];
      const argumentsJson = String(piece.function?.arguments ?? '');
      if (known === undefined) calls[index] = toolCallOf(piece, index);
      else known.argumentsJson += argumentsJson;
      const start = known === undefined ? { id: calls[index]?.id, name: calls[index]?.name } : {};
      onPart({ type: 'tool', index, ...start, argumentsJson });
    }
  };
  return {
    take(data) {
      let value: { choices?: WireChoice[]; usage?: WireUsage | null; error?: unknown };
      try {
        value = JSON.parse(data) as typeof value;
      } catch {
        throw garbage('JSON');
      }
      if (value.error !== undefined && value.error !== null) throw garbage('answer: it is an error');
      if (value.usage) usage = value.usage;
      const choice = value.choices?.[0];
      if (choice === undefined) return;
      if (choice.finish_reason) finish = choice.finish_reason;
      const own = logprobsOf(choice);
      if (own !== undefined) logprobs = [...(logprobs ?? []), ...own];
      const content = choice.delta?.content;
      if (typeof content === 'string' && content !== '') {
        text += content;
        parts += 1;
        onPart({ type: 'text', text: content, tokens: 1, ...(own === undefined ? {} : { logprobs: own }) });
      }
      if (Array.isArray(choice.delta?.tool_calls)) takeCalls(choice.delta.tool_calls);
    },
    end() {
      if (finish === undefined) throw garbage('end');
      return resultOf({ text, toolCalls: calls, finish, usage, logprobs, parts });
    },
  };
}

function toolCallOf(wire: NonNullable<WireDelta['tool_calls']>[number], index: number): ToolCall {
  return {
    id: String(wire.id ?? `call_${index}`).slice(0, 256),
    name: String(wire.function?.name ?? ''),
    argumentsJson: String(wire.function?.arguments ?? ''),
  };
}

function logprobsOf(choice: WireChoice): TokenLogprob[] | undefined {
  const content = choice.logprobs?.content;
  if (!Array.isArray(content)) return undefined;
  return content.map(({ token, logprob, top_logprobs: top = [] }) => ({
    token: String(token),
    logprob: Number(logprob),
    top: top.map((one) => ({ token: String(one.token), logprob: Number(one.logprob) })),
  }));
}

function resultOf(said: {
  text: string;
  toolCalls: ToolCall[];
  finish: string;
  usage: WireUsage | undefined;
  logprobs: TokenLogprob[] | undefined;
  parts: number;
}): ChatResult {
  const { text, toolCalls, usage, logprobs } = said;
  const whole = (value: unknown) => (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined);
  return {
    task: 'chat',
    text,
    toolCalls,
    finish: FINISH[said.finish] ?? 'stop',
    logprobs,
    // A backend that does not count is counted by its pieces: never more than it may have made.
    usage: { unit: 'tokens', input: whole(usage?.prompt_tokens) ?? 0, output: whole(usage?.completion_tokens) ?? said.parts },
    outputDigest: `0x${createHash('sha256')
      .update(toolCalls.length === 0 ? text : JSON.stringify([text, toolCalls]))
      .digest('hex')}`,
  };
}

function garbage(what: string): MillraceError {
  return new MillraceError('engine-failed', { actor: 'peer', message: `The backend's answer has no sound ${what}`, values: { what } });
}
