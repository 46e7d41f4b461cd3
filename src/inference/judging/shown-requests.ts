import { MillraceError } from '../../errors.ts';
import type { ChannelConfig } from '../../token/index.ts';
import { badRequest } from '../serving/failure.ts';
import type { ShownRequest } from './judging-ports.ts';

/** Where a validator takes users' requests that gateways show. */
export const SHOWN_PATH = '/v1/inference/shown';
/** Header: base64url of the channel's terms as JSON; whose payer signs the message. */
export const CHANNEL_HEADER = 'millrace-channel';
/** What the signature of a message covers besides what every one does. */
export const SHOWN_SIGNED_HEADERS = [CHANNEL_HEADER, 'content-digest'] as const;
/** Of one message, and of one request with its answer, before base64. */
export const SHOWN_LIMITS = { messageBytes: 8 << 20, requestBytes: 4 << 20, requests: 32, paid: 1_000_000 } as const;

/** What a gateway shows of one channel and one path: how many requests it has paid since the last time, and some of those that may be repeated. */
export interface ShownMessage {
  path: string;
  paid: number;
  requests: Omit<ShownRequest, 'uid' | 'payer' | 'path'>[];
}

const PATH_CHARACTERS_MAX = 128;
const TEXT_LIMITS = { query: 1024, contentType: 256, receipt: 4096 } as const;
const HEADER_CHARACTERS_MAX = 2048;

/** A message as bytes of JSON. */
export function writeShown({ path, paid, requests }: ShownMessage): Buffer {
  const items = requests.map(({ requestBody, answer, ...rest }) => ({
    ...rest,
    requestBody: requestBody.toString('base64'),
    answer: answer.toString('base64'),
  }));
  return Buffer.from(JSON.stringify({ path, paid, requests: items }));
}

/** Reads a stranger's message. @throws bad-request */
export function readShown(bytes: Buffer): ShownMessage {
  let body: { path?: unknown; paid?: unknown; requests?: unknown };
  try {
    body = JSON.parse(bytes.toString('utf8')) as typeof body;
  } catch {
    throw badRequest('body', 'something else', 'JSON');
  }
  const { path, paid, requests } = body ?? {};
  if (typeof path !== 'string' || path.length > PATH_CHARACTERS_MAX) throw badRequest('path', typeof path, 'where the requests were made');
  if (!Number.isInteger(paid) || (paid as number) < 0 || (paid as number) > SHOWN_LIMITS.paid) {
    throw badRequest('paid', String(paid).slice(0, 20), `a whole number up to ${SHOWN_LIMITS.paid}`);
  }
  if (!Array.isArray(requests) || requests.length > SHOWN_LIMITS.requests) {
    throw badRequest('requests', 'something else', `a list of at most ${SHOWN_LIMITS.requests}`);
  }
  return { path, paid: paid as number, requests: requests.map(readOne) };
}

function readOne(given: unknown): ShownMessage['requests'][number] {
  const fields = (typeof given === 'object' && given !== null ? given : {}) as Record<string, unknown>;
  const text = (name: keyof typeof TEXT_LIMITS): string => {
    const value = fields[name] ?? (name === 'query' ? '' : undefined);
    if (typeof value === 'string' && value.length <= TEXT_LIMITS[name]) return value;
    throw badRequest(name, typeof value, `a text of at most ${TEXT_LIMITS[name]} characters`);
  };
  const bytes = (name: string): Buffer => {
    const value = fields[name];
    if (typeof value === 'string') return Buffer.from(value, 'base64');
    throw badRequest(name, typeof value, 'base64');
  };
  const [requestBody, answer] = [bytes('requestBody'), bytes('answer')];
  if (requestBody.length + answer.length > SHOWN_LIMITS.requestBytes) {
    throw badRequest('requests', `${requestBody.length + answer.length} bytes`, `at most ${SHOWN_LIMITS.requestBytes} each`);
  }
  return { query: text('query'), contentType: text('contentType'), receipt: text('receipt'), requestBody, answer };
}

/** A channel's terms as a header. */
export function channelHeader(config: ChannelConfig): string {
  return Buffer.from(JSON.stringify(config)).toString('base64url');
}

/** Reads a channel's terms from a header. @throws bad-channel */
export function readChannelHeader(header: string | null): ChannelConfig {
  try {
    if (header === null || header.length > HEADER_CHARACTERS_MAX) throw new RangeError('length');
    const fields = JSON.parse(Buffer.from(header, 'base64url').toString('utf8')) as Record<string, unknown>;
    const hex = (name: string, digits: number): `0x${string}` => {
      const value = fields[name];
      if (typeof value === 'string' && value.length === digits + 2 && /^0x[0-9a-fA-F]+$/.test(value)) return value as `0x${string}`;
      throw new RangeError(name);
    };
    return {
      payer: hex('payer', 40),
      payerAuthorizer: hex('payerAuthorizer', 40),
      receiver: hex('receiver', 40),
      receiverAuthorizer: hex('receiverAuthorizer', 40),
      token: hex('token', 40),
      withdrawDelay: Number(fields.withdrawDelay),
      salt: hex('salt', 64),
    };
  } catch (error) {
    throw new MillraceError('bad-channel', {
      actor: 'caller',
      message: `The header ${CHANNEL_HEADER} holds no channel: ${(error as Error).message.slice(0, 80)}`,
      hint: 'Send the base64url of the JSON of the channel’s terms.',
    });
  }
}
