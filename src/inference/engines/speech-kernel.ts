import { MillraceError } from '../../errors.ts';
import type { SpeechRequest, SpeechResult } from './engine.ts';
import { compileFlite, speak } from './flite.ts';
import type { OpenKernel } from './kernel.ts';
import { bytesOf, createWitnessRecord, digestOutputs } from './witness.ts';

const SPEED_MIN = 0.25;
const SPEED_MAX = 4;
const PAGE_BYTES = 65_536;

/** Opens the speech synthesiser. The witness of a run is pages of the program's memory as it ended. */
export const openKernel: OpenKernel = async ({ card, read }) => {
  const program = await compileFlite(await read('flite.wasm'));
  const voices = card.voices ?? [];
  return {
    async run(request): Promise<SpeechResult> {
      const { text, voice = voices[0] as string, speed = 1, witness } = request as SpeechRequest;
      const record = witness === undefined ? undefined : createWitnessRecord(witness, card.root);
      if (!voices.includes(voice)) throw unsupported('voice', voice.slice(0, 80), voices);
      if (!(speed >= SPEED_MIN && speed <= SPEED_MAX)) throw unsupported('speed', String(speed), [`${SPEED_MIN} to ${SPEED_MAX}`]);
      const { samples, sampleRateHz, memory } = speak(program, readable(text), { voice, speed });
      for (const page of record?.pick('memory', memory.length / PAGE_BYTES) ?? []) {
        record?.add(`memory:${page}`, [PAGE_BYTES], memory.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES));
      }
      return {
        task: 'speech',
        samples,
        sampleRateHz,
        usage: { unit: 'characters', input: text.length, output: 0 },
        outputDigest: digestOutputs([{ name: 'samples', shape: [samples.length], bytes: bytesOf(samples) }]),
        ...(record === undefined ? {} : { witness: record.finish() }),
      };
    },
  };
};

/** Control characters become spaces; letters lose the accents that the voices do not know. */
function readable(text: string): string {
  return text
    .normalize('NFKD')
    .replace(/\p{M}/gu, '')
    .replace(/\p{C}/gu, ' ')
    .replace(/[‘’]/g, "'")
    .replace(/[“”]/g, '"')
    .replace(/[–—]/g, ', ')
    .trim();
}

function unsupported(parameter: string, got: string, expected: readonly string[]): MillraceError {
  return new MillraceError('unsupported-parameter', {
    actor: 'caller',
    message: `Got ${parameter} "${got}", expected ${expected.join(', ')}`,
    values: { parameter, got, expected: expected.join(', ') },
    hint: 'The list of models names what each of them takes.',
  });
}
