import { growBonds } from './bonds.ts';
import { checkInput } from './check-input.ts';
import { shareEmission } from './emission.ts';
import type { EpochInput, EpochResult } from './epoch-input.ts';
import { toU16 } from './fixed-point.ts';
import { weighOpinions } from './opinions.ts';
import { shareStake } from './stake-shares.ts';

/**
 * One epoch of a subnet: from stakes, weights and bonds to permits, consensus, incentives, dividends, new bonds and emission. Pure, and
 * integers only; `contracts/src/inference/Yuma.sol` gives the same bits. The rule is Yuma 2, Yuma 3 or Yuma 3 with liquid alpha, after
 * `opentensor/subtensor`, with the differences that decision 0019 lists.
 * @throws bad-epoch-input for sizes beyond those for which the arithmetic is exact
 */
export function epoch(input: EpochInput): EpochResult {
  checkInput(input);
  const shares = shareStake(input);
  const opinions = weighOpinions(input, shares);
  const { dividends, rows } = growBonds(input, shares, opinions);
  const emission = shareEmission(input.totalEmission, { incentive: opinions.incentive, dividends, ...shares });
  const validatorTrust = new Array<number>(input.stakes.length).fill(0);
  shares.validators.forEach((validator, place) => {
    validatorTrust[validator] = toU16(opinions.trust[place] as number);
  });
  return {
    active: shares.active,
    permits: shares.newPermits,
    stakeWeight: u16s(shares.stake),
    consensus: u16s(opinions.consensus),
    validatorTrust,
    rank: u16s(opinions.rank),
    incentive: u16s(opinions.incentive),
    dividends: u16s(dividends),
    bonds: rows,
    ...emission,
  };
}

function u16s(values: Float64Array): number[] {
  return Array.from(values, toU16);
}
