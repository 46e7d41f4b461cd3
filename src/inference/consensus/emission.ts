import { sumOf } from './fixed-point.ts';

/** The owner's part of a subnet's emission: exactly 11,796 of 65,535. Miners and validators have half of the rest each. */
export const OWNER_CUT = { numerator: 11_796n, denominator: 65_535n } as const;

/** Who gets what, in base units; the parts and the dust are the total exactly. */
export interface Emission {
  minerEmission: bigint[];
  validatorEmission: bigint[];
  ownerEmission: bigint;
  dust: bigint;
}

/**
 * Step 10 of decision 0019. Without incentives the validators get the miners' half too; without dividends their part goes by active
 * stake, without that by stake, and without any it is all dust. Each uid's two parts are rounded down together, so that dust is below
 * one unit per uid.
 */
export function shareEmission(
  total: bigint,
  shares: { incentive: Float64Array; dividends: Float64Array; activeStake: Float64Array; stake: Float64Array },
): Emission {
  const ownerEmission = (total * OWNER_CUT.numerator) / OWNER_CUT.denominator;
  const rest = total - ownerEmission;
  const miners = sumOf(shares.incentive) === 0 ? 0n : rest / 2n;
  const basis = [shares.dividends, shares.activeStake, shares.stake].find((values) => sumOf(values) > 0) ?? shares.dividends;
  const incentiveSum = BigInt(sumOf(shares.incentive) || 1);
  const basisSum = BigInt(sumOf(basis) || 1);
  const minerEmission: bigint[] = [];
  const validatorEmission: bigint[] = [];
  let dust = rest;
  basis.forEach((share, uid) => {
    const asValidator = BigInt(share) * (rest - miners);
    const asMiner = BigInt(shares.incentive[uid] as number) * miners;
    const both = (asMiner * basisSum + asValidator * incentiveSum) / (incentiveSum * basisSum);
    const validatorPart = asValidator / basisSum;
    validatorEmission.push(validatorPart);
    minerEmission.push(both - validatorPart);
    dust -= both;
  });
  return { minerEmission, validatorEmission, ownerEmission, dust };
}
