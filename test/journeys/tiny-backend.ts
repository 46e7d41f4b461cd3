/**
 * A model server as somebody might write one in an evening, as a process of its own: OpenAI's `/v1/models` and `/v1/chat/completions`, streamed and
 * not, for whoever has the key. It honours `seed` and `stop`, and neither tools nor schemas. Arguments: port, key. Prints its port.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const [port, key] = [Number(process.argv[2]), process.argv[3]];
const MODEL = 'miller-7b';

interface Asked {
  messages: { content: string }[];
  max_tokens?: number;
  stop?: string[];
  stream?: boolean;
  tools?: unknown;
  response_format?: unknown;
}

const server = createServer((request, response) => {
  answer(request, response).catch(() => response.destroy());
});
server.listen(port, '127.0.0.1', () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const send = (status: number, value: unknown) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  if (request.headers.authorization !== `Bearer ${key}`) return void send(401, { error: { message: `wrong key ${key}` } });
  if (request.url === '/v1/models') return void send(200, { object: 'list', data: [{ id: MODEL, object: 'model', max_model_len: 2048 }] });
  const asked = JSON.parse(Buffer.concat(chunks).toString('utf8')) as Asked;
  if (asked.tools !== undefined || asked.response_format !== undefined)
    return void send(400, { error: { message: 'this little mill does not do that' } });
  const said = asked.messages.at(-1)?.content ?? '';
  const all = `you said ${said.split(' ').length} words and the mill turns`.split(' ').map((word, at) => (at === 0 ? word : ` ${word}`));
  const words = all
    .slice(0, asked.max_tokens ?? all.length)
    .map((word) => (asked.stop ?? []).reduce((rest, stop) => rest.replaceAll(stop, ''), word));
  const usage = { prompt_tokens: said.split(' ').length, completion_tokens: words.length };
  if (asked.stream !== true) {
    const choices = [{ index: 0, message: { role: 'assistant', content: words.join('') }, finish_reason: 'stop' }];
    return void send(200, { id: 'c', object: 'chat.completion', model: MODEL, choices, usage });
  }
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (const content of words) response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`);
  response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }], usage })}\n\n`);
  response.end('data: [DONE]\n\n');
}
