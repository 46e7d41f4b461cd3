import { fileURLToPath } from 'node:url';
import { encodeAbiParameters, type Hex, parseAbiParameters } from 'viem';
import { type PossessionVector, possessionVector } from './proof.cases.ts';

const VECTORS = 10;
const LEAF = '(bytes32 pieceRoot, uint8 pieceHeight, uint64 leaves, uint128 weight, uint64 dealId)';
/** The struct `Vector` of contracts/test/storage/vectors.t.sol. */
const LAYOUT = parseAbiParameters(
  `(uint64 operatorId, uint8 byBytes, uint8 byWeight, uint8 rotationMin, uint16 rotationPeriods, (bool insert, uint32 slot, ${LEAF} leaf, bytes path, bytes32 root, uint64 leaves, uint128 weight, uint32 slots, uint8 depth)[] steps, uint64 missedPeriod, bytes32 missedSeed, bytes32 provenSeed, uint64[] over, bytes plainProof, bytes recoveryProof, ${LEAF} pieceLeaf, uint256 pieceCount, bytes pieceProof) vector`,
);

/** Where the vectors are kept for forge. */
export const possessionVectorsFile = fileURLToPath(
  new URL('../../../contracts/test/storage/possession-vectors.generated.json', import.meta.url),
);

/** All vectors as the text of the file: a JSON list of ABI-encoded structs. */
export async function possessionVectorsText(): Promise<string> {
  const vectors: Hex[] = [];
  for (let number = 0; number < VECTORS; number += 1) vectors.push(encodeVector(await possessionVector(number)));
  return `${JSON.stringify({ vectors }, null, 1)}\n`;
}

function encodeVector(vector: PossessionVector): Hex {
  const { counts, ...rest } = vector;
  return encodeAbiParameters(LAYOUT, [{ ...counts, ...rest, pieceCount: BigInt(vector.pieceCount) }]);
}
