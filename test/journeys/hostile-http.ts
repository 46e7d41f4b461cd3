/** Requests as a hostile stranger writes them: bytes on a plain socket. */
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';

/** The text of a GET request, with further header lines. */
export function get(path: string, headers = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n${headers}\r\n`;
}

/** The text of a POST request with a JSON body. */
export function post(path: string, body: string): string {
  return `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

/** The text of a JSON-RPC request. */
export function jsonRpc(body: string): string {
  return post('/', body);
}

/**
 * Sends bytes and gives all that came back until the other side closed, or `waitMs` (default 60,000) passed. With `dripMs` one more byte
 * follows each time that many milliseconds passed.
 */
export function rawHttp(
  port: number,
  bytes: string,
  { dripMs, waitMs = 60_000 }: { dripMs?: number; waitMs?: number } = {},
): Promise<string> {
  return new Promise((resolve) => {
    let received = '';
    let drip: NodeJS.Timeout | undefined;
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(bytes);
      if (dripMs !== undefined) drip = setInterval(() => socket.writable && socket.write('a'), dripMs);
    });
    const patience = setTimeout(() => socket.destroy(), waitMs);
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearInterval(drip);
      clearTimeout(patience);
      resolve(received);
    });
  });
}

/** The status of an answer; 0 when there was none. */
export function statusOf(answer: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1] ?? 0);
}

/** What a process holds in memory now, bytes. */
export function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}
