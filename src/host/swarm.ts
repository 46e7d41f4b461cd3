import type { Executor } from './executor.ts';

/** A farm of one owner's machines. */
export interface SwarmOptions {
  /** Sockets of the farm's engines, a manager's first. Images are given to each. */
  sockets: readonly string[];
  /** A folder that lies at the same path on all of them (NFS): input and artefacts pass through it. */
  sharedFolder: string;
  /**
   * Gives a folder of that shared place a hard size (project quotas of the file system that is shared), and takes it away again. Without it what
   * jobs write is measured only, and jobs of strangers are refused.
   */
  holdFolder?: (path: string, sizeBytes: number) => Promise<() => Promise<void>>;
}

/** A Docker Swarm as one engine. Its client is loaded here and not before. */
export async function openSwarmExecutor(options: SwarmOptions): Promise<Executor> {
  const { SwarmExecutor } = await import('./swarm-executor.ts');
  return new SwarmExecutor(options);
}
