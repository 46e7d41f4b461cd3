import { createHash } from 'node:crypto';
import { MillraceError } from '../../errors.ts';
import type { Witness, WitnessRequest } from './engine.ts';

/** Gathers intermediate values of one run into one digest. */
export interface WitnessRecord {
  /** Which of `count` values of a part are wanted: at most `TAPS` different numbers, drawn from nonce, operator, model and part. */
  pick(part: string, count: number): number[];
  /** Takes one value in: its place, its shape, its bytes. */
  add(tap: string, shape: readonly number[], bytes: Uint8Array): void;
  finish(): Witness;
}

/** Values taken of each part of a model at each of its runs. */
const TAPS = 3;
const DOMAIN = 'millrace/witness/1';

/**
 * A record for a witness: SHA-256 over domain, model root, nonce and operator, then every value taken, each with its place and shape. Who
 * has no model cannot compute it, and who asks a miner with the model gets a digest that names that miner's operator.
 * @throws bad-witness-request
 */
export function createWitnessRecord(request: WitnessRequest, root: string): WitnessRecord {
  const { nonce, operator } = request;
  if (!/^0x[0-9a-f]{64}$/i.test(nonce) || !/^0x[0-9a-f]{40}$/i.test(operator)) {
    throw new MillraceError('bad-witness-request', {
      actor: 'caller',
      message: 'A witness needs a nonce of 32 bytes and the address of an operator',
      values: { nonce: String(nonce).slice(0, 80), operator: String(operator).slice(0, 80) },
      hint: 'Give both as 0x-prefixed hexadecimal numbers.',
    });
  }
  const binding = [DOMAIN, root, nonce, operator].join('|').toLowerCase();
  const hash = createHash('sha256').update(binding);
  const taps = new Set<string>();
  return {
    pick(part, count) {
      const picked = new Set<number>();
      for (let draw = 0; draw < TAPS && count > 0; draw += 1) {
        const seed = createHash('sha256').update(`${binding}|${part}|${draw}`).digest();
        picked.add(Number(seed.readBigUInt64BE() % BigInt(count)));
      }
      return [...picked];
    },
    add(tap, shape, bytes) {
      taps.add(tap);
      hash.update(`|${tap}|${shape.join('x')}|${bytes.length}|`).update(bytes);
    },
    finish: () => ({ digest: `0x${hash.digest('hex')}`, taps: [...taps] }),
  };
}

/** SHA-256 over named tensors in the given order: what an exact engine gives again for the same request. */
export function digestOutputs(outputs: readonly { name: string; shape: readonly number[]; bytes: Uint8Array }[]): `0x${string}` {
  const hash = createHash('sha256').update('millrace/outputs/1');
  for (const { name, shape, bytes } of outputs) hash.update(`|${name}|${shape.join('x')}|${bytes.length}|`).update(bytes);
  return `0x${hash.digest('hex')}`;
}

/** The bytes of a typed array, not copied. */
export function bytesOf(data: ArrayBufferView): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
