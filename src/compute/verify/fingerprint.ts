/** An output of a job: path and bytes. */
export interface OutputFile {
  path: string;
  bytes: Uint8Array;
}

/** Numbers of an output that one group of its fingerprint stands for, and how many of them it keeps: the largest. */
const GROUP_NUMBERS = 256;
const KEPT = 32;
/** How deep among one's own largest numbers a place must lie: honest runs differ in the order of nearly equal numbers. */
const DEPTH = 2 * KEPT;
const NUMBER_BYTES = 4;
const ENTRY_BYTES = 3;
const GROUP_BYTES = KEPT * ENTRY_BYTES;
/** So many steps of bfloat16 are a factor of two: no likeness at all. */
const STEPS_MAX = 128;
const PPM = 1_000_000;
const HONEST_MIN = 8;

/**
 * The fingerprint of outputs that are rows of float32 (little end first), such as a model's activations: of each 256 numbers the 32 largest by
 * magnitude, each as its place (one byte) and its value as bfloat16 (two bytes): 96 bytes for 1,024 (after TOPLOC, arXiv 2501.16007). Files
 * are taken sorted by path; numbers that fill no group are not seen.
 */
export function fingerprintOf(files: readonly OutputFile[]): Uint8Array {
  return Buffer.concat(
    groupsOf(files).map((group) => {
      const entries = Buffer.alloc(GROUP_BYTES);
      for (const [order, place] of largest(group, KEPT).entries()) {
        entries.writeUInt8(place, order * ENTRY_BYTES);
        entries.writeUInt16LE(group[place] as number, order * ENTRY_BYTES + 1);
      }
      return entries;
    }),
  );
}

/**
 * How far a fingerprint is from one's own outputs, in millionths: the mean over its entries of the difference in steps of bfloat16, 128 steps or
 * more counting as 1. A place named twice, or that is not among the 64 largest here, counts as 1; so does a whole fingerprint of another size.
 */
export function fingerprintDistancePpm(fingerprint: Uint8Array, own: readonly OutputFile[]): number {
  const groups = groupsOf(own);
  if (groups.length === 0 || fingerprint.length !== groups.length * GROUP_BYTES) return PPM;
  const view = new DataView(fingerprint.buffer, fingerprint.byteOffset, fingerprint.byteLength);
  let steps = 0;
  for (const [order, group] of groups.entries()) {
    const allowed = new Set(largest(group, DEPTH));
    for (let entry = 0; entry < KEPT; entry += 1) {
      const at = order * GROUP_BYTES + entry * ENTRY_BYTES;
      const place = view.getUint8(at);
      const difference = Math.abs(ordinal(view.getUint16(at + 1, true)) - ordinal(group[place] as number));
      steps += allowed.delete(place) ? Math.min(difference, STEPS_MAX) : STEPS_MAX;
    }
  }
  return Math.round((PPM * steps) / (STEPS_MAX * KEPT * groups.length));
}

/**
 * A threshold for a job, from distances of honest runs on unlike machines and of runs that were altered as a cheat would: half-way between the
 * largest honest and the smallest altered. Undefined where they overlap or too few were measured: such a job must not be of this class.
 */
export function calibrateThresholdPpm(honest: readonly number[], altered: readonly number[]): number | undefined {
  if (honest.length < HONEST_MIN || altered.length < HONEST_MIN) return undefined;
  const [most, least] = [Math.max(...honest), Math.min(...altered)];
  return most < least ? Math.floor((most + least) / 2) : undefined;
}

/** The outputs as groups of bfloat16 numbers. */
function groupsOf(files: readonly OutputFile[]): Uint16Array[] {
  const sorted = [...files].sort((one, other) => (one.path < other.path ? -1 : 1));
  return sorted.flatMap(({ bytes }) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const count = Math.floor(bytes.length / (GROUP_NUMBERS * NUMBER_BYTES));
    return Array.from({ length: count }, (_, group) =>
      Uint16Array.from({ length: GROUP_NUMBERS }, (_each, at) =>
        toBfloat16(view.getUint32((group * GROUP_NUMBERS + at) * NUMBER_BYTES, true)),
      ),
    );
  });
}

function largest(group: Uint16Array, count: number): number[] {
  const magnitude = (place: number) => (group[place] as number) & 0x7fff;
  return [...group.keys()].sort((one, other) => magnitude(other) - magnitude(one) || one - other).slice(0, count);
}

/** The bits of a float32 rounded to bfloat16, half away from zero; what would overflow stays the largest or infinite as it was. */
function toBfloat16(bits: number): number {
  const isSpecial = (bits & 0x7f800000) === 0x7f800000;
  return isSpecial ? bits >>> 16 : (Math.min((bits & 0x7fffffff) + 0x8000, 0x7f800000) >>> 16) | ((bits >>> 31) << 15);
}

/** bfloat16 bits as a number that grows with the value, one by one. */
function ordinal(bits: number): number {
  return (bits & 0x8000) === 0 ? bits : -(bits & 0x7fff);
}
