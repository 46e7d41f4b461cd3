import { formatAmount } from '../../units.ts';
import type { Field } from './field.ts';
import { type PriceMax, readAttributes, readLabel } from './needs.ts';

/** `profiles.placement.<name>` of an SDL. */
export interface Placement {
  regions: string[];
  attributes: Record<string, string>;
  /** By the name of the compute profile. */
  prices: Map<string, { priceMax: PriceMax | undefined }>;
}

/** Akash makes a block about every six seconds and prices are by block. */
const BLOCKS_PER_HOUR = 600n;
/** Both of its coins count in millionths. */
const DENOM_DECIMALS = 6;
const SIGNERS_MAX = 64;

/** Reads `profiles.placement.<name>`. */
export function readPlacement(field: Field): Placement {
  const { attributes, signedBy, pricing } = field.fields(['attributes', 'signedBy', 'pricing']);
  if (signedBy !== undefined) checkSigners(signedBy);
  const regions = attributes?.entries().find(([name]) => name === 'region')?.[1];
  const rest = attributes === undefined ? {} : readAttributes(attributes);
  if ('host' in rest) attributes?.warn(`host: ${rest.host} names a network of Akash and is left out`);
  return {
    regions: regions === undefined ? [] : [readLabel(regions)],
    attributes: Object.fromEntries(Object.entries(rest).filter(([name]) => name !== 'host' && name !== 'region')),
    prices: new Map(
      field
        .required({ pricing }, 'pricing')
        .entries()
        .map(([name, each]) => [name, { priceMax: readPrice(each) }]),
    ),
  };
}

function checkSigners(field: Field): void {
  const { anyOf, allOf } = field.fields(['anyOf', 'allOf']);
  const signers = [anyOf, allOf].flatMap((list) => list?.list(SIGNERS_MAX).map((each) => each.text(128)) ?? []);
  if (signers.length > 0)
    field.warn('the auditors of Akash sign nothing here; attributes are the operator’s word, as far as nothing measures them');
}

/** `uact` is a millionth of a dollar's credit, so it is read as the stable token; what an AKT is worth is not known here. */
function readPrice(field: Field): PriceMax | undefined {
  const fields = field.fields(['denom', 'amount']);
  const denom = field.required(fields, 'denom').matching(/^(?:uakt|uact|ibc\/[0-9A-F]{64})$/, 'uakt, uact or ibc/<64 hex digits>', 80);
  const amount = field
    .required(fields, 'amount')
    .matching(/^\d{1,18}(?:\.\d{1,18})?$/, 'a positive number', 40)
    .split('.');
  if (denom !== 'uact') {
    field.warn(`${denom} is no money of this network: say the greatest price an hour yourself`);
    return undefined;
  }
  const fraction = amount[1] ?? '';
  const perHour = BigInt(`${amount[0]}${fraction}`) * BLOCKS_PER_HOUR;
  return { amount: formatAmount(perHour, DENOM_DECIMALS + fraction.length), token: 'stable' };
}
