import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { FOREIGN } from '../../../test/suite.ts';
import { silentLogger } from '../../log.ts';
import { createTrustlessGateway } from '../pieces/gateway.ts';
import { openPieceStore } from '../pieces/piece-store.ts';
import { buildContent } from './content.ts';

const run = promisify(execFile);
let folder = '';
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-foreign-'));
});
after(() => rm(folder, { recursive: true, force: true }));

/** Builds the Go program that reads CARs with go-car and go-unixfsnode, the libraries of Kubo; a reason when it cannot be built. */
async function goReader(): Promise<{ path: string } | { reason: string }> {
  const sources = join(folder, 'car-check');
  await cp(new URL('../../../test/foreign/car-check', import.meta.url).pathname, sources, { recursive: true });
  try {
    await run('go', ['build', '-o', 'car-check', '.'], { cwd: sources, timeout: 400_000 });
    return { path: join(sources, 'car-check') };
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string };
    return { reason: code === 'ENOENT' ? 'Go is not installed' : `the Go modules cannot be built: ${stderr?.slice(0, 300)}` };
  }
}

test('what a provider serves is read and verified by the Go implementation of IPFS, files, folders and shards', async (context) => {
  const reader = await goReader();
  if ('reason' in reader) return context.skip(FOREIGN + reader.reason);
  const store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: 1 << 30, log: silentLogger });
  const gateway = createTrustlessGateway({ store });
  const files: Record<string, Buffer> = { 'a/large.bin': randomBytes(5_000_000), 'a/empty': Buffer.alloc(0), 'ü.txt': Buffer.from('ü') };
  for (let i = 0; i < 5000; i += 1) files[`shards/a file with a rather long name, number ${i}`] = Buffer.from(String(i));
  for (const [name, bytes] of Object.entries(files)) {
    await mkdir(join(folder, 'tree', name, '..'), { recursive: true });
    await writeFile(join(folder, 'tree', name), bytes);
  }
  for (const isPublic of [true, false]) {
    const built = await buildContent({
      source: { path: join(folder, 'tree') },
      workFolder: join(folder, `work-${isPublic}`),
      public: isPublic,
    });
    const receiver = await store.receive({ root: built.piece.root, rawSize: built.carSize });
    await receiver.append(createReadStream(built.carPath), { offset: 0 });
    await receiver.commit();
    for (const query of ['format=car', 'format=car&car-dups=n']) {
      const response = await gateway(new Request(`http://provider/ipfs/${built.cid}?${query}`));
      const path = join(folder, 'served.car');
      await writeFile(path, new Uint8Array(await response.arrayBuffer()));
      const { stdout }: { stdout: string } = await run(reader.path, [path], { maxBuffer: 16 << 20 });
      const lines = stdout.trim().split('\n');
      assert.equal(lines[0], `root ${built.cid}`);
      const read = lines.filter((line) => line.startsWith('file ')).sort();
      const expected = Object.entries(files).map(([name, bytes]) => `file ${createHash('sha256').update(bytes).digest('hex')} /${name}`);
      if (isPublic) assert.deepEqual(read, expected.sort());
      else assert.equal(read.length, 1, 'sealed content is one file without names');
    }
  }
  await store.close();
});
