/** What the first bytes of a TLS connection say: still too few, no TLS ClientHello, or one with the name that it asks for. */
export type ClientHello = 'incomplete' | 'garbage' | { serverName: string | undefined };

// The greatest ClientHello of browsers with post-quantum keys takes about 2 KB.
const CLIENT_HELLO_BYTES_MAX = 16_384;

const HANDSHAKE = 0x16;
const CLIENT_HELLO = 0x01;
const SERVER_NAME = 0;

/**
 * Reads the server name (RFC 6066, 3) from the first bytes of a TLS connection (RFC 8446, 4.1.2 and 5.1), which may be split over several
 * records. Nothing is believed: the name only chooses who gets the connection, TLS itself proves who that is.
 */
export function readClientHello(bytes: Buffer): ClientHello {
  const parts: Buffer[] = [];
  let at = 0;
  let wanted = 4;
  for (let have = 0; have < wanted; ) {
    if (bytes.length < at + 5) return bytes.length > at && bytes[at] !== HANDSHAKE ? 'garbage' : tooFew(bytes);
    const length = bytes.readUInt16BE(at + 3);
    if (bytes[at] !== HANDSHAKE || bytes[at + 1] !== 3 || length === 0 || length > CLIENT_HELLO_BYTES_MAX) return 'garbage';
    if (bytes.length < at + 5 + length) return tooFew(bytes);
    parts.push(bytes.subarray(at + 5, at + 5 + length));
    have += length;
    at += 5 + length;
    if (wanted === 4 && have >= 4) {
      const head = Buffer.concat(parts);
      if (head[0] !== CLIENT_HELLO) return 'garbage';
      wanted = 4 + head.readUIntBE(1, 3);
      if (wanted > CLIENT_HELLO_BYTES_MAX) return 'garbage';
    }
  }
  try {
    return { serverName: serverNameIn(Buffer.concat(parts).subarray(4, wanted)) };
  } catch {
    return 'garbage';
  }
}

function tooFew(bytes: Buffer): ClientHello {
  return bytes.length >= CLIENT_HELLO_BYTES_MAX ? 'garbage' : 'incomplete';
}

/** @throws RangeError when a length points beyond the end */
function serverNameIn(hello: Buffer): string | undefined {
  let at = 34; // version and random
  at += 1 + hello.readUInt8(at); // session id
  at += 2 + hello.readUInt16BE(at); // cipher suites
  at += 1 + hello.readUInt8(at); // compression methods
  if (at === hello.length) return undefined;
  const end = at + 2 + hello.readUInt16BE(at);
  for (at += 2; at < end; ) {
    const type = hello.readUInt16BE(at);
    const length = hello.readUInt16BE(at + 2);
    if (type === SERVER_NAME) {
      if (hello.readUInt8(at + 6) !== 0) return undefined;
      const nameLength = hello.readUInt16BE(at + 7);
      const name = hello.subarray(at + 9, at + 9 + nameLength);
      if (name.length !== nameLength || nameLength + 5 > length) throw new RangeError('name beyond its extension');
      return name.toString('latin1').toLowerCase();
    }
    at += 4 + length;
  }
  return undefined;
}
