/** Payload bytes of one fr32 group: 127 bytes are 4 x 254 bits. */
export const FR32_RAW_BYTES = 127;
/** Bytes of the same group after padding: four 32-byte leaves whose two top bits are zero. */
export const FR32_PADDED_BYTES = 128;

/**
 * Fr32 padding of whole groups: every 254 bits of `source` become a 32-byte little-endian leaf with two zero bits on top.
 * Reads `groups * 127` bytes from `sourceOffset`, writes `groups * 128` bytes from the start of `target`. The target's
 * memory must be 4-byte aligned and the host little-endian (x64 and arm64 are).
 * Rule: Filecoin specification, "Data representation" (fr32).
 */
export function fr32Pad(source: Uint8Array, sourceOffset: number, groups: number, target: Uint8Array): void {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const out = new Uint32Array(target.buffer, target.byteOffset, groups * 32);
  let word = 0;
  let start = sourceOffset;
  for (let group = 0; group < groups; group += 1) {
    for (let i = 0; i < 8; i += 1) out[word + i] = view.getInt32(start + i * 4, true);
    out[word + 7] = (out[word + 7] as number) & 0x3fffffff;
    let at = start + 31; // bit 254 is bit 6 of byte 31
    for (let i = 0; i < 8; i += 1) {
      out[word + 8 + i] = (view.getInt32(at + i * 4, true) >>> 6) | ((source[at + i * 4 + 4] as number) << 26);
    }
    out[word + 15] = (out[word + 15] as number) & 0x3fffffff;
    at = start + 63; // bit 508 is bit 4 of byte 63
    for (let i = 0; i < 8; i += 1) {
      out[word + 16 + i] = (view.getInt32(at + i * 4, true) >>> 4) | ((source[at + i * 4 + 4] as number) << 28);
    }
    out[word + 23] = (out[word + 23] as number) & 0x3fffffff;
    at = start + 95; // bit 762 is bit 2 of byte 95
    for (let i = 0; i < 7; i += 1) {
      out[word + 24 + i] = (view.getInt32(at + i * 4, true) >>> 2) | ((source[at + i * 4 + 4] as number) << 30);
    }
    out[word + 31] = view.getInt32(at + 28, true) >>> 2;
    word += 32;
    start += FR32_RAW_BYTES;
  }
}

/** The inverse of `fr32Pad` for whole groups: 128 padded bytes give 127 of payload. */
export function fr32Unpad(padded: Uint8Array): Uint8Array {
  const groups = padded.length / FR32_PADDED_BYTES;
  const raw = Buffer.alloc(groups * FR32_RAW_BYTES);
  for (let group = 0; group < groups; group += 1) {
    let bits = 0n;
    for (let leaf = 3; leaf >= 0; leaf -= 1) {
      const start = group * FR32_PADDED_BYTES + leaf * 32;
      const value = BigInt(
        `0x${Buffer.from(padded.subarray(start, start + 32))
          .reverse()
          .toString('hex')}`,
      );
      bits = (bits << 254n) | value;
    }
    const bytes = Buffer.from(bits.toString(16).padStart(FR32_RAW_BYTES * 2, '0'), 'hex').reverse();
    bytes.copy(raw, group * FR32_RAW_BYTES);
  }
  return raw;
}
