import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { ChainClient, Signer } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { openRentalClient, type RentalClient } from './rental-client.ts';
import { findRental } from './rentals.ts';

/** A port of this machine behind which a port of a rental lies. */
export interface PortForward {
  port: number;
  address: string;
  localPort: number;
  /** Stops listening and cuts its connections. */
  close(): Promise<void>;
}

/** What is forwarded, and how the rental is reached. */
export interface PortForwardOptions {
  /** In the rental. */
  port: number;
  /** Of this machine; 0: any that is free. */
  localPort: number;
  /** On which it listens. */
  address: string;
  /** Gives the rental's client; with `isAnew` the one before does not do any more. */
  reach: (isAnew: boolean) => Promise<RentalClient>;
  /** Told why a connection failed; it was cut. */
  onFault: (fault: MillraceError) => void;
}

/** The machine serves another lease by now: one that extends it, more likely than not. */
const MOVED: ReadonlySet<string> = new Set(['lease-not-running', 'lease-unknown']);
/** Nothing is wrong with how it is reached. */
const OF_PORT: ReadonlySet<string> = new Set(['port-refused', 'port-cut', 'ports-unsupported', 'connections-too-many', 'workspace-ended']);

/**
 * Listens on this machine; each connection is joined with one to the rental's port, over the connection to its machine that commands take as well.
 * It goes on while sandboxes are made anew and leases extended: only the connections of then are cut.
 * @throws port-in-use, listen-failed
 */
export async function forwardPort(options: PortForwardOptions): Promise<PortForward> {
  const { port, address, localPort, onFault } = options;
  const connections = new Set<Socket>();
  const stop = new AbortController();
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (connection) => {
    connections.add(connection);
    connection.once('close', () => connections.delete(connection));
    connection.on('error', () => {});
    join(connection, options, stop.signal).catch((error: unknown) => {
      const isOurs = stop.signal.aborted || connection.destroyed;
      connection.resetAndDestroy();
      if (!isOurs) onFault(toMillraceError(error));
    });
  });
  await listen(server, { localPort, address });
  return {
    port,
    address,
    localPort: (server.address() as AddressInfo).port,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      stop.abort();
      for (const connection of connections) connection.destroy();
      await closed;
    },
  };
}

/** Reaches the lease that a rental runs on now, also after it was extended. @throws rental-unknown, lease-is-over, unknown-operator, chain-unreachable */
export function followRental(client: ChainClient, { leaseId, signer }: { leaseId: bigint; signer: Signer }): PortForwardOptions['reach'] {
  let known: Promise<RentalClient> | undefined;
  const find = async () => {
    const { rentalId, current, state } = await findRental(client, { renter: signer.address, leaseId });
    if (state === 'ended' || state === 'closed') throw isOver(rentalId);
    return await openRentalClient(client, { leaseId: current.leaseId, signer });
  };
  return (isAnew) => {
    if (isAnew) known = undefined;
    known ??= find().catch((error: unknown) => {
      known = undefined;
      throw error;
    });
    return known;
  };
}

async function join(connection: Socket, { port, reach }: PortForwardOptions, signal: AbortSignal): Promise<void> {
  const attempt = async (isAnew: boolean) => (await reach(isAnew)).joinPort(port, connection, { signal });
  try {
    await attempt(false);
  } catch (error) {
    const { code } = toMillraceError(error);
    if (MOVED.has(code)) return await attempt(true);
    // The next connection looks again where the rental is.
    if (!OF_PORT.has(code)) void reach(true).catch(() => {});
    throw error;
  }
}

function listen(server: Server, { localPort, address }: { localPort: number; address: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const isTaken = cause.code === 'EADDRINUSE' || cause.code === 'EACCES';
      reject(
        new MillraceError(isTaken ? 'port-in-use' : 'listen-failed', {
          actor: 'caller',
          message: `Cannot listen on ${address}:${localPort}: ${cause.message}`,
          values: { host: address, port: localPort },
          hint: 'Say another port of this machine before the rental’s: millrace forward 7 8080:80.',
          cause,
        }),
      );
    });
    server.listen(localPort, address, resolve);
  });
}

function isOver(rentalId: bigint): MillraceError {
  return new MillraceError('lease-is-over', {
    actor: 'caller',
    message: `Rental ${rentalId} is over`,
    values: { rentalId },
    hint: 'See `millrace rentals --all`.',
  });
}
