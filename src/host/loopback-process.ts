/**
 * A process in the network of one job, started by the node (`loopback.ts`): it connects to the port that it is told, at the loopback there, and
 * hands the connected socket to its node. It reads and writes nothing on it. It ends with its node.
 */
import { closeSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { type LoopbackAnswer, type LoopbackCall, NETWORK_FD, USER_FD } from './loopback-messages.ts';

/** Debian’s `nobody`, who owns nothing. */
const NOBODY = 65_534;
const CONNECT_TIMEOUT_MS = 10_000;
/** Many a program listens at one of the two alone. */
const ADDRESSES = ['127.0.0.1', '::1'] as const;

closeSync(NETWORK_FD);
if (process.argv[2] === 'user') closeSync(USER_FD);
else {
  process.setgroups?.([]);
  process.setgid?.(NOBODY);
  process.setuid?.(NOBODY);
}
process.on('message', ({ id, port }: LoopbackCall) => {
  const answer = (fault: string | undefined, socket?: Socket) => {
    process.send?.({ id, ...(fault === undefined ? {} : { fault }) } satisfies LoopbackAnswer, socket);
  };
  tryAddresses(port, answer);
});
process.on('disconnect', () => process.exit(0));

function tryAddresses(port: number, answer: (fault: string | undefined, socket?: Socket) => void): void {
  const [first, ...others] = ADDRESSES;
  attempt(first, port, (fault, socket) => {
    const second = others[0];
    if (fault !== 'ECONNREFUSED' || second === undefined) return answer(fault, socket);
    // Without IPv6 the second one fails in another way; the first says what is the matter.
    attempt(second, port, (later, found) => answer(later === undefined ? undefined : fault, found));
  });
}

function attempt(host: string, port: number, tell: (fault: string | undefined, socket?: Socket) => void): void {
  const socket = connect({ host, port, allowHalfOpen: true });
  // Before it is connected: not a byte is read here.
  socket.pause();
  let isTold = false;
  const settle = (fault: string | undefined) => {
    if (isTold) return;
    isTold = true;
    socket.setTimeout(0);
    if (fault === undefined) return tell(undefined, socket);
    socket.destroy();
    tell(fault);
  };
  socket.setTimeout(CONNECT_TIMEOUT_MS, () => settle('ETIMEDOUT'));
  socket.once('connect', () => settle(undefined));
  socket.on('error', (error: NodeJS.ErrnoException) => settle(error.code ?? 'ECONNRESET'));
}
