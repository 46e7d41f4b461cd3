export { type FolderLock, lockFolder } from '../lock.ts';
export { identifyProcess, isRunning, type ProcessIdentity, signalProcess } from '../process-identity.ts';
export { cidOfDigest } from './artefacts.ts';
export { adoptProcess, type StartProcessOptions, type SupervisedProcess, startProcess, stopProcess } from './child.ts';
export { type DockerOptions, findDockerSocket, openDockerExecutor } from './docker.ts';
export {
  type Artefact,
  type Executor,
  type ExecutorReport,
  errorOfResult,
  holdImage,
  type ImageHold,
  type Job,
  type JobLimits,
  type JobLog,
  type JobLoopback,
  type JobMount,
  type JobNetwork,
  type JobReason,
  type JobRental,
  type JobResult,
  type JobUsage,
  type RunningJob,
  type RunOptions,
} from './executor.ts';
export { freeDiskBytes, type HostFact, inspectHost } from './facts.ts';
export { type KubernetesOptions, openKubernetesExecutor } from './kubernetes.ts';
export { mountMemory, unmountMemory } from './memory-mount.ts';
export { createNetNamespace, enterNamespace, type NetNamespace } from './net-namespace.ts';
export { SandboxExecutor, type SandboxOptions } from './sandbox-executor.ts';
export {
  encodeStrictInput,
  type StrictChange,
  StrictEngine,
  type StrictLimits,
  type StrictOutput,
  type StrictProgram,
  type StrictRun,
} from './strict-engine.ts';
export { STRICT_RUNTIME } from './strict-module.ts';
export {
  decodeStrictState,
  encodeStrictState,
  hashWholeState,
  STATE_PAGE_BYTES,
  STRICT_ENDS,
  type StrictEnd,
  type StrictState,
} from './strict-state.ts';
export { openSwarmExecutor, type SwarmOptions } from './swarm.ts';
export { readTarEntries } from './tar-entries.ts';
export { WasmExecutor } from './wasm-executor.ts';
export {
  inspectWireguard,
  makeWireguardKeys,
  openWireguard,
  type WireguardKeys,
  type WireguardLink,
  type WireguardOptions,
  type WireguardPeer,
  type WireguardPeerState,
} from './wireguard.ts';
