import { type ParsedDeployment, parseSpec, type RentalTerms, rentalUnits, rentUnits } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { readDocument } from './document-file.ts';
import { table } from './output.ts';
import { proposeForwards } from './propose-forwards.ts';
import { agentText, type RentOptions, secondsOf, timeText, tokenChoice } from './rent.ts';
import { ensureRentAgent } from './rent-agent.ts';
import { makeReady } from './rent-ready.ts';
import { openSender } from './sending.ts';
import { decimalsOf } from './session.ts';

/** Flags that would say again what a document says. */
const OF_DOCUMENT = ['class', 'count', 'cpus', 'memory', 'interruptible'] as const;

/**
 * Rents what a deployment's document wants, of our own YAML or Akash SDL: all of it or nothing, and starts in each rental what is to run there.
 * @throws bad-spec, spec-unsupported with field, line and column; bad-option, price-missing, no-devices, gang-incomplete, rental-image-refused
 */
export async function rentDocument(context: CommandContext, path: string, options: RentOptions): Promise<void> {
  const parsed = readDeployment(path, options);
  const { spec, warnings } = parsed;
  for (const { line, column, field, message } of warnings) context.output.note(`Line ${line}, column ${column}: ${field}: ${message}`);
  const session = await openSender(context);
  const { client, sender } = session;
  const decimals = { stable: decimalsOf(session, 'stable'), native: decimalsOf(session, 'native') };
  const rented = await (async () => {
    try {
      return await rentUnits({ client, sender }, rentalUnits(parsed, termsOf(options, decimals)));
    } finally {
      sender.close();
    }
  })();
  const agent = await ensureRentAgent(context, session);
  if (options.wait) {
    // Unit after unit, as the document says what waits for what.
    for (const { unit, leases } of rented)
      await Promise.all(leases.map(({ leaseId }) => makeReady(context, session, { leaseId, main: unit.main })));
  } else context.output.note('With --no-wait nothing is started in them: nobody waits for the machines. Use millrace exec.');
  const items = proposeForwards(
    rented.flatMap(({ unit: { group, workload, ports }, leases }) =>
      leases.map((lease) => ({ group, workload, rentalId: lease.leaseId, ...lease, ports })),
    ),
  );
  context.output.result({ items, agent, warnings, next: null }, () => {
    const rows = items.map(({ workload, rentalId, deviceId, operatorId, until, collateral }) => [
      workload,
      String(rentalId),
      `${deviceId} of operator ${operatorId}`,
      timeText(until),
      formatAmount(collateral, TOKEN_DECIMALS),
    ]);
    const [first] = items;
    const next = `Next: millrace logs ${first?.rentalId}; millrace exec ${first?.rentalId} -- ls /tmp; millrace end-lease ${first?.rentalId}`;
    const forwards = items.flatMap(({ workload, forward }) => (forward === undefined ? [] : [`Reach ${workload}: ${forward}`]));
    return [table(['workload', 'rental', 'device', 'until', 'collateral'], rows), agentText(agent), ...forwards, next].join('\n');
  });
  if (spec.isInterruptible) context.output.note('The suppliers may end these rentals with a notice.');
}

function readDeployment(path: string, options: RentOptions): ParsedDeployment {
  const parsed = parseSpec(readDocument(path));
  if (parsed.kind === 'job') throw badOption('the document', 'a job', 'a deployment; a job is run by millrace run FILE');
  const doubled = OF_DOCUMENT.find((name) => options[name] !== undefined && options[name] !== false);
  if (doubled !== undefined) throw badOption(`--${doubled}`, String(options[doubled]), 'nothing: the document says it');
  const { spec } = parsed;
  if (options.hours !== undefined && spec.seconds !== undefined)
    throw badOption('--hours', options.hours, 'nothing: the document has a time');
  const isPriced = spec.groups.every(({ units }) => units.every(({ priceMax }) => priceMax !== undefined));
  const price = options.maxPrice ?? options.token;
  if (isPriced && price !== undefined) throw badOption('--max-price and --token', price, 'nothing: the document has prices');
  return parsed;
}

function termsOf(options: RentOptions, decimals: RentalTerms['decimals']): RentalTerms {
  const token = tokenChoice(options.token ?? 'stable');
  return {
    decimals,
    seconds: secondsOf(options.hours ?? '1'),
    collateralMin: parseAmount(options.collateral ?? '0', TOKEN_DECIMALS),
    ...(options.maxPrice === undefined ? {} : { price: { token, max: parseAmount(options.maxPrice, decimals[token]) } }),
  };
}

function badOption(name: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got "${got.slice(0, 60)}" for ${name}, expected ${expected}`,
    values: { name, got: got.slice(0, 60), expected },
  });
}
