import { dataFolder } from '../config.ts';
import { inspectHost } from '../host/index.ts';
import type { CommandContext } from './context.ts';

/** What this machine has and lacks, each with what it is needed for and how to mend it. */
export async function doctor(context: CommandContext): Promise<void> {
  const facts = await inspectHost(dataFolder(context.flags.data));
  const mark = { good: 'ok', limited: 'limited', missing: 'MISSING' };
  context.output.result({ items: facts, next: null }, () =>
    facts
      .map(
        (fact) =>
          `${mark[fact.state].padEnd(8)} ${fact.name}: ${fact.value}  (${fact.need})${fact.fix === undefined ? '' : `\n         ${fact.fix}`}`,
      )
      .join('\n'),
  );
}
