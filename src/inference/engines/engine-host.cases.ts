/** A kernel for tests of the host: it does what the text of the request says. */
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EmbeddingRequest, EmbeddingResult } from './engine.ts';
import type { OpenKernel } from './kernel.ts';

const hoard: Buffer[] = [];

/** Another in each process; process numbers begin anew in each sandbox. */
const NAME = randomUUID();

/** Opens nothing; the texts are commands. */
export const openKernel: OpenKernel = async () => ({
  async run(request, { signal, onPart }): Promise<EmbeddingResult> {
    const [command = '', argument = ''] = (request as EmbeddingRequest).texts;
    let said = '';
    if (command === 'spin') while (argument === '') said = '';
    if (command === 'die') process.exit(7);
    if (command === 'hoard') for (;;) hoard.push(Buffer.alloc(32 << 20, 1));
    if (command === 'wait') await sleep(Number(argument), undefined, { signal });
    if (command === 'stream') for (const word of argument.split(' ')) onPart({ type: 'text', text: word, tokens: 1 });
    if (command === 'environment') said = Object.keys(process.env).sort().join(' ');
    if (command === 'network') said = await tryNetwork();
    if (command === 'name') said = NAME;
    return {
      task: 'embedding',
      vectors: [Float32Array.from(Buffer.from(said))],
      usage: { unit: 'tokens', input: 1, output: 0 },
      outputDigest: '0x',
    };
  },
});

function tryNetwork(): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host: '192.0.2.1', port: 9 });
    socket.setTimeout(2_000, () => resolve('timeout'));
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error')).on('connect', () => resolve('connected'));
  });
}
