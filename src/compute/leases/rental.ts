import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../clock.ts';
import { type MillraceError, toMillraceError } from '../../errors.ts';
import type { Executor } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import type { Resources } from '../capacity.ts';
import { OutputLog } from './output-log.ts';
import { openWorkspace, type Workspace, type WorkspaceCommand, type WorkspaceRun } from './workspace.ts';

/** The machine's side of one rental while it runs: its sandbox, made again whenever it ends, and the command that runs in it by itself. */
export interface Rental {
  /** Runs a command beside all others. @throws workspace-ended, workspace-busy, bad-command, and why no sandbox starts */
  run(command: WorkspaceCommand): Promise<WorkspaceRun>;
  /** Whether the sandbox answers; one that does not is made anew. */
  probe(): Promise<boolean>;
  /** Runs a command that is started again with the sandbox; replaces the one before. */
  setMain(command: WorkspaceCommand | undefined): Promise<void>;
  /** What the command that runs by itself printed, the last of it. */
  readonly output: OutputLog;
  status(): { isUp: boolean; restarts: number; lastFault: string | undefined };
  /** Ends all that is in it. */
  close(): Promise<void>;
}

const ANSWER_PATIENCE_MS = 5_000;
const RESTART_PAUSE_MS = [0, 200, 1_000, 5_000, 15_000];
const DAY_SECONDS = 86_400;
/** More than any lease; timers of Node hold 24 days. */
const LONGEST_SECONDS = 20 * DAY_SECONDS;

/**
 * Starts the sandbox of a rental. A sandbox that ends, by the renter's own doing or for want of memory, is made anew; the more often, the later.
 * What was in it is lost then: its files lie in the sandbox.
 */
export function openRental(options: {
  executor: Executor;
  image?: string;
  resources: Resources;
  folder: string;
  main: WorkspaceCommand | undefined;
  log: Logger;
}): Rental {
  const { executor, image, resources, folder, log } = options;
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  const { cpus, memoryBytes, diskBytes, processes } = resources;
  const limits = { cpus, memoryBytes, diskBytes, processes, wallSeconds: LONGEST_SECONDS };
  const output = new OutputLog();
  let main = options.main;
  let mainRun: WorkspaceRun | undefined;
  let isClosing = false;
  let restarts = 0;
  let quickEnds = 0;
  let lastFault: string | undefined;
  let opening: Promise<Workspace> | undefined;
  let current: Workspace | undefined;

  const startMain = async (workspace: Workspace): Promise<void> => {
    if (main === undefined) return;
    const run = await workspace.run(main);
    mainRun = run;
    run.stdin.end();
    for (const stream of [run.stdout, run.stderr]) stream.on('data', (bytes: Buffer) => output.write(bytes));
    void run.ended.then((code) => output.write(Buffer.from(`\n[ended with exit code ${code ?? 'none: the sandbox ended'}]\n`)));
  };
  const open = async (): Promise<Workspace> => {
    const pauseMs = RESTART_PAUSE_MS[Math.min(quickEnds, RESTART_PAUSE_MS.length - 1)] as number;
    if (pauseMs > 0) await systemClock.sleep(pauseMs);
    const startedMs = systemClock.nowMs();
    const workspace = await openWorkspace({ executor, image, limits, folder: join(folder, 'pipes') });
    current = workspace;
    void workspace.ended.then((end) => {
      if (current === workspace) [current, opening] = [undefined, undefined];
      if (isClosing) return;
      restarts += 1;
      quickEnds = systemClock.nowMs() - startedMs < ANSWER_PATIENCE_MS ? quickEnds + 1 : 0;
      lastFault = end instanceof Error ? end.code : end.reason;
      log.warn('rental-sandbox-ended', { reason: lastFault, restarts });
      void ensure().catch(() => {});
    });
    await startMain(workspace).catch((error: MillraceError) => log.warn('rental-command-failed', { reason: error.code }));
    return workspace;
  };
  const ensure = (): Promise<Workspace> => {
    opening ??= open().catch((error: unknown) => {
      opening = undefined;
      quickEnds += 1;
      lastFault = toMillraceError(error).code;
      throw error;
    });
    return opening;
  };
  void ensure().catch((error: MillraceError) => log.warn('rental-sandbox-failed', { reason: error.code, message: error.message }));

  return {
    output,
    run: async (command) => (await ensure()).run(command),
    async probe() {
      try {
        const workspace = await ensure();
        if (await workspace.answers(ANSWER_PATIENCE_MS)) return true;
        await workspace.close();
      } catch {
        // Why it does not start is in its status.
      }
      return false;
    },
    async setMain(command) {
      main = command;
      await mainRun?.signal('KILL');
      if (current !== undefined) await startMain(current);
    },
    status: () => ({ isUp: current !== undefined, restarts, lastFault }),
    async close() {
      isClosing = true;
      await opening?.then(
        (workspace) => workspace.close(),
        () => {},
      );
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
