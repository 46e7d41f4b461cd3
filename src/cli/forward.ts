import { followRental, forwardPort, type PortForward } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import { rentalNumber } from './rent.ts';
import { untilStopped } from './running.ts';
import { openWallet } from './secrets.ts';
import { openSession } from './session.ts';

/** Options of `millrace forward`. */
export interface ForwardOptions {
  listen: string;
}

const LOOPBACK = /^(?:127\.\d{1,3}\.\d{1,3}\.\d{1,3}|::1|localhost)$/;
/** The same fault of a port is said again after so long. */
const FAULT_PAUSE_MS = 10_000;

/** Brings ports of a rental to this machine until Ctrl-C, or until the rental is over. */
export async function forward(context: CommandContext, text: string, pairs: readonly string[], { listen }: ForwardOptions): Promise<void> {
  const { output } = context;
  const leaseId = rentalNumber(text);
  const wanted = pairs.map(portPair);
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const reach = followRental(session.client, { leaseId, signer });
  // What is wrong with the rental or its machine is said now, not at the first connection.
  await (await reach(false)).state();
  const over = Promise.withResolvers<never>();
  over.promise.catch(() => {});
  const forwards: PortForward[] = [];
  try {
    for (const { port, localPort } of wanted) {
      const say = faultTeller((line) => output.note(line), port);
      const onFault = (fault: MillraceError) => (fault.code === 'lease-is-over' ? over.reject(fault) : say(fault));
      forwards.push(await forwardPort({ port, localPort, address: listen, reach, onFault }));
    }
    if (!LOOPBACK.test(listen)) output.note(`Whoever reaches ${listen} reaches these ports of your rental: nobody is asked who he is.`);
    const items = forwards.map(({ port, address, localPort }) => ({ port, address, localPort }));
    output.result({ rentalId: leaseId, items, next: null }, () =>
      items.map((item) => `${hostText(item.address)}:${item.localPort} → port ${item.port} of rental ${leaseId}`).join('\n'),
    );
    output.note('Press Ctrl-C to stop.');
    await Promise.race([untilStopped(context), over.promise]);
  } finally {
    await Promise.all(forwards.map((each) => each.close()));
  }
}

/** `8080` or `LOCAL:PORT`. @throws bad-option */
function portPair(text: string): { port: number; localPort: number } {
  const [, local, port] = /^(?:(\d{1,5}):)?(\d{1,5})$/.exec(text) ?? [];
  const pair = { port: Number(port), localPort: Number(local ?? port) };
  if (pair.port >= 1 && pair.port <= 65_535 && pair.localPort <= 65_535) return pair;
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got "${text.slice(0, 60)}" for a port, expected PORT or LOCAL:PORT with numbers up to 65535`,
    values: { got: text.slice(0, 60) },
    hint: 'For example: millrace forward 7 8080:80. LOCAL may be 0: any that is free.',
  });
}

/** Says faults of a port's connections, each kind once in a while: a client may try many times a second. */
function faultTeller(note: (line: string) => void, port: number): (fault: MillraceError) => void {
  const saidMs = new Map<string, number>();
  return ({ code, message, hint }) => {
    const nowMs = performance.now();
    if (nowMs - (saidMs.get(code) ?? Number.NEGATIVE_INFINITY) < FAULT_PAUSE_MS) return;
    saidMs.set(code, nowMs);
    note(`Port ${port}: ${message} (${code})${hint === undefined ? '' : `\n  ${hint}`}`);
  };
}

const hostText = (address: string) => (address.includes(':') ? `[${address}]` : address);
