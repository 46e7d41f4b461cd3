/** A rental with the TCP ports on which something listens in it; `as` is the local port that its document proposes. */
interface WithPorts {
  rentalId: bigint;
  ports: readonly { port: number; as: number }[];
}

/** The rental with the command that brings its ports here; undefined where it has none. */
type WithForward<Rental> = Omit<Rental, 'ports'> & { ports: { port: number; localPort: number }[]; forward: string | undefined };

/** Below it, ports are root's. */
const FIRST_FREE_PORT = 1024;
const ABOVE_ROOTS = 8000;
const LAST_PORT = 65_535;

/**
 * Says for each rental the `millrace forward` that brings its ports to this machine: each at the port that the document proposes, one that is root's by
 * 8000 higher (80 at 8080), and the next that is free where two rentals propose the same.
 */
export function proposeForwards<Rental extends WithPorts>(rentals: readonly Rental[]): WithForward<Rental>[] {
  const taken = new Set<number>();
  return rentals.map((rental) => {
    const ports = rental.ports.map(({ port, as }) => ({ port, localPort: freePort(as, taken) }));
    const pairs = ports.map(({ port, localPort }) => `${localPort}:${port}`).join(' ');
    return { ...rental, ports, forward: ports.length === 0 ? undefined : `millrace forward ${rental.rentalId} ${pairs}` };
  });
}

function freePort(wanted: number, taken: Set<number>): number {
  let port = wanted < FIRST_FREE_PORT ? ABOVE_ROOTS + wanted : wanted;
  while (taken.has(port)) port = port === LAST_PORT ? FIRST_FREE_PORT : port + 1;
  taken.add(port);
  return port;
}
