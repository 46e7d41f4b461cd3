import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeAbiParameters, type Hex, parseAbiParameters, toHex } from 'viem';
import { NOBODY, partnerOf } from './draw.ts';
import { figureRoot, openFigure } from './figure-tree.ts';
import { decodeFigure, encodeFigure, figureOf, type Statement, VERDICTS } from './figures.ts';
import { encodeReport, statementIn } from './report-data.ts';

/** Read by contracts/test/compute/health-vectors.t.sol as well: one set of inputs for both languages. */
const VECTORS = new URL('../../../contracts/test/compute/health-vectors.json', import.meta.url);
const SEED = 'health vectors 1';
const RULE = { statementsMin: 2, rateWeight: 10, memoryWeight: 1, bandwidthRef: 1000, latencyRef: 50_000 };
const PAIRS = 7;

/** Numbers that depend on the seed alone. */
function drawing(label: string): (below: number) => number {
  let count = 0;
  return (below) => {
    count += 1;
    return createHash('sha256').update(`${SEED} ${label} ${count}`).digest().readUIntBE(0, 6) % below;
  };
}

/** Mostly plausible, sometimes at the bounds or beyond them. */
function drawStatement(draw: (below: number) => number): Statement {
  const wild = (limit: number, usual: number) => (draw(8) === 0 ? limit : draw(8) === 0 ? 0 : draw(usual));
  return {
    verdict: VERDICTS[draw(4) === 0 ? draw(5) : 4] as Statement['verdict'],
    upBps: wild(65_535, 10_001),
    latencyUs: wild(0xffff_ffff, 120_000),
    bandwidthKbs: wild(0xffff_ffff, 2000),
    receiptTag: 0,
    doneBps: draw(30_000),
  };
}

const wordOf = (statement: Statement) => BigInt(toHex(encodeReport([{ seat: 0, statements: [statement] }]).subarray(1)));

function figureVectors() {
  const draw = drawing('figures');
  return Array.from({ length: 100 }, () => {
    const declared = { rate: draw(4) === 0 ? 0xffff_ffff : draw(100_000), memoryMbs: draw(100_000) };
    const pairs = Array.from({ length: PAIRS }, () => ({ said: drawStatement(draw), back: drawStatement(draw) }));
    const figure = BigInt(toHex(encodeFigure(figureOf(RULE, declared, pairs))));
    return { ...declared, said: pairs.map(({ said }) => wordOf(said)), back: pairs.map(({ back }) => wordOf(back)), figure };
  });
}

function drawVectors() {
  const draw = drawing('draw');
  return Array.from({ length: 100 }, (_, index) => {
    const seats = 1 + draw(index % 2 === 0 ? 40 : 32_768);
    const given = { round: draw(15), seat: draw(seats), seats };
    const seed = `0x${createHash('sha256').update(`${SEED} ${index}`).digest('hex')}` as Hex;
    return { seed, ...given, partner: partnerOf(seed, given) ?? NOBODY };
  });
}

function treeVectors() {
  const draw = drawing('tree');
  return [1, 2, 63, 64, 65, 129, 200].map((seats) => {
    const figures = Buffer.concat(
      Array.from({ length: seats }, () => encodeFigure({ performance: BigInt(draw(2 ** 47)), reason: 'none' })),
    );
    const seat = draw(seats);
    const { chunk, proof } = openFigure(figures, seat);
    const sum = Array.from({ length: seats }, (_, at) => decodeFigure(figures, at).performance).reduce((one, other) => one + other);
    return { figures: toHex(figures), root: figureRoot(figures), total: sum, seat, chunk, proof };
  });
}

const SHAPE = parseAbiParameters([
  '(uint256 rate, uint256 memoryMbs, uint256[7] said, uint256[7] back, uint64 figure)[], (bytes32 seed, uint256 round, uint32 seat, uint32 seats, uint32 partner)[], (bytes figures, bytes32 root, uint64 total, uint32 seat, bytes chunk, bytes32[] proof)[]',
]);

test('figures, draws and roots are those that the contract reads from the same file', () => {
  const values = [
    figureVectors().map((one) => ({ ...one, rate: BigInt(one.rate), memoryMbs: BigInt(one.memoryMbs) })),
    drawVectors().map((one) => ({ ...one, round: BigInt(one.round) })),
    treeVectors(),
  ];
  const encoded = encodeAbiParameters(SHAPE, values as never);
  if (process.env.MILLRACE_WRITE_VECTORS === '1') writeFileSync(VECTORS, `${JSON.stringify({ seed: SEED, encoded })}\n`);
  assert.equal(JSON.parse(readFileSync(VECTORS, 'utf8')).encoded, encoded);
});

const statement = fc.record(
  {
    verdict: fc.constantFrom(...VERDICTS.slice(1)),
    upBps: fc.integer({ min: 0, max: 65_535 }),
    latencyUs: fc.integer({ min: 0, max: 0xffff_ffff }),
    bandwidthKbs: fc.integer({ min: 0, max: 0xffff_ffff }),
    receiptTag: fc.integer({ min: 0, max: 0xffff }),
    doneBps: fc.integer({ min: 0, max: 0xffff }),
  },
  { noNullPrototype: true },
) as fc.Arbitrary<Statement>;

test('what a report says can be read back, seat by seat and round by round, and nothing else', () => {
  const entries = fc.uniqueArray(
    fc.record({
      seat: fc.integer({ min: 128, max: 191 }),
      statements: fc.array(fc.option(statement, { nil: undefined }), { minLength: 5, maxLength: 5 }),
    }),
    { maxLength: 8, selector: ({ seat }) => seat },
  );
  fc.assert(
    fc.property(entries, (given) => {
      const report = encodeReport(given);
      for (const seat of [128, 150, 191]) {
        const said = given.find((entry) => entry.seat === seat);
        for (let round = 0; round < 5; round += 1) {
          assert.deepEqual(statementIn(report, { rounds: 5, seat, round }), said?.statements[round]);
        }
      }
    }),
    { numRuns: 50 },
  );
});

test('a machine that is registered as ten has no more than as one, whatever its partners say', () => {
  const declared = fc.array(fc.record({ rate: fc.integer({ min: 1, max: 100_000 }), memoryMbs: fc.integer({ min: 1, max: 100_000 }) }), {
    minLength: 10,
    maxLength: 10,
  });
  const pairs = fc.array(
    statement.map((said) => ({ said, back: undefined })),
    { minLength: 1, maxLength: 7 },
  );
  fc.assert(
    fc.property(declared, pairs, (parts, said) => {
      const whole = parts.reduce((one, other) => ({ rate: one.rate + other.rate, memoryMbs: one.memoryMbs + other.memoryMbs }));
      const sum = parts.reduce((total, part) => total + figureOf(RULE, part, said).performance, 0n);
      assert.ok(sum <= figureOf(RULE, whole, said).performance);
    }),
  );
});
