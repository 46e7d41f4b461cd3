import { MillraceError } from '../errors.ts';
import { startWebServer } from '../gateway/index.ts';
import { sourcesOf } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { untilStopped } from './running.ts';
import { openSession } from './session.ts';

/** Serves public content of the network to browsers of this machine, verified, until Ctrl-C. */
export async function gateway(context: CommandContext, options: { port: string }): Promise<void> {
  const port = Number(options.port);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: `Got --port ${options.port}, expected a port`,
      values: { got: options.port },
    });
  }
  const { client, log } = await openSession(context);
  const server = await startWebServer({ port, sourcesOf: (cid) => sourcesOf(client, cid), log });
  const url = `http://${server.host}:${server.port}`;
  context.output.result({ url }, () => `Public content is at ${url}/ipfs/CID, every block verified. Press Ctrl-C to stop.`);
  await untilStopped(context);
  await server.stop();
}
