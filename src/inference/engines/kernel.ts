import type { EnginePart, EngineRequest, EngineResult, ModelCard } from './engine.ts';

/** What a kernel is opened with, inside the engine's own process. */
export interface KernelModel {
  card: ModelCard;
  /**
   * The bytes of one of the model's files, whose SHA-256 was checked as they were read.
   * @throws model-tampered
   */
  read(name: string): Promise<Uint8Array<ArrayBuffer>>;
  /** Settings of this kernel; plain data. */
  options: Record<string, unknown>;
}

/** How a kernel is asked for one answer. */
export interface KernelContext {
  signal: AbortSignal;
  onPart(part: EnginePart): void;
}

/** The code that runs one model, inside a process of its own. Requests come one at a time unless the engine says otherwise. */
export interface Kernel {
  run(request: EngineRequest, context: KernelContext): Promise<EngineResult>;
}

/** What the module of a kernel exports as `openKernel`: loads the model; nothing of the network and no file but the model's may be used. */
export type OpenKernel = (model: KernelModel) => Promise<Kernel>;

/** What the host tells the engine's process. */
export type ToChild =
  | {
      type: 'open';
      kernel: string;
      card: ModelCard;
      files: readonly { name: string; path: string; sha256: string }[];
      options: Record<string, unknown>;
    }
  | { type: 'run'; id: number; request: EngineRequest }
  | { type: 'abort'; id: number };

/** An error on its way between processes. */
export interface SentError {
  code: string;
  actor: 'caller' | 'peer' | 'chain' | 'host' | 'bug';
  message: string;
  values: Record<string, string | number | boolean | null>;
  hint?: string;
}

/** What the engine's process answers. */
export type FromChild =
  | { type: 'ready' }
  | { type: 'refused'; error: SentError }
  | { type: 'part'; id: number; part: EnginePart }
  | { type: 'done'; id: number; result: EngineResult }
  | { type: 'failed'; id: number; error: SentError };
