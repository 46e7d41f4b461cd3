import type { ChatMessage, ChatRequest, ChatResult, EnginePart, ToolDefinition } from '../engines/engine.ts';
import {
  type AnswerName,
  type Call,
  type CallInput,
  listField,
  numberField,
  objectField,
  readJsonObject,
  type StreamWriter,
  textField,
} from './call.ts';
import { readContent, readFormat, readSampling } from './chat.ts';
import { badRequest, unsupported } from './failure.ts';

const ITEMS_MAX = 4096;
const SLACK_TOKENS = 256;

/**
 * Reads `POST /v1/responses` (OpenAI API reference, "Create a model response"). Nothing is remembered between requests: `store`,
 * `previous_response_id` and `background` are refused.
 * @throws bad-json, bad-request, unsupported-parameter, unknown-model
 */
export function readResponsesCall(input: CallInput): Call {
  const body = readJsonObject(input.bytes);
  const model = input.modelFor(body.model, 'chat');
  for (const name of ['previous_response_id', 'conversation', 'prompt']) {
    if (body[name] !== undefined && body[name] !== null)
      throw unsupported(name, 'Nothing is remembered between requests: send the whole conversation');
  }
  if (body.background === true) throw unsupported('background', 'Answers are given at once');
  const wanted = numberField(body.max_output_tokens, 'max_output_tokens', { min: 1, max: 1 << 24, whole: true });
  const outputTokensMax = Math.min(wanted ?? model.outputUnitsMax, model.outputUnitsMax);
  const format = objectField(body.text ?? {}, 'text').format;
  const request: ChatRequest = {
    task: 'chat',
    messages: readItems(body),
    sampling: { ...readSampling({ ...body, response_format: undefined }), responseFormat: readFormat(format), outputTokensMax },
    ...readTools(body),
  };
  const input_ = Math.min(input.bytes.length + SLACK_TOKENS, model.card.contextTokens ?? Number.MAX_SAFE_INTEGER);
  const shown = {
    instructions: typeof body.instructions === 'string' ? body.instructions : null,
    tools: body.tools ?? [],
    outputTokensMax,
  };
  return {
    request,
    bounds: { input: input_, output: outputTokensMax },
    whole: (result, name) => ({
      contentType: 'application/json',
      body: JSON.stringify(responseOf(name, shown, { status: 'completed', result: result as ChatResult })),
    }),
    ...(body.stream === true ? { stream: (name: AnswerName) => eventWriter(name, shown) } : {}),
  };
}

function readItems(body: Record<string, unknown>): ChatMessage[] {
  const messages: ChatMessage[] = [];
  if (typeof body.instructions === 'string') messages.push({ role: 'system', content: readContent(body.instructions, 'instructions') });
  const items = typeof body.input === 'string' ? [{ role: 'user', content: body.input }] : listField(body.input, 'input', ITEMS_MAX);
  for (const [index, entry] of items.entries()) {
    const item = objectField(entry, `input[${index}]`);
    if (item.type === 'function_call') {
      const call = {
        id: textField(item.call_id, 'call_id', 256),
        name: textField(item.name, 'name', 64),
        argumentsJson: textField(item.arguments, 'arguments'),
      };
      messages.push({ role: 'assistant', content: [], toolCalls: [call] });
    } else if (item.type === 'function_call_output') {
      messages.push({ role: 'tool', content: readContent(item.output, 'output'), toolCallId: textField(item.call_id, 'call_id', 256) });
    } else if (item.type === undefined || item.type === 'message') {
      const role = item.role === 'developer' ? 'system' : item.role;
      if (role !== 'system' && role !== 'user' && role !== 'assistant')
        throw badRequest(`input[${index}].role`, role, 'system, developer, user or assistant');
      messages.push({ role, content: readContent(item.content, `input[${index}].content`) });
    } else if (item.type !== 'reasoning') throw unsupported('input', `Items of type ${String(item.type).slice(0, 40)} are not taken here`);
  }
  if (messages.length === 0) throw badRequest('input', 'nothing', 'a text or at least one item');
  return messages;
}

function readTools(body: Record<string, unknown>): Pick<ChatRequest, 'tools' | 'toolChoice'> {
  if (body.tools === undefined || body.tools === null) return {};
  const tools = listField(body.tools, 'tools', 128).map((entry): ToolDefinition => {
    const tool = objectField(entry, 'tools');
    if (tool.type !== 'function') throw unsupported('tools', `Tools of type ${String(tool.type).slice(0, 40)} are not offered here`);
    const parameters =
      tool.parameters === undefined || tool.parameters === null ? undefined : objectField(tool.parameters, 'tools.parameters');
    const description = typeof tool.description === 'string' ? tool.description.slice(0, 8192) : undefined;
    return { name: textField(tool.name, 'tools.name', 64), description, parameters };
  });
  if (tools.length === 0) return {};
  const choice = body.tool_choice;
  if (choice === undefined || choice === null) return { tools };
  if (choice === 'auto' || choice === 'none' || choice === 'required') return { tools, toolChoice: choice };
  return { tools, toolChoice: { name: textField(objectField(choice, 'tool_choice').name, 'tool_choice.name', 64) } };
}

interface Shown {
  instructions: string | null;
  tools: unknown;
  outputTokensMax: number;
}

function responseOf(name: AnswerName, shown: Shown, state: { status: string; result?: ChatResult }): Record<string, unknown> {
  const { result } = state;
  const isCut = result?.finish === 'length';
  return {
    id: `resp_${name.id}`,
    object: 'response',
    created_at: name.created,
    status: isCut ? 'incomplete' : state.status,
    error: null,
    incomplete_details: isCut ? { reason: 'max_output_tokens' } : null,
    instructions: shown.instructions,
    max_output_tokens: shown.outputTokensMax,
    model: name.model,
    output: result === undefined ? [] : outputOf(name, result),
    parallel_tool_calls: true,
    previous_response_id: null,
    store: false,
    tool_choice: 'auto',
    tools: shown.tools,
    metadata: {},
    usage:
      result === undefined
        ? null
        : {
            input_tokens: result.usage.input,
            input_tokens_details: { cached_tokens: 0 },
            output_tokens: result.usage.output,
            output_tokens_details: { reasoning_tokens: 0 },
            total_tokens: result.usage.input + result.usage.output,
          },
  };
}

function messageOf(name: AnswerName, text: string, status: string): Record<string, unknown> {
  return {
    id: `msg_${name.id}`,
    type: 'message',
    status,
    role: 'assistant',
    content: [{ type: 'output_text', text, annotations: [], logprobs: [] }],
  };
}

function outputOf(name: AnswerName, { text, toolCalls }: ChatResult): unknown[] {
  const calls = toolCalls.map((call, index) => ({
    id: `fc_${name.id}_${index}`,
    type: 'function_call',
    status: 'completed',
    call_id: call.id,
    name: call.name,
    arguments: call.argumentsJson,
  }));
  return text === '' && calls.length > 0 ? calls : [messageOf(name, text, 'completed'), ...calls];
}

function eventWriter(name: AnswerName, shown: Shown): StreamWriter {
  let sequence = 0;
  const event = (type: string, fields: Record<string, unknown>) => {
    const data = JSON.stringify({ type, sequence_number: sequence, ...fields });
    sequence += 1;
    return `event: ${type}\ndata: ${data}\n\n`;
  };
  const place = { item_id: `msg_${name.id}`, output_index: 0, content_index: 0 };
  const emptyPart = { type: 'output_text', text: '', annotations: [], logprobs: [] };
  return {
    first() {
      const response = responseOf(name, shown, { status: 'in_progress' });
      const item = { ...messageOf(name, '', 'in_progress'), content: [] };
      return (
        event('response.created', { response }) +
        event('response.in_progress', { response }) +
        event('response.output_item.added', { output_index: 0, item }) +
        event('response.content_part.added', { ...place, part: emptyPart })
      );
    },
    parts(parts: readonly EnginePart[]) {
      const text = parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
      return text === '' ? '' : event('response.output_text.delta', { ...place, delta: text, logprobs: [] });
    },
    last(result) {
      const chat = result as ChatResult;
      const calls = outputOf(name, chat).filter((item) => (item as { type: string }).type === 'function_call');
      const message = messageOf(name, chat.text, 'completed');
      return (
        event('response.output_text.done', { ...place, text: chat.text, logprobs: [] }) +
        event('response.content_part.done', { ...place, part: { ...emptyPart, text: chat.text } }) +
        event('response.output_item.done', { output_index: 0, item: message }) +
        calls
          .map(
            (item, index) =>
              event('response.output_item.added', { output_index: index + 1, item }) +
              event('response.output_item.done', { output_index: index + 1, item }),
          )
          .join('') +
        event(chat.finish === 'length' ? 'response.incomplete' : 'response.completed', {
          response: { ...responseOf(name, shown, { status: 'completed', result: chat }), output: [message, ...calls] },
        })
      );
    },
    end: '',
  };
}
