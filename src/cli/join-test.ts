import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ChainClient, Sender, Signer } from '../chain/index.ts';
import { systemClock } from '../clock.ts';
import { parseJob, type RunResult, runJob, SELF_TEST_ANSWER, writeSelfTest } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import type { Session } from './session.ts';

/** What a self-test is run with. */
export interface SelfTestOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  session: Session;
  operatorId: bigint;
  /** How long the node may take until others find it. */
  reachSeconds: number;
}

/** What a self-test showed. */
export interface SelfTest {
  jobId: string;
  evidence: string;
  cost: bigint;
  seconds: number;
}

const RETRY_MS = 1_000;
/** Nobody offers the job yet. */
const EARLY_CODES = new Set(['no-devices', 'no-job-provider']);
const SEGMENTS = 4;
const AUDITORS = 2;

/**
 * Has this machine's own node run a job as a stranger would: found by its offer, paid through the contract, audited by others, settled. The result
 * is compared with the one that the module has on every machine.
 * @throws self-test-wrong, and what hindered the job
 */
export async function selfTest(context: CommandContext, options: SelfTestOptions): Promise<SelfTest> {
  const { session, operatorId, client, signer, sender } = options;
  const folder = session.folder.client;
  const { source, path } = writeSelfTest(join(folder, 'self-test'));
  const { name, spec, needs } = parseJob(
    [
      'job: 1',
      `name: self-test of operator ${operatorId}`,
      `module: ${source}`,
      `seed: ${randomSeed()}`,
      'limits: {memory: 4MiB, cpus: 1, processes: 1, disk: 1MiB, time: 20s, output: 64}',
      `check: {class: wasm-strict, segments: ${SEGMENTS}, audited: 1}`,
      `device: {attributes: {operator: "${operatorId}"}}`,
    ].join('\n'),
  );
  const startedAt = performance.now();
  const progress = context.output.progress('self-test');
  try {
    const result = await runPatiently(
      context,
      options,
      async () =>
        await runJob({
          client,
          signer,
          sending: async (use) => await use(sender),
          folder,
          name,
          spec,
          needs,
          token: 'native',
          lowerable: true,
          auditors: AUDITORS,
          samples: SEGMENTS,
          files: { [source]: path },
          attemptsMax: 1,
          log: session.log,
          signal: context.signal,
          onEvent: (event) => progress.update(0, undefined, event.kind),
        }),
    );
    checkAnswer(result);
    const { jobId, evidence, cost } = result;
    return { jobId, evidence, cost, seconds: Math.round((performance.now() - startedAt) / 100) / 10 };
  } finally {
    progress.end();
  }
}

/** Until others find the node: its address must be on chain, its server answer, a relay may still be chosen. */
async function runPatiently(context: CommandContext, { reachSeconds }: SelfTestOptions, run: () => Promise<RunResult>): Promise<RunResult> {
  const deadlineMs = systemClock.nowMs() + reachSeconds * 1000;
  for (;;) {
    try {
      return await run();
    } catch (error) {
      const isEarly = error instanceof MillraceError && EARLY_CODES.has(error.code);
      if (!isEarly || systemClock.nowMs() > deadlineMs) throw error;
      await systemClock.sleep(RETRY_MS, context.signal);
    }
  }
}

function checkAnswer({ artefacts, outputFolder, jobId, end }: RunResult): void {
  const [artefact] = artefacts;
  const answer =
    artefact === undefined
      ? ''
      : createHash('sha256')
          .update(readFileSync(join(outputFolder, artefact.cid)))
          .digest('hex');
  if (artefacts.length === 1 && answer === SELF_TEST_ANSWER) return;
  throw new MillraceError('self-test-wrong', {
    actor: 'host',
    message: `The self-test gave another result than every machine must: ${answer || end}, due is ${SELF_TEST_ANSWER}`,
    values: { jobId, end, answer, due: SELF_TEST_ANSWER },
    hint: 'This machine does not calculate as others do (memory, processor, a changed Node): it would lose its stake. Do not run jobs on it.',
  });
}

/** Another seed is another job: a self-test never takes up one that was left unfinished long ago. */
function randomSeed(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0] as bigint;
}
