/** Writes contracts/test/inference/yuma-vectors.generated.json, which the contracts are judged against: `sh tools/node.sh tools/yuma-vectors.ts`. */
import { writeFileSync } from 'node:fs';
import { yumaVectorsFile, yumaVectorsText } from '../src/inference/consensus/yuma-vectors.cases.ts';

writeFileSync(yumaVectorsFile, yumaVectorsText());
