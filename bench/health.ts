/**
 * Health of devices: what challenges cost a device and its partners, what reports and figures of 10,000 devices cost a proposer, and gas.
 * CPU seconds are those of this process with its threads.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { keccak256, toHex } from 'viem';
import { profile as production } from '../profiles/production.ts';
import { checkLeaves, drawLeaves } from '../src/compute/health/challenge-check.ts';
import { benchmark, type ChallengeProgress, startChallengeEngine } from '../src/compute/health/challenge-engine.ts';
import { challengesAnHour } from '../src/compute/health/challenge-time.ts';
import { planOf } from '../src/compute/health/challenge-work.ts';
import { partnerOf } from '../src/compute/health/draw.ts';
import { figureRoot, openFigure } from '../src/compute/health/figure-tree.ts';
import { encodeFigure, figureOf, type Statement } from '../src/compute/health/figures.ts';
import { encodeReport, statementIn } from '../src/compute/health/report-data.ts';

const DEVICES = 10_000;

const rule = production.computeHealth;
const cpuSeconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

async function challengeCosts() {
  const engine = startChallengeEngine();
  const able = await benchmark(engine);
  const task = { seed: randomBytes(32), plan: planOf(rule, able) };
  const [cpuBefore, startedAt] = [cpuSeconds(), performance.now()];
  const run = engine.start(task);
  await run.ended;
  const [solveMs, solveCpu] = [performance.now() - startedAt, cpuSeconds() - cpuBefore];
  const progress = run.progress() as ChallengeProgress;
  const openFrom = cpuSeconds();
  const wanted = drawLeaves(task, progress);
  const opened = await run.open(progress.done, wanted);
  const checkFrom = cpuSeconds();
  const isRight = checkLeaves(task, progress, wanted, opened);
  const checkCpu = cpuSeconds() - checkFrom;
  await engine.close();
  if (!isRight) throw new TypeError('a right answer was refused');
  const challenges = challengesAnHour(rule);
  return {
    able,
    plan: task.plan,
    solveMs: Math.round(solveMs),
    deadlineMs: rule.deadlineMs,
    challenges,
    deadlinesShareOfHour: (challenges * rule.deadlineMs) / 1000 / rule.hourSeconds,
    solveCpuSeconds: solveCpu,
    openCpuSeconds: checkFrom - openFrom,
    checkCpuSeconds: checkCpu,
    checksShareOfHour: (challenges * checkCpu * rule.rounds) / rule.hourSeconds,
  };
}

/** What a proposer does once an hour, each device with an operator and a report of its own. */
function proposerCosts() {
  const seed = keccak256('0x01');
  const said: Statement = { verdict: 'passed', upBps: 9990, latencyUs: 12_000, bandwidthKbs: 90_000, receiptTag: 1, doneBps: 9500 };
  const report = (seat: number) => encodeReport([{ seat, statements: Array.from({ length: rule.rounds }, () => said) }]);
  const reports = Array.from({ length: DEVICES }, (_, seat) => report(seat));
  const before = cpuSeconds();
  const figures = Buffer.concat(
    Array.from({ length: DEVICES }, (_, seat) => {
      const pairs = Array.from({ length: rule.rounds }, (_, round) => {
        const partner = partnerOf(seed, { round, seat, seats: DEVICES });
        if (partner === undefined) return { said: undefined, back: undefined };
        const read = (from: number) => statementIn(reports[from] as Uint8Array, { rounds: rule.rounds, seat: from, round });
        return { said: read(partner), back: read(seat) };
      });
      return encodeFigure(figureOf(rule, { rate: 800, memoryMbs: 9000 }, pairs));
    }),
  );
  const figuresCpu = cpuSeconds() - before;
  const rootFrom = cpuSeconds();
  figureRoot(figures);
  openFigure(figures, DEVICES >> 1);
  return {
    devices: DEVICES,
    figuresCpuSeconds: figuresCpu,
    rootAndOpeningCpuSeconds: cpuSeconds() - rootFrom,
    proposalBytes: figures.length,
    reportBytesPerDevice: (reports[0] as Uint8Array).length,
    gasOfProposalCalldata: [...toHex(figures).slice(2).matchAll(/../g)].reduce((sum, [byte]) => sum + (byte === '00' ? 4 : 16), 0),
  };
}

function gasFigures() {
  const lines = readFileSync(new URL('../contracts/.gas-snapshot', import.meta.url), 'utf8').split('\n');
  return lines.filter((line) => /^(ComputeHealth|ComputeRewards)\b/.test(line));
}

process.stdout.write(`${JSON.stringify({ challenge: await challengeCosts(), proposer: proposerCosts(), gas: gasFigures() }, null, 2)}\n`);
