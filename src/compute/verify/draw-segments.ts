import { encodeAbiParameters, type Hex, hexToBigInt, keccak256 } from 'viem';

/**
 * The segments that an auditor replays, by the rule of `Auditors.segmentsOf`: Fisher and Yates' order of `Shuffle.sol` from
 * `keccak256(abi.encode("segments", value, jobId, auditor))`; all of them in ascending order where all are replayed.
 */
export function drawSegments(of: { value: Hex; jobId: Hex; auditor: bigint; segments: number; samples: number }): number[] {
  const { value, jobId, auditor, segments, samples } = of;
  if (samples === segments) return Array.from({ length: segments }, (_, index) => index);
  const kinds = [{ type: 'string' }, { type: 'bytes32' }, { type: 'bytes32' }, { type: 'uint64' }] as const;
  return drawOrder(hexToBigInt(keccak256(encodeAbiParameters(kinds, ['segments', value, jobId, auditor]))), segments, samples);
}

/** The first entries of a random order of 0 to `population` - 1, no two the same. */
export function drawOrder(seed: bigint, population: number, count: number): number[] {
  const moved = new Map<number, number>();
  const drawn: number[] = [];
  for (let step = 0; step < Math.min(count, population); step += 1) {
    const word = keccak256(encodeAbiParameters([{ type: 'uint256' }, { type: 'uint256' }], [seed, BigInt(step)]));
    const place = step + Number(hexToBigInt(word) % BigInt(population - step));
    drawn.push(moved.get(place) ?? place);
    moved.set(place, moved.get(step) ?? step);
  }
  return drawn;
}
