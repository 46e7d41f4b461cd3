import { existsSync } from 'node:fs';
import type { Executor } from './executor.ts';
import type { ImageLimits } from './image-store.ts';

/** Settings of an engine that speaks the Docker Engine API. */
export interface DockerOptions {
  /** Of Docker or Podman on this machine; found when left out. */
  socketPath?: string;
  /** A runtime that the engine knows, like `runsc` (gVisor); its default when left out. */
  runtime?: string;
  imageLimits?: Partial<ImageLimits>;
  /** Where it is noted which images came for a time, one for all that use the engine; left out: all images stay. */
  imageFolder?: string;
  /** Of the disk, for all of those together, as `SandboxOptions` has it. */
  imageBytesMax?: number;
}

/** The sockets at which an engine of this machine answers, the first that is there; `DOCKER_HOST` first. */
export function findDockerSocket(env: NodeJS.ProcessEnv = process.env): string | undefined {
  const named = env.DOCKER_HOST?.startsWith('unix://') ? [env.DOCKER_HOST.slice('unix://'.length)] : [];
  const own = env.XDG_RUNTIME_DIR === undefined ? [] : [`${env.XDG_RUNTIME_DIR}/docker.sock`, `${env.XDG_RUNTIME_DIR}/podman/podman.sock`];
  return [...named, '/run/docker.sock', '/var/run/docker.sock', '/run/podman/podman.sock', ...own].find((path) => existsSync(path));
}

/** Containers through the Docker Engine API. Its client is loaded here and not before: every command would wait for it. */
export async function openDockerExecutor(options: DockerOptions = {}): Promise<Executor> {
  const { DockerExecutor } = await import('./docker-executor.ts');
  return new DockerExecutor(options);
}
