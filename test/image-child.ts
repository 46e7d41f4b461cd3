/** Has images as a node has them, to be killed: the first archive for good, two held, the fourth half unpacked. Prints their digests and waits. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { digestOf, ImageStore } from '../src/host/image-store.ts';
import { ownerTag } from '../src/host/owner-tag.ts';
import { TemporaryImages } from '../src/host/temporary-images.ts';

const [folder, ...archives] = process.argv.slice(2) as [string, string, string, string, string];
const store = new ImageStore(folder);
const kept = await store.import(archives[0]);
const held = [await store.hold(archives[1]), await store.hold(archives[2])];
const place = { has: async () => false, discard: async () => true, freeBytes: async () => 2 ** 40 };
const images = new TemporaryImages({ folder: join(folder, '.temporary'), place, bytesMax: undefined });
const stuck = await digestOf(archives[3]);
const unpack = () => {
  mkdirSync(join(folder, `${ownerTag()}-half`));
  process.stdout.write(`${JSON.stringify({ kept, held: held.map(({ digest }) => digest), stuck })}\n`);
  return new Promise<void>(() => setInterval(() => {}, 60_000));
};
await images.hold({ digest: stuck, measure: async () => 4096, place: unpack });
