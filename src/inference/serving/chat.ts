import type {
  ChatContent,
  ChatMessage,
  ChatRequest,
  ChatResult,
  EnginePart,
  SamplingParameters,
  TokenLogprob,
  ToolCall,
  ToolDefinition,
} from '../engines/engine.ts';
import {
  type AnswerName,
  bytesField,
  type Call,
  type CallInput,
  listField,
  numberField,
  objectField,
  readJsonObject,
  type StreamWriter,
  textField,
} from './call.ts';
import { badRequest, unsupported } from './failure.ts';

const MESSAGES_MAX = 4096;
const TOOLS_MAX = 128;
const IMAGE_TOKENS_MAX = 4096;
const SLACK_TOKENS = 256;
const ROLES: Record<string, ChatMessage['role']> = {
  system: 'system',
  developer: 'system',
  user: 'user',
  assistant: 'assistant',
  tool: 'tool',
};
const FINISH: Record<ChatResult['finish'], string> = { stop: 'stop', length: 'length', tools: 'tool_calls', filter: 'content_filter' };

/** Reads `POST /v1/chat/completions` (OpenAI API reference, "Create chat completion"). @throws bad-json, bad-request, unsupported-parameter, unknown-model */
export function readChatCall(input: CallInput): Call {
  const body = readJsonObject(input.bytes);
  const model = input.modelFor(body.model, 'chat');
  refuseForeign(body);
  const wanted = numberField(body.max_completion_tokens ?? body.max_tokens, 'max_tokens', { min: 1, max: 1 << 24, whole: true });
  const outputTokensMax = Math.min(wanted ?? model.outputUnitsMax, model.outputUnitsMax);
  const sampling: SamplingParameters = { ...readSampling(body), outputTokensMax };
  const { messages, imageBytes, images } = readMessages(body.messages);
  const request: ChatRequest = { task: 'chat', messages, sampling, ...readTools(body) };
  const contextMax = model.card.contextTokens ?? Number.MAX_SAFE_INTEGER;
  const bytes = input.bytes.length - Math.floor((imageBytes * 4) / 3) + images * IMAGE_TOKENS_MAX + SLACK_TOKENS;
  const bounds = { input: Math.min(bytes, contextMax), output: outputTokensMax };
  const withUsage = objectField(body.stream_options ?? {}, 'stream_options').include_usage === true;
  return {
    request,
    bounds,
    whole: (result, name) => ({ contentType: 'application/json', body: JSON.stringify(completionOf(result as ChatResult, name)) }),
    ...(body.stream === true ? { stream: (name: AnswerName) => chunkWriter(name, withUsage) } : {}),
  };
}

function refuseForeign(body: Record<string, unknown>): void {
  if (body.n !== undefined && body.n !== null && body.n !== 1) throw unsupported('n', 'One answer is given for a request');
  if (Array.isArray(body.modalities) && body.modalities.some((kind) => kind !== 'text'))
    throw unsupported('modalities', 'Chat answers are text here');
  for (const name of ['audio', 'functions', 'function_call', 'prediction', 'web_search_options']) {
    if (body[name] !== undefined && body[name] !== null) throw unsupported(name, `${name} is not offered here`);
  }
  if (body.logit_bias && Object.keys(objectField(body.logit_bias, 'logit_bias')).length > 0)
    throw unsupported('logit_bias', 'logit_bias is not offered here');
}

/** How words are drawn, from the fields that chat completions and responses have in common. @throws bad-request */
export function readSampling(body: Record<string, unknown>): SamplingParameters {
  const stop =
    body.stop === undefined || body.stop === null
      ? undefined
      : typeof body.stop === 'string'
        ? [body.stop]
        : listField(body.stop, 'stop', 4);
  const top = numberField(body.top_logprobs, 'top_logprobs', { min: 0, max: 20, whole: true });
  return {
    temperature: numberField(body.temperature, 'temperature', { min: 0, max: 2 }),
    topP: numberField(body.top_p, 'top_p', { min: 0, max: 1 }),
    topK: numberField(body.top_k, 'top_k', { min: 0, max: 1 << 20, whole: true }),
    seed: numberField(body.seed, 'seed', { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER, whole: true }),
    stop: stop?.map((text) => textField(text, 'stop', 256)),
    frequencyPenalty: numberField(body.frequency_penalty, 'frequency_penalty', { min: -2, max: 2 }),
    presencePenalty: numberField(body.presence_penalty, 'presence_penalty', { min: -2, max: 2 }),
    logprobs: body.logprobs === true ? (top ?? 0) : undefined,
    responseFormat: readFormat(body.response_format),
  };
}

/** `response_format`, and `text.format` of responses. @throws bad-request */
export function readFormat(value: unknown): SamplingParameters['responseFormat'] {
  if (value === undefined || value === null) return undefined;
  const format = objectField(value, 'response_format');
  if (format.type === 'text') return undefined;
  if (format.type === 'json_object') return { type: 'json' };
  if (format.type !== 'json_schema') throw badRequest('response_format.type', format.type, 'text, json_object or json_schema');
  const inner = objectField(format.json_schema ?? format, 'response_format.json_schema');
  return {
    type: 'schema',
    name: textField(inner.name, 'response_format.json_schema.name', 64),
    schema: objectField(inner.schema, 'response_format.json_schema.schema'),
  };
}

function readMessages(value: unknown): { messages: ChatMessage[]; imageBytes: number; images: number } {
  let imageBytes = 0;
  let images = 0;
  const list = listField(value, 'messages', MESSAGES_MAX);
  if (list.length === 0) throw badRequest('messages', 'an empty list', 'at least one message');
  const messages = list.map((entry, index) => {
    const message = objectField(entry, `messages[${index}]`);
    const role = ROLES[String(message.role)];
    if (role === undefined) throw badRequest(`messages[${index}].role`, message.role, 'system, developer, user, assistant or tool');
    const content = readContent(message.content, `messages[${index}].content`);
    for (const part of content) {
      if (part.type !== 'image') continue;
      images += 1;
      imageBytes += part.bytes.length;
    }
    return {
      role,
      content,
      ...(typeof message.name === 'string' ? { name: textField(message.name, `messages[${index}].name`, 64) } : {}),
      ...(Array.isArray(message.tool_calls) ? { toolCalls: message.tool_calls.slice(0, TOOLS_MAX).map(readToolCall) } : {}),
      ...(typeof message.tool_call_id === 'string' ? { toolCallId: textField(message.tool_call_id, 'tool_call_id', 256) } : {}),
    };
  });
  return { messages, imageBytes, images };
}

/** The content of a message: a text, or parts. @throws bad-request, unsupported-parameter */
export function readContent(value: unknown, parameter: string): ChatContent[] {
  if (value === null || value === undefined) return [];
  if (typeof value === 'string') return [{ type: 'text', text: textField(value, parameter) }];
  return listField(value, parameter, 256).map((entry) => {
    const part = objectField(entry, parameter);
    if (part.type === 'text' || part.type === 'input_text' || part.type === 'output_text')
      return { type: 'text', text: textField(part.text, parameter) };
    if (part.type === 'image_url') return { type: 'image', bytes: bytesField(objectField(part.image_url, parameter).url, parameter) };
    if (part.type === 'input_image') return { type: 'image', bytes: bytesField(part.image_url, parameter) };
    throw unsupported(parameter, `Parts of type ${String(part.type).slice(0, 40)} are not taken here`);
  });
}

function readToolCall(value: unknown): ToolCall {
  const call = objectField(value, 'tool_calls');
  const inner = objectField(call.function, 'tool_calls.function');
  return {
    id: textField(call.id, 'tool_calls.id', 256),
    name: textField(inner.name, 'tool_calls.function.name', 64),
    argumentsJson: textField(inner.arguments, 'tool_calls.function.arguments'),
  };
}

function readTools(body: Record<string, unknown>): Pick<ChatRequest, 'tools' | 'toolChoice'> {
  if (body.tools === undefined || body.tools === null) return {};
  const tools = listField(body.tools, 'tools', TOOLS_MAX).map((entry): ToolDefinition => {
    const tool = objectField(entry, 'tools');
    if (tool.type !== 'function') throw unsupported('tools', `Tools of type ${String(tool.type).slice(0, 40)} are not offered here`);
    return readTool(objectField(tool.function ?? tool, 'tools.function'));
  });
  return { tools, toolChoice: readToolChoice(body.tool_choice) };
}

function readTool(inner: Record<string, unknown>): ToolDefinition {
  return {
    name: textField(inner.name, 'tools.function.name', 64),
    ...(typeof inner.description === 'string' ? { description: textField(inner.description, 'tools.function.description', 8192) } : {}),
    ...(inner.parameters === undefined || inner.parameters === null
      ? {}
      : { parameters: objectField(inner.parameters, 'tools.function.parameters') }),
  };
}

function readToolChoice(value: unknown): ChatRequest['toolChoice'] {
  if (value === undefined || value === null) return undefined;
  if (value === 'auto' || value === 'none' || value === 'required') return value;
  const choice = objectField(value, 'tool_choice');
  return { name: textField(objectField(choice.function ?? choice, 'tool_choice').name, 'tool_choice.function.name', 64) };
}

function completionOf(result: ChatResult, name: AnswerName): Record<string, unknown> {
  const { text, toolCalls, finish, logprobs } = result;
  return {
    id: `chatcmpl-${name.id}`,
    object: 'chat.completion',
    created: name.created,
    model: name.model,
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: text === '' && toolCalls.length > 0 ? null : text,
          refusal: null,
          ...(toolCalls.length > 0 ? { tool_calls: toolCalls.map(toolCallJson) } : {}),
        },
        logprobs: logprobs === undefined ? null : { content: logprobs.map(logprobJson), refusal: null },
        finish_reason: FINISH[finish],
      },
    ],
    usage: usageOf(result),
  };
}

function toolCallJson({ id, name, argumentsJson }: ToolCall): Record<string, unknown> {
  return { id, type: 'function', function: { name, arguments: argumentsJson } };
}

function usageOf({ usage }: ChatResult): Record<string, number> {
  return { prompt_tokens: usage.input, completion_tokens: usage.output, total_tokens: usage.input + usage.output };
}

function logprobJson({ token, logprob, top }: TokenLogprob): Record<string, unknown> {
  const bytesOf = (text: string) => [...Buffer.from(text)];
  return { token, logprob, bytes: bytesOf(token), top_logprobs: top.map((one) => ({ ...one, bytes: bytesOf(one.token) })) };
}

function chunkWriter(name: AnswerName, withUsage: boolean): StreamWriter {
  const usageNull = withUsage ? ',"usage":null' : '';
  const head = `data: {"id":"chatcmpl-${name.id}","object":"chat.completion.chunk","created":${name.created},"model":${JSON.stringify(name.model)},"choices":[`;
  const chunk = (delta: string, finish: string, logprobs?: TokenLogprob[]) => {
    const shown = logprobs === undefined ? 'null' : JSON.stringify({ content: logprobs.map(logprobJson), refusal: null });
    return `${head}{"index":0,"delta":${delta},"logprobs":${shown},"finish_reason":${finish}}]${usageNull}}\n\n`;
  };
  return {
    first: () => chunk('{"role":"assistant","content":""}', 'null'),
    parts(parts) {
      let text = '';
      for (const part of parts) text += chunk(deltaOf(part), 'null', part.type === 'text' ? part.logprobs : undefined);
      return text;
    },
    last(result) {
      const { finish } = result as ChatResult;
      const end = chunk('{}', `"${FINISH[finish]}"`);
      return withUsage ? `${end}${head}],"usage":${JSON.stringify(usageOf(result as ChatResult))}}\n\n` : end;
    },
    end: 'data: [DONE]\n\n',
  };
}

function deltaOf(part: EnginePart): string {
  if (part.type === 'text') return `{"content":${JSON.stringify(part.text)}}`;
  const { index, id, name, argumentsJson } = part;
  const call = {
    index,
    ...(id === undefined ? {} : { id, type: 'function' }),
    function: { ...(name === undefined ? {} : { name }), arguments: argumentsJson },
  };
  return JSON.stringify({ tool_calls: [call] });
}
