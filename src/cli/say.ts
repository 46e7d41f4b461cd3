import { RECEIPT_HEADER } from '../inference/index.ts';
import { formatSize } from '../units.ts';
import { prepareAnswerFiles, writeAnswerFiles } from './answer-files.ts';
import { firstModel } from './ask.ts';
import type { CommandContext } from './context.ts';
import { withOwnGateway } from './inference.ts';

/** Lets a voice of the network read a text, and writes the sound as a WAV file. */
export async function say(
  context: CommandContext,
  text: string,
  options: { output: string; voice: string; model?: string; replay?: boolean },
): Promise<void> {
  await prepareAnswerFiles([options.output]);
  await withOwnGateway(context, options, async ({ send, account, told, server }) => {
    const model = options.model ?? firstModel(server, 'speech');
    const body = JSON.stringify({ model, input: text, voice: options.voice, response_format: 'wav' });
    const response = await send('/v1/audio/speech', { body, type: 'application/json' });
    const sound = Buffer.from(await response.arrayBuffer());
    const bill = await account(response.headers.get(RECEIPT_HEADER));
    await writeAnswerFiles([{ path: options.output, bytes: sound }]);
    context.output.result({ path: options.output, bytes: sound.length, ...bill }, () =>
      [`${options.output} (${formatSize(sound.length)})`, told(bill)].join('\n'),
    );
  });
}
