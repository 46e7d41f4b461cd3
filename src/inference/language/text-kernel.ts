import type { Kernel, KernelModel } from '../engines/kernel.ts';
import { continueChat } from './continuation.ts';
import { openOnnxModel } from './language-model.ts';
import { decodeModel } from './model-file.ts';
import { createPlainModel } from './plain-model.ts';

/** The file that the kernel asks its host for. */
export const WEIGHTS_NAME = 'moby-dick.gguf';

/** Loads the language model inside an engine's process. Requests may come side by side: they take turns byte by byte. */
export async function openKernel({ card, read, options }: KernelModel): Promise<Kernel> {
  const file = decodeModel(await read(WEIGHTS_NAME));
  const model = options.arithmetic === 'portable' ? createPlainModel(file) : await openOnnxModel(file);
  return {
    run(request, context) {
      if (request.task !== 'chat') throw new TypeError('unreachable: the host checks the task');
      return continueChat({ model, root: card.root }, request, context);
    },
  };
}
