import { MillraceError } from '../../errors.ts';
import type { ChatRequest } from '../engines/engine.ts';

/** The longest conversation that is taken, in bytes of text. */
export const CHAT_BYTES_MAX = 64 << 10;

/**
 * A conversation as the text that the model continues: the texts of all messages in their order, two line ends between messages, nothing
 * before and nothing after, roles left out. The model has read a novel and no conversations: any mark of who speaks would only be noise.
 * A conversation without text is one line end.
 * @throws unsupported-parameter for images and tools, text-too-long
 */
export function textOfChat({ messages, tools, toolChoice }: ChatRequest): Uint8Array {
  if (tools !== undefined && tools.length > 0 && toolChoice !== 'none') throw unsupported('tools', 'it cannot call functions');
  const text = messages.map(({ content }) => content.map((piece) => textOf(piece)).join('')).join('\n\n');
  const bytes = Buffer.from(text === '' ? '\n' : text);
  if (bytes.length <= CHAT_BYTES_MAX) return bytes;
  throw new MillraceError('text-too-long', {
    actor: 'caller',
    message: `Got a conversation of ${bytes.length} bytes, expected at most ${CHAT_BYTES_MAX}`,
    values: { bytes: bytes.length, most: CHAT_BYTES_MAX },
    hint: 'Send the end of it: the model reads no more than its last bytes.',
  });
}

/** An error for what this model does not do: named, never passed over. */
export function unsupported(parameter: string, reason: string, values: Record<string, string | number> = {}): MillraceError {
  return new MillraceError('unsupported-parameter', {
    actor: 'caller',
    message: `This model does not take ${parameter}: ${reason}`,
    values: { parameter, reason, ...values },
    hint: 'Leave it out, or choose another model.',
  });
}

function textOf(piece: ChatRequest['messages'][number]['content'][number]): string {
  if (piece.type === 'text') return piece.text;
  throw unsupported('images', 'it reads text alone');
}
