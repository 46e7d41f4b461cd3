import { text } from 'node:stream/consumers';
import { RECEIPT_HEADER } from '../inference/index.ts';
import type { CommandContext } from './context.ts';
import { withOwnGateway } from './inference.ts';

interface AskOptions {
  model?: string;
  maxTokens: string;
  seed?: string;
  replay?: boolean;
}

/** Asks a language model of the network; the words come as they are made, then what they cost. `-` reads the question from standard input. */
export async function ask(context: CommandContext, question: string, options: AskOptions): Promise<void> {
  const content = question === '-' ? await text(process.stdin) : question;
  await withOwnGateway(context, options, async ({ send, account, told, server }) => {
    const isStreamed = !context.output.json;
    const body = JSON.stringify({
      model: options.model ?? firstModel(server, 'chat'),
      messages: [{ role: 'user', content }],
      max_tokens: Number(options.maxTokens),
      seed: options.seed === undefined ? undefined : Number(options.seed),
      stream: isStreamed,
    });
    const response = await send('/v1/chat/completions', { body, type: 'application/json' });
    const [words, encoded] = isStreamed ? await printStream(response, context.output.piece) : await readWhole(response);
    const bill = await account(encoded);
    if (isStreamed) context.output.note(`\n${told(bill)}`);
    else context.output.result({ text: words, ...bill }, () => words);
  });
}

/** The name of a served model of a task; the gateway says what is missing when there is none. */
export function firstModel(
  server: { directory: { all(): Iterable<{ signed: { offer: { models: readonly { id: string; task: string }[] } } }> } },
  task: string,
): string | undefined {
  for (const { signed } of server.directory.all()) {
    const found = signed.offer.models.find((model) => model.task === task);
    if (found !== undefined) return found.id;
  }
  return undefined;
}

async function readWhole(response: Response): Promise<[string, string | null]> {
  const { choices } = (await response.json()) as { choices: { message: { content: string } }[] };
  return [choices[0]?.message.content ?? '', response.headers.get(RECEIPT_HEADER)];
}

/** Prints the pieces of a stream of server-sent events; gives all of the text, and the receipt in its last comment. */
async function printStream(response: Response, print: (piece: string) => void): Promise<[string, string | undefined]> {
  const decoder = new TextDecoder();
  let [text, rest, receipt] = ['', '', undefined as string | undefined];
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() as string;
    for (const line of lines) {
      if (line.startsWith(`: ${RECEIPT_HEADER} `)) receipt = line.slice(RECEIPT_HEADER.length + 3);
      const piece = pieceOf(line);
      if (piece === '') continue;
      text += piece;
      print(piece);
    }
  }
  print('\n');
  return [text, receipt];
}

function pieceOf(line: string): string {
  if (!line.startsWith('data: {')) return '';
  const { choices } = JSON.parse(line.slice(6)) as { choices?: { delta?: { content?: string } }[] };
  return choices?.[0]?.delta?.content ?? '';
}
