import { randomBytes } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SeededRandom } from '../consensus/seeded-random.ts';
import type { Engine } from '../engines/engine.ts';
import { packWav } from '../serving/wav.ts';
import type { CorpusRequest, CorpusSession } from './probe-corpus.ts';
import { secretRandom } from './secret-random.ts';
import { varyImage } from './vary-image.ts';

/** What a stock is made with; what is missing gives no probes of that kind. */
export interface StockSources {
  /** Writes texts that nobody has read. */
  writer: Engine | undefined;
  /** Speaks. */
  speaker: Engine | undefined;
  /** Words to be spoken where a command is to be heard. */
  commands: readonly string[];
  /** Photographs (JPEG, PNG, WebP). */
  imagesFolder: string | undefined;
}

const MAKE_MS = 60_000;
const BEGINNINGS = [
  'Tell me',
  'What is',
  'Describe',
  'Please write',
  'I would like',
  'Why does',
  'How can',
  'Explain',
  'Give me',
  'Where did',
];
const LIMITS = [16, 24, 32, 48, 64];

/**
 * New requests for a subnet whose users have not yet allowed enough of theirs to be used: texts that a language model writes from a secret seed,
 * photographs varied, words spoken. It is made fresh each time; but it is not the users', and a miner may learn to tell it: it ends when there
 * is enough of theirs.
 */
export function createProbeStock(sources: StockSources): (paths: readonly string[], count: number) => Promise<CorpusSession[]> {
  return async (paths, count) => {
    const random = secretRandom(randomBytes(32), 'stock');
    const sessions: CorpusSession[] = [];
    for (const path of paths) {
      for (let made = 0; made < count; made += 1) {
        const request = await makeRequest(path, sources, random);
        if (request === undefined) break;
        sessions.push({ secondOfDay: random.integer(0, 86_399), requests: [{ ...request, gapMs: 0 }] });
      }
    }
    return sessions;
  };
}

async function makeRequest(path: string, sources: StockSources, random: SeededRandom): Promise<CorpusRequest | undefined> {
  if (path === '/v1/chat/completions') {
    const content = await writeText(sources, random);
    const stream = random.fraction() < 0.5;
    return json(path, { model: 'any', messages: [{ role: 'user', content }], max_tokens: random.pick(LIMITS), stream });
  }
  if (path === '/v1/embeddings' || path === '/v1/moderations') return json(path, { model: 'any', input: await writeText(sources, random) });
  if (path === '/v1/audio/speech') return json(path, { model: 'any', input: await writeText(sources, random), voice: 'alloy' });
  if (path === '/v1/images/generations') return json(path, { model: 'any', prompt: await writeText(sources, random), n: 1 });
  if (path === '/v1/tasks/detection' || path === '/v1/tasks/ocr') return pickImage(path, sources, random);
  if (path === '/v1/tasks/command') return speak(path, random.pick(sources.commands.length === 0 ? ['stop'] : sources.commands), sources);
  if (path === '/v1/tasks/activity') return speak(path, await writeText(sources, random), sources);
  return undefined;
}

async function writeText({ writer }: StockSources, random: SeededRandom): Promise<string> {
  const beginning = random.pick(BEGINNINGS);
  if (writer === undefined) return `${beginning} ${randomBytes(6).toString('base64url')}.`;
  const messages = [{ role: 'user' as const, content: [{ type: 'text' as const, text: `${beginning} ` }] }];
  const sampling = { temperature: 0.9, seed: random.integer(0, 2 ** 31), outputTokensMax: random.integer(24, 90) };
  const { text } = await writer.run({ task: 'chat', messages, sampling }, { signal: AbortSignal.timeout(MAKE_MS) });
  return `${beginning} ${text.replace(/\s+/g, ' ').trim()}`;
}

async function pickImage(path: string, { imagesFolder }: StockSources, random: SeededRandom): Promise<CorpusRequest | undefined> {
  if (imagesFolder === undefined) return undefined;
  const names = await readdir(imagesFolder).catch(() => []);
  const images = names.filter((name) => /\.(jpe?g|png|webp)$/i.test(name)).sort();
  if (images.length === 0) return undefined;
  const body = await varyImage(await readFile(join(imagesFolder, random.pick(images))), random);
  return { path, contentType: 'image/jpeg', body };
}

async function speak(path: string, text: string, { speaker }: StockSources): Promise<CorpusRequest | undefined> {
  if (speaker === undefined) return undefined;
  const { samples, sampleRateHz } = await speaker.run({ task: 'speech', text }, { signal: AbortSignal.timeout(MAKE_MS) });
  return { path, contentType: 'audio/wav', body: packWav(samples, sampleRateHz) };
}

function json(path: string, body: Record<string, unknown>): CorpusRequest {
  return { path, contentType: 'application/json', body: Buffer.from(JSON.stringify(body)) };
}
