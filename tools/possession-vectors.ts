/** Writes contracts/test/storage/possession-vectors.generated.json, which the contracts are judged against: `sh tools/node.sh tools/possession-vectors.ts`. */
import { writeFileSync } from 'node:fs';
import { possessionVectorsFile, possessionVectorsText } from '../src/storage/possession/vectors.cases.ts';

writeFileSync(possessionVectorsFile, await possessionVectorsText());
