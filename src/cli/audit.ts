import { MillraceError } from '../errors.ts';
import { auditNetwork, requireSame } from '../storage/index.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openSession } from './session.ts';

/**
 * Recomputes every reward and every balance from the chain's events alone and compares with what the contracts say.
 * @throws audit-difference (exit code 4)
 */
export async function audit(context: CommandContext, options: { from?: string }): Promise<void> {
  const { client, manifest } = await openSession(context);
  const fromBlock = options.from === undefined ? undefined : blockNumber(options.from);
  const progress = context.output.progress('Reading events');
  const report = await auditNetwork({
    client,
    fromBlock,
    signal: context.signal,
    onProgress: (block, toBlock) => progress.update(Number(block), Number(toBlock), `block ${block} of ${toBlock}`),
  }).finally(() => progress.end());
  const clean = report.groups.every(({ differences }) => differences === 0);
  context.output.result({ network: manifest.name, ...report, fromBlock: fromBlock ?? null, clean }, () =>
    [
      `${manifest.name}, up to block ${report.block}: ${clean ? 'every number is what its events make it' : 'NOT every number is what its events make it'}.`,
      table(
        ['group', 'events', 'compared', 'differences', 'first'],
        report.groups.map(({ group, events, checks, differences, first }) => [
          group,
          String(events),
          String(checks),
          String(differences),
          first === undefined ? '' : `${first.what}: expected ${first.expected}, got ${first.got} (block ${first.blockNumber})`,
        ]),
      ),
    ].join('\n'),
  );
  requireSame(report);
}

function blockNumber(text: string): bigint {
  if (/^\d{1,18}$/.test(text)) return BigInt(text);
  throw new MillraceError('bad-block-number', {
    actor: 'caller',
    message: `Got --from "${text.slice(0, 40)}", expected the number of a block`,
    values: { got: text.slice(0, 40) },
  });
}
