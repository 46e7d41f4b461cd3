import { mkdirSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { systemClock } from '../../clock.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Executor } from '../../host/index.ts';
import type { Logger } from '../../log.ts';
import type { Resources } from '../capacity.ts';
import type { FetchContent } from '../part.ts';
import { OutputLog } from './output-log.ts';
import { RentalImage, type RentalImageState } from './rental-image.ts';
import { openWorkspace, type Workspace, type WorkspaceCommand, type WorkspaceRun, workspaceEnded } from './workspace.ts';

/** What runs in a rental by itself. */
export interface RentalMain extends WorkspaceCommand {
  /** CID of the image in which the rental runs from now on, a tar archive of a root file system; left out: what the device has. */
  image?: string;
}

/** The machine's side of one rental while it runs: its sandbox, made again whenever it ends, and the command that runs in it by itself. */
export interface Rental {
  /** Runs a command beside all others. @throws workspace-ended, workspace-busy, bad-command, and why no sandbox starts */
  run(command: WorkspaceCommand): Promise<WorkspaceRun>;
  /**
   * Connects to a TCP port in the sandbox; so many at one time.
   * @throws port-refused, ports-unsupported, connections-too-many, workspace-ended, and why no sandbox starts
   */
  connect(port: number): Promise<Socket>;
  /** Whether the sandbox answers; one that does not is made anew. */
  probe(): Promise<boolean>;
  /** Runs a command that is started again with the sandbox; replaces the one before. One with an image waits until that is there. */
  setMain(main: RentalMain | undefined): Promise<void>;
  /** What the command that runs by itself printed, the last of it. */
  readonly output: OutputLog;
  status(): { isUp: boolean; restarts: number; lastFault: string | undefined; image?: RentalImageState };
  /** Ends all that is in it. */
  close(): Promise<void>;
}

/** Connections to ports of one rental at one time; a caller keeps each in a connection to the node. */
export const CONNECTIONS_MAX = 32;
const ANSWER_PATIENCE_MS = 5_000;
const RESTART_PAUSE_MS = [0, 200, 1_000, 5_000, 15_000];
const DAY_SECONDS = 86_400;
/** More than any lease; timers of Node hold 24 days. */
const LONGEST_SECONDS = 20 * DAY_SECONDS;
/** So many sandboxes in a row that end at once, and the renter's image is given up for the device's own. */
const IMAGE_ENDS_MAX = 3;

/** Whose sandbox it is, what it may take, and what runs in it by itself. */
export interface RentalOptions {
  executor: Executor;
  image?: string;
  resources: Resources;
  folder: string;
  main: RentalMain | undefined;
  fetchContent: FetchContent;
  log: Logger;
}

/**
 * Starts the sandbox of a rental. A sandbox that ends, by the renter's own doing or for want of memory, is made anew; the more often, the later.
 * What was in it is lost then: its files lie in the sandbox.
 */
export function openRental(options: RentalOptions): Rental {
  return new SandboxRental(options);
}

class SandboxRental implements Rental {
  readonly output = new OutputLog();
  readonly #options: RentalOptions;
  readonly #image: RentalImage;
  #main: RentalMain | undefined;
  #mainRun: WorkspaceRun | undefined;
  #opening: Promise<Workspace> | undefined;
  #current: Workspace | undefined;
  /** The sandbox that is ended for one with another image. */
  #leaving: Workspace | undefined;
  #connections = 0;
  #restarts = 0;
  /** Sandboxes in a row that ended soon after they began. */
  #quickEnds = 0;
  #lastFault: string | undefined;
  #isClosing = false;

  constructor(options: RentalOptions) {
    this.#options = options;
    this.#main = options.main;
    mkdirSync(options.folder, { recursive: true, mode: 0o711 });
    this.#image = new RentalImage(options, () => this.#moveInto());
    this.#image.want(options.main?.image);
    void this.#ensure().catch(({ code, message }: MillraceError) => options.log.warn('rental-sandbox-failed', { reason: code, message }));
  }

  async run(command: WorkspaceCommand): Promise<WorkspaceRun> {
    return (await this.#ensure()).run(command);
  }

  async connect(port: number): Promise<Socket> {
    if (this.#connections >= CONNECTIONS_MAX) throw tooManyConnections();
    this.#connections += 1;
    try {
      const socket = await (await this.#ensure()).connect(port);
      if (socket.closed) throw workspaceEnded();
      socket.once('close', () => {
        this.#connections -= 1;
      });
      return socket;
    } catch (error) {
      this.#connections -= 1;
      const { code, cause } = toMillraceError(error);
      if (code === 'ports-unsupported')
        this.#options.log.warn('rental-ports-unsupported', { reason: cause instanceof Error ? cause.message : 'the engine' });
      throw error;
    }
  }

  async probe(): Promise<boolean> {
    try {
      const workspace = await this.#ensure();
      if (await workspace.answers(ANSWER_PATIENCE_MS)) return true;
      await workspace.close();
    } catch {
      // Why it does not start is in its status.
    }
    return false;
  }

  async setMain(main: RentalMain | undefined): Promise<void> {
    this.#main = main;
    await this.#mainRun?.signal('KILL');
    this.#image.want(main?.image);
    if (this.#current !== undefined) await this.#startMain(this.#current);
  }

  status(): ReturnType<Rental['status']> {
    const image = this.#image.state();
    return {
      isUp: this.#current !== undefined,
      restarts: this.#restarts,
      lastFault: this.#lastFault,
      ...(image === undefined ? {} : { image }),
    };
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#image.close();
    await this.#opening?.then(
      (workspace) => workspace.close(),
      () => {},
    );
    await this.#image.remove();
    rmSync(this.#options.folder, { recursive: true, force: true });
  }

  /** The sandbox that runs, or that is being made. */
  #ensure(): Promise<Workspace> {
    this.#opening ??= this.#open().catch((error: unknown) => {
      this.#opening = undefined;
      this.#quickEnds += 1;
      this.#lastFault = toMillraceError(error).code;
      // The supplier is not to be down for an image in which nothing starts.
      if (this.#image.giveUp(this.#lastFault)) void this.#ensure().catch(() => {});
      throw error;
    });
    return this.#opening;
  }

  /** Another image is there, or is no longer wanted: the sandbox is made anew in it. */
  async #moveInto(): Promise<void> {
    if (this.#isClosing) return;
    const workspace = await this.#opening?.catch(() => undefined);
    this.#leaving = workspace;
    this.#quickEnds = 0;
    await workspace?.close();
    await this.#ensure().catch(() => undefined);
  }

  async #open(): Promise<Workspace> {
    const { executor, resources, folder, log } = this.#options;
    const image = this.#image.digest() ?? this.#options.image;
    const pauseMs = RESTART_PAUSE_MS[Math.min(this.#quickEnds, RESTART_PAUSE_MS.length - 1)] as number;
    if (pauseMs > 0) await systemClock.sleep(pauseMs);
    const startedMs = systemClock.nowMs();
    const { cpus, memoryBytes, diskBytes, processes } = resources;
    const limits = { cpus, memoryBytes, diskBytes, processes, wallSeconds: LONGEST_SECONDS };
    const workspace = await openWorkspace({ executor, image, limits, folder: join(folder, 'pipes') });
    this.#current = workspace;
    void workspace.ended.then((end) => this.#beginAnew(workspace, { end, startedMs }));
    await this.#startMain(workspace).catch((error: MillraceError) => log.warn('rental-command-failed', { reason: error.code }));
    return workspace;
  }

  /** A sandbox that ended is followed by another one, unless the rental is over. */
  #beginAnew(workspace: Workspace, { end, startedMs }: { end: Awaited<Workspace['ended']>; startedMs: number }): void {
    if (this.#current === workspace) [this.#current, this.#opening] = [undefined, undefined];
    if (this.#isClosing || this.#leaving === workspace) return;
    this.#restarts += 1;
    this.#quickEnds = systemClock.nowMs() - startedMs < ANSWER_PATIENCE_MS ? this.#quickEnds + 1 : 0;
    this.#lastFault = end instanceof Error ? end.code : end.reason;
    this.#options.log.warn('rental-sandbox-ended', { reason: this.#lastFault, restarts: this.#restarts });
    if (this.#quickEnds >= IMAGE_ENDS_MAX) this.#image.giveUp(this.#lastFault);
    void this.#ensure().catch(() => {});
  }

  async #startMain(workspace: Workspace): Promise<void> {
    if (this.#main === undefined || !this.#image.isIn()) return;
    const { image: _, ...command } = this.#main;
    const run = await workspace.run(command);
    this.#mainRun = run;
    run.stdin.end();
    for (const stream of [run.stdout, run.stderr]) stream.on('data', (bytes: Buffer) => this.output.write(bytes));
    void run.ended.then((code) => this.output.write(Buffer.from(`\n[ended with exit code ${code ?? 'none: the sandbox ended'}]\n`)));
  }
}

function tooManyConnections(): MillraceError {
  return new MillraceError('connections-too-many', {
    actor: 'caller',
    message: `${CONNECTIONS_MAX} connections to ports of this rental are open already`,
    values: { limit: CONNECTIONS_MAX },
    hint: 'Close one, or let the client use fewer at one time.',
  });
}
