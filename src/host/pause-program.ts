import { MillraceError } from '../errors.ts';

const HEADER_BYTES = 64;
const SEGMENT_BYTES = 56;
const LOAD_ADDRESS = 0x400000n;
const BLOCK = 512;

/** Machine and code by Node's name of the processor: asks the kernel to sleep, again and again (x86-64: pause; ARM64: ppoll of nothing). */
const PROGRAMS: Partial<Record<NodeJS.Architecture, { machine: number; code: string }>> = {
  x64: { machine: 0x3e, code: 'b8220000000f05ebf7' },
  arm64: { machine: 0xb7, code: '000080d2010080d2020080d2030080d2280980d2010000d4faffff17' },
};

/**
 * A program that only waits, as a static ELF file of about 130 bytes: what holds a container's network namespace while the jobs in it come
 * and go (the part that Kubernetes' pause container has), so no foreign image is needed for it.
 * @throws sandbox-failed on a processor that it was not written for
 */
export function pauseProgram(architecture: NodeJS.Architecture = process.arch): Buffer {
  const program = PROGRAMS[architecture];
  if (program === undefined) {
    throw new MillraceError('sandbox-failed', {
      actor: 'host',
      message: `There is no program that holds a network for processors of the kind ${architecture}`,
      values: { architecture },
    });
  }
  const code = Buffer.from(program.code, 'hex');
  const file = Buffer.alloc(HEADER_BYTES + SEGMENT_BYTES + code.length);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // 64 bits, little-endian, version 1
  file.writeUInt16LE(2, 16); // executable
  file.writeUInt16LE(program.machine, 18);
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(LOAD_ADDRESS + BigInt(HEADER_BYTES + SEGMENT_BYTES), 24); // entry
  file.writeBigUInt64LE(BigInt(HEADER_BYTES), 32);
  file.writeUInt16LE(HEADER_BYTES, 52);
  file.writeUInt16LE(SEGMENT_BYTES, 54);
  file.writeUInt16LE(1, 56);
  const segment = HEADER_BYTES;
  file.writeUInt32LE(1, segment); // load
  file.writeUInt32LE(5, segment + 4); // read and execute
  file.writeBigUInt64LE(LOAD_ADDRESS, segment + 16);
  file.writeBigUInt64LE(LOAD_ADDRESS, segment + 24);
  file.writeBigUInt64LE(BigInt(file.length), segment + 32);
  file.writeBigUInt64LE(BigInt(file.length), segment + 40);
  file.writeBigUInt64LE(0x10000n, segment + 48);
  file.set(code, HEADER_BYTES + SEGMENT_BYTES);
  return file;
}

/** The root file system of its image: `/pause` alone, as a tar archive. */
export function pauseImage(architecture: NodeJS.Architecture = process.arch): Buffer {
  const program = pauseProgram(architecture);
  const header = Buffer.alloc(BLOCK);
  const put = (text: string, at: number) => void header.write(text, at, 'latin1');
  put('pause', 0);
  put('0000755\0', 100);
  put('0000000\0', 108);
  put('0000000\0', 116);
  put(`${program.length.toString(8).padStart(11, '0')}\0`, 124);
  put('00000000000\0', 136);
  put('        ', 148);
  put('0', 156);
  put('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((BLOCK - (program.length % BLOCK)) % BLOCK);
  return Buffer.concat([header, program, padding, Buffer.alloc(2 * BLOCK)]);
}
