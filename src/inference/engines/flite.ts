import { ConsoleStdout, File, type Inode, OpenFile, PreopenDirectory, WASI } from '@bjorn3/browser_wasi_shim';
import { MillraceError } from '../../errors.ts';

/** A compiled program; the compiler knows the host's WebAssembly only for browsers. */
export type SpeechProgram = object;

const { WebAssembly: webAssembly } = globalThis as unknown as {
  WebAssembly: {
    compile(bytes: Uint8Array): Promise<SpeechProgram>;
    Instance: new (program: SpeechProgram, imports: object) => { exports: { memory: { buffer: ArrayBuffer }; _start(): unknown } };
  };
};

/** Compiles the synthesiser, once for all its runs. */
export function compileFlite(bytes: Uint8Array): Promise<SpeechProgram> {
  return webAssembly.compile(bytes);
}

/** What one run of the synthesiser gives. */
export interface SpokenAudio {
  samples: Float32Array;
  sampleRateHz: number;
  /** The program's memory as it ended. */
  memory: Uint8Array;
}

/** Settings of the voice; the names are Flite's own features. */
export interface VoiceSettings {
  voice: string;
  /** 1 is the voice's own speed; 2 takes half the time. */
  speed?: number;
  /** Mean pitch in hertz; the voice's own when left out. */
  pitchHz?: number;
}

/**
 * Runs CMU Flite (a WASI program) for one text in a memory of its own. Its whole world is one folder in this process's memory: it has no
 * file, clock of use, or network of the host.
 * @throws speech-failed
 */
export function speak(program: SpeechProgram, text: string, settings: VoiceSettings): SpokenAudio {
  const { voice, speed = 1, pitchHz } = settings;
  const folder = new PreopenDirectory('/w', new Map<string, Inode>());
  const said: string[] = [];
  const console = ConsoleStdout.lineBuffered((line) => void (said.length < 20 && said.push(line.slice(0, 200))));
  const features = [`duration_stretch=${(1 / speed).toFixed(4)}`, ...(pitchHz === undefined ? [] : [`int_f0_target_mean=${pitchHz}`])];
  const args = ['flite', '-voice', voice, ...features.flatMap((feature) => ['--setf', feature]), '-t', text, '-o', '/w/out.wav'];
  const wasi = new WASI(args, [], [new OpenFile(new File([])), console, console, folder], { debug: false });
  const { exports } = new webAssembly.Instance(program, { wasi_snapshot_preview1: wasi.wasiImport });
  let reason = '';
  try {
    const code = wasi.start({ exports } as never);
    if (code !== 0) reason = `it ended with code ${code}`;
  } catch (error) {
    reason = (error as Error).message;
  }
  const file = folder.dir.contents.get('out.wav');
  if (reason !== '' || !(file instanceof File) || file.data.length <= 44) throw speechFailed(reason || 'it wrote no audio', said);
  return { ...readPcm(file.data), memory: new Uint8Array(exports.memory.buffer) };
}

/** The samples of the WAV file that Flite writes: 16 bits, mono, one data chunk. */
function readPcm(wav: Uint8Array): { samples: Float32Array; sampleRateHz: number } {
  const view = new DataView(wav.buffer, wav.byteOffset, wav.byteLength);
  const count = (wav.length - 44) >> 1;
  const samples = new Float32Array(count);
  for (let at = 0; at < count; at += 1) samples[at] = view.getInt16(44 + 2 * at, true) / 32_768;
  return { samples, sampleRateHz: view.getUint32(24, true) };
}

function speechFailed(reason: string, said: readonly string[]): MillraceError {
  return new MillraceError('speech-failed', {
    actor: 'caller',
    message: `The text could not be spoken: ${reason}`,
    values: { reason, said: said.slice(0, 3).join(' | ') },
    hint: 'Send English words.',
  });
}
