import type { SeededRandom } from '../consensus/seeded-random.ts';

/** A request as users send it. */
export interface CorpusRequest {
  path: string;
  contentType: string;
  body: Buffer;
}

/** Requests that one user sent one after the other. */
export interface CorpusSession {
  /** Seconds of the day at which it began, 0 to 86,399. */
  secondOfDay: number;
  /** Uids that answered it: nothing of it is ever sent to them again, because they might remember it. */
  servedBy?: readonly number[];
  requests: readonly (CorpusRequest & { gapMs: number })[];
}

/**
 * What users ask for, as far as they allow it to be used: requests whose callers let validators run them again, and a starting stock. Probes are
 * drawn from it, so that they are spread as the users' requests are. Whoever plans must not give the same sessions twice: what comes back day
 * after day is told apart by its words (area 0.67 instead of 0.55 in the test).
 */
export interface ProbeCorpus {
  sessions: readonly CorpusSession[];
  /** Of all receipts seen, the share that allows to be run again: probes say so as often. Millionths. */
  replayShare: number;
  /** Share that asks to keep nothing, millionths. */
  forgetShare: number;
}

const SENTENCE = /[^.!?\n]+[.!?\n]*\s*/g;
const JITTER = 0.15;
const DRAWN = 6;
const KEPT = 0.5;

/**
 * A request that nobody has sent, made of those that users did: half of a prompt's sentences give way to others of their length, which are taken
 * out of `sentences` so that none is used twice, an
 * open seed is drawn anew, numbers that set how words are drawn stay. What is no JSON text (images, sounds) is left as it is: its bytes are
 * taken from the corpus, which is large enough that a repetition is what users do as well.
 */
export function varyRequest(
  request: CorpusRequest,
  { sentences, model, random }: { sentences: string[]; model: string | undefined; random: SeededRandom },
): CorpusRequest {
  if (!request.contentType.startsWith('application/json')) return request;
  const body = JSON.parse(request.body.toString('utf8')) as Record<string, unknown>;
  const vary = (text: string) => recombine(text, sentences, random);
  if (typeof body.input === 'string') body.input = vary(body.input);
  else if (Array.isArray(body.input) && body.input.every((text) => typeof text === 'string')) body.input = body.input.map(vary);
  if (Array.isArray(body.messages)) {
    body.messages = (body.messages as { role?: string; content?: unknown }[]).map((message) =>
      message.role === 'user' && typeof message.content === 'string' ? { ...message, content: vary(message.content) } : message,
    );
  }
  if (typeof body.model === 'string' && model !== undefined) body.model = model;
  if (typeof body.seed === 'number') body.seed = random.integer(0, 2 ** 31);
  return { ...request, body: Buffer.from(JSON.stringify(body)) };
}

/** The sentences of all texts that users wrote in these sessions. */
export function sentencesOf(sessions: readonly CorpusSession[]): string[] {
  return sessions.flatMap(({ requests }) =>
    requests.flatMap(({ contentType, body }) => (contentType.startsWith('application/json') ? textsOf(body) : [])).flatMap(splitSentences),
  );
}

/** A gap between two requests of a user, off by about a sixth. */
export function jitterGap(gapMs: number, random: SeededRandom): number {
  return Math.round(gapMs * Math.exp(JITTER * random.normal()));
}

function recombine(text: string, sentences: string[], random: SeededRandom): string {
  const own = splitSentences(text);
  if (own.length === 0) return text;
  return own
    .map((sentence) => {
      if (sentences.length === 0 || random.fraction() < KEPT) return sentence;
      // Of a few drawn ones the one that is nearest in length, so that sizes stay those of users.
      const drawn = Array.from({ length: DRAWN }, () => random.integer(0, sentences.length - 1));
      const offBy = (at: number) => Math.abs((sentences[at] as string).length - sentence.length);
      const nearest = drawn.reduce((best, at) => (offBy(at) < offBy(best) ? at : best));
      return sentences.splice(nearest, 1)[0] as string;
    })
    .join('')
    .trimEnd();
}

function splitSentences(text: string): string[] {
  return text.match(SENTENCE) ?? [];
}

function textsOf(bytes: Buffer): string[] {
  const body = JSON.parse(bytes.toString('utf8')) as Record<string, unknown>;
  const inputs = typeof body.input === 'string' ? [body.input] : Array.isArray(body.input) ? body.input : [];
  const messages = Array.isArray(body.messages) ? (body.messages as { role?: string; content?: unknown }[]) : [];
  const said = messages.filter(({ role }) => role === 'user').map(({ content }) => content);
  return [...inputs, ...said].filter((text) => typeof text === 'string');
}
