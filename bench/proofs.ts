/** What a period's proof costs a provider: draws, leaves from the disk with their paths, packing; for 1 to 1,000 pieces. Gas is in the gas snapshot. */
import { randomBytes, randomFillSync } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bytesToHex } from 'viem';
import { profile } from '../profiles/production.ts';
import { silentLogger } from '../src/log.ts';
import { buildContent, openPieceStore, type PieceStore } from '../src/storage/index.ts';
import { openPieceLeaf } from '../src/storage/pieces/openings.ts';
import { drawLeaves } from '../src/storage/possession/draws.ts';
import { answerDraws, packOpenings } from '../src/storage/possession/proof.ts';
import { rebuildTable } from '../src/storage/possession/table.ts';

const MIB = 1 << 20;
const PIECE_MIB = 64;
const PROOFS = 100;

const folder = await mkdtemp(join(tmpdir(), 'millrace-bench-proofs-'));
try {
  const { store, root, height, leaves } = await storeOnePiece();
  process.stdout.write(
    `profile production: ${profile.possession.byBytes} draws by bytes, ${profile.possession.byWeight} by weight, turns by size; pieces of ${PIECE_MIB} MiB\n`,
  );
  for (const pieces of [1, 10, 100, 1000]) await measure(store, pieces, { pieceRoot: root, pieceHeight: height, leaves });
  await store.close();
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function storeOnePiece() {
  const path = join(folder, 'source');
  const file = await open(path, 'w');
  for (let index = 0; index < PIECE_MIB; index += 1) await file.write(randomFillSync(new Uint8Array(MIB)));
  await file.close();
  const built = await buildContent({ source: { path }, workFolder: join(folder, 'work'), public: true });
  const store = await openPieceStore({ folder: join(folder, 'store'), quotaBytes: 1e12, log: silentLogger });
  const receiver = await store.receive({ root: built.piece.root, rawSize: built.piece.rawSize });
  await receiver.append(createReadStream(built.carPath), { offset: 0 });
  await receiver.commit();
  return { store, root: built.piece.root, height: built.piece.height, leaves: BigInt(built.piece.payloadLeaves) };
}

async function measure(
  store: PieceStore,
  pieces: number,
  piece: { pieceRoot: `0x${string}`; pieceHeight: number; leaves: bigint },
): Promise<void> {
  const table = rebuildTable(
    Array.from({ length: pieces }, (_, slot) => ({
      kind: 'inserted' as const,
      slot,
      timestamp: 0n,
      leaf: { ...piece, weight: 10n ** 18n, dealId: BigInt(slot + 1) },
    })),
  );
  let openings = 0;
  let bytes = 0;
  const cpu = process.cpuUsage();
  for (let period = 0n; period < PROOFS; period += 1n) {
    const draws = drawLeaves({ table, counts: profile.possession, seed: bytesToHex(randomBytes(32)), operatorId: 1n, period, times: 1 });
    const proof = packOpenings(
      await answerDraws({ table, draws, openPiece: (leaf, leafIndex) => openPieceLeaf(store, leaf.pieceRoot, leafIndex) }),
    );
    openings += draws.length;
    bytes += (proof.length - 2) / 2;
  }
  const { user, system } = process.cpuUsage(cpu);
  const seconds = (user + system) / 1e6;
  process.stdout.write(
    `${String(pieces).padStart(5)} pieces: ${(PROOFS / seconds).toFixed(0).padStart(5)} proofs per CPU-second (${(openings / seconds).toFixed(0)} openings), ${(openings / PROOFS).toFixed(0)} openings and ${(bytes / PROOFS / 1024).toFixed(1)} KiB a proof\n`,
  );
}
