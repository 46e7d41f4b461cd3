import { lookup as lookupName } from 'node:dns';
import { isIP, isIPv6, type LookupFunction } from 'node:net';
import { MillraceError } from '../errors.ts';

/** The name (TLS SNI) under which a node opens its tunnel at a relay. `.alt` is never in the DNS (RFC 9476). */
export const TUNNEL_NAME = 'tunnel.relay.alt';

const KEY_DIGITS = 40;
const LABEL = /^mr-[0-9a-f]{40}$/;
const BY_ADDRESS = /^([0-9a-f-]+)\.(ip4|ip6)\.alt$/;

/** The label that stands for a node in the host names under which relays carry it: `mr-` and 160 bits of its TLS key's fingerprint. */
export function relayLabel(transportKey: string): string {
  return `mr-${transportKey.slice(2, 2 + KEY_DIGITS).toLowerCase()}`;
}

/** The label at the start of a host name, when it names a node behind a relay. */
export function relayLabelIn(hostname: string): string | undefined {
  const first = hostname.slice(0, hostname.indexOf('.')).toLowerCase();
  return LABEL.test(first) ? first : undefined;
}

/** The endpoint of the relay behind which an endpoint is, `https://host:port`; undefined when it is a node's own. */
export function relayBehind(endpoint: string): string | undefined {
  const url = URL.parse(endpoint);
  if (url === null || relayLabelIn(url.hostname) === undefined) return undefined;
  const name = url.hostname.slice(url.hostname.indexOf('.') + 1);
  const address = addressOfName(name);
  const host = address === undefined ? name : isIPv6(address) ? `[${address}]` : address;
  return new URL(`https://${host}${url.port === '' ? '' : `:${url.port}`}`).origin;
}

/**
 * The endpoint of a node behind a relay: `https://mr-KEY.HOST:PORT`, HOST being the relay's name, or its address as `192-0-2-1.ip4.alt`. So
 * every node has a host name of its own: it is what TLS asks the relay for (SNI), and what signed requests are bound to. Peers of this
 * network find the relay behind it without the DNS; for foreign tools a relay with a name may publish a wildcard record.
 * @throws bad-endpoint when the relay's own endpoint is none, or is one at another relay
 */
export function relayedEndpoint(relayEndpoint: string, transportKey: string): string {
  const url = URL.parse(relayEndpoint);
  if (url?.protocol !== 'https:' || url.hostname === '' || relayBehind(relayEndpoint) !== undefined) {
    throw new MillraceError('bad-endpoint', {
      actor: 'peer',
      message: `Got relay endpoint "${relayEndpoint.slice(0, 80)}", expected https://host:port that is not at a relay itself`,
      values: { endpoint: relayEndpoint.slice(0, 80) },
    });
  }
  return `https://${relayLabel(transportKey)}.${hostAsName(url.hostname)}${url.port === '' ? '' : `:${url.port}`}`;
}

/** Finds the address behind a host name, as `net.connect` asks for it; for a node behind a relay that of the relay. */
export const lookupPeer: LookupFunction = (hostname, options, callback) => {
  const relay = relayLabelIn(hostname) === undefined ? hostname : hostname.slice(hostname.indexOf('.') + 1);
  const address = addressOfName(relay);
  if (address === undefined) return void lookupName(relay, options, callback as never);
  const family = isIPv6(address) ? 6 : 4;
  if (options.all === true) return void process.nextTick(() => callback(null, [{ address, family }]));
  process.nextTick(() => callback(null, address, family));
};

function hostAsName(hostname: string): string {
  const address = hostname.replace(/^\[|\]$/g, '');
  const family = isIP(address);
  if (family === 4) return `${address.replaceAll('.', '-')}.ip4.alt`;
  return family === 6 ? `${groupsOf(address).join('-')}.ip6.alt` : hostname;
}

function addressOfName(name: string): string | undefined {
  const found = BY_ADDRESS.exec(name);
  if (found === null) return undefined;
  const address = (found[1] as string).replaceAll('-', found[2] === 'ip4' ? '.' : ':');
  return isIP(address) === (found[2] === 'ip4' ? 4 : 6) ? address : undefined;
}

/** All eight groups of an IPv6 address: a host name's label may not begin or end with a dash. */
function groupsOf(address: string): string[] {
  const [head, tail] = address.split('::') as [string, string | undefined];
  const before = head === '' ? [] : head.split(':');
  const behind = tail === undefined || tail === '' ? [] : tail.split(':');
  return [...before, ...Array.from({ length: 8 - before.length - behind.length }, () => '0'), ...behind];
}
