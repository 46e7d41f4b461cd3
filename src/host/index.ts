export { type FolderLock, lockFolder } from '../lock.ts';
export { identifyProcess, isRunning, type ProcessIdentity, signalProcess } from '../process-identity.ts';
export { adoptProcess, type StartProcessOptions, type SupervisedProcess, startProcess, stopProcess } from './child.ts';
export { freeDiskBytes, type HostFact, inspectHost } from './facts.ts';
