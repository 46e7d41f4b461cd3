import type { EnginePart } from '../engines/engine.ts';

/** Between an engine that cannot wait and a caller that may be slow: holds what was not taken, as little as possible. */
export interface PartBuffer {
  push(part: EnginePart): void;
  /** What has come since the last call; waits for something, and gives undefined at the end. */
  take(): Promise<EnginePart[] | undefined>;
  end(): void;
  readonly heldCharacters: number;
}

/** Most characters that wait for one caller. */
export const HELD_CHARACTERS_MAX = 1 << 20;

/**
 * A buffer whose neighbouring texts become one part while they wait, so that a slow reader costs the text and not its framing.
 * `onFull` is called once when more waits than is allowed.
 */
export function createPartBuffer(onFull: () => void): PartBuffer {
  let parts: EnginePart[] = [];
  let held = 0;
  let isOver = false;
  let wake: (() => void) | undefined;
  const rouse = () => {
    wake?.();
    wake = undefined;
  };
  return {
    get heldCharacters() {
      return held;
    },
    push(part) {
      const size = part.type === 'text' ? part.text.length : part.argumentsJson.length;
      const last = parts.at(-1);
      if (last?.type === 'text' && part.type === 'text') {
        const logprobs = part.logprobs === undefined ? last.logprobs : [...(last.logprobs ?? []), ...part.logprobs];
        parts[parts.length - 1] = {
          type: 'text',
          text: last.text + part.text,
          tokens: last.tokens + part.tokens,
          ...(logprobs === undefined ? {} : { logprobs }),
        };
      } else parts.push(part);
      held += size;
      rouse();
      if (held > HELD_CHARACTERS_MAX && held - size <= HELD_CHARACTERS_MAX) onFull();
    },
    async take() {
      if (parts.length === 0 && !isOver) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (parts.length === 0) return undefined;
      const taken = parts;
      parts = [];
      held = 0;
      return taken;
    },
    end() {
      isOver = true;
      rouse();
    },
  };
}
