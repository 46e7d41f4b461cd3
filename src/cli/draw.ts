import { parse } from 'node:path';
import { RECEIPT_HEADER } from '../inference/index.ts';
import { formatSize } from '../units.ts';
import { prepareAnswerFiles, writeAnswerFiles } from './answer-files.ts';
import { firstModel } from './ask.ts';
import type { CommandContext } from './context.ts';
import { withOwnGateway } from './inference.ts';
import { wholeNumber } from './run-job.ts';

const PICTURES_MAX = 10;

/** Lets a model of the network make pictures of a text, and writes each as the file that its miner made. */
export async function draw(
  context: CommandContext,
  prompt: string,
  options: { output: string; count: string; size?: string; model?: string; replay?: boolean },
): Promise<void> {
  const count = wholeNumber('--count', options.count, 1, PICTURES_MAX);
  await prepareAnswerFiles(Array.from({ length: count }, (_, index) => nameOf(options.output, index)));
  await withOwnGateway(context, options, async ({ send, account, told, server }) => {
    const model = options.model ?? firstModel(server, 'image-generation');
    const body = JSON.stringify({ model, prompt, n: count, size: options.size, response_format: 'b64_json' });
    const response = await send('/v1/images/generations', { body, type: 'application/json' });
    const { data } = (await response.json()) as { data: { b64_json: string }[] };
    const bill = await account(response.headers.get(RECEIPT_HEADER));
    const files = data.map(({ b64_json: picture }, index) => ({
      path: nameOf(options.output, index),
      bytes: Buffer.from(picture, 'base64'),
    }));
    await writeAnswerFiles(files);
    context.output.result({ items: files.map(({ path, bytes }) => ({ path, bytes: bytes.length })), next: null, ...bill }, () =>
      [...files.map(({ path, bytes }) => `${path} (${formatSize(bytes.length)})`), told(bill)].join('\n'),
    );
  });
}

/** The first is as it was named, the second NAME-2. */
function nameOf(output: string, index: number): string {
  if (index === 0) return output;
  const { ext } = parse(output);
  return `${output.slice(0, output.length - ext.length)}-${index + 1}${ext}`;
}
