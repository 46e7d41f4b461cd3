import { setFlagsFromString } from 'node:v8';

/** The V8 versions (Node 24) in which the flag below is known; another would print a warning. */
const V8_WITH_FLAG = /^13\./;

/**
 * Makes the garbage collector count the bytes of buffers as part of the heap, instead of starting a collection whenever a few dozen
 * MiB of them came and went. A process that moves files spends half of its processor time in such collections; the heap's own limit
 * still bounds what is kept. For the first line of a program, before anything is read.
 */
export function countExternalMemory(): void {
  if (V8_WITH_FLAG.test(process.versions.v8)) setFlagsFromString('--external-memory-accounted-in-global-limit');
}
