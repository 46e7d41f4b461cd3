import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { CID } from 'multiformats/cid';
import { createCarScanner } from '../content/car.ts';

const SAMPLE_BLOCKS = 8;
const SAMPLE_POOL = 1024;

/** A uniform sample of at most 1,024 blocks of a CAR, in one pass and constant memory. */
export async function sampleOfCar(carPath: string): Promise<CID[]> {
  const kept: CID[] = [];
  let seen = 0;
  const scanner = createCarScanner(({ cid }) => {
    seen += 1;
    const place = kept.length < SAMPLE_POOL ? kept.length : randomBelow(seen);
    // The scanner's CID is a view of a buffer that is used again.
    if (place < SAMPLE_POOL) kept[place] = CID.decode(Uint8Array.from(cid.bytes));
  });
  for await (const chunk of createReadStream(carPath, { highWaterMark: 1 << 20 })) scanner.write(chunk as Uint8Array);
  scanner.finish();
  return kept;
}

/** Eight of a sample, other ones each time: the blocks that one provider is asked for. */
export function takeSome(sample: readonly CID[]): CID[] {
  const cids = [...sample];
  const chosen: CID[] = [];
  while (chosen.length < SAMPLE_BLOCKS && cids.length > 0) chosen.push(...cids.splice(randomBelow(cids.length), 1));
  return chosen;
}

function randomBelow(limit: number): number {
  return Number(randomBytes(6).readUIntBE(0, 6) % limit);
}
