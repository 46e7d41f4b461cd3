// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title Filecoin's minting schedule in integers: simple minting by time, baseline minting by effective network time.
/// @notice Source: filecoin-project/builtin-actors, actors/reward/src/{logic,expneg}.rs. Q.128 means a number times 2^128. Where the reference
/// keeps per-epoch state, closed forms are used here: the sum of the simple rewards of epochs 1..n telescopes to TOTAL * (1 - e^(-lambda n)).
library FilecoinSchedule {
    uint64 internal constant EPOCH_SECONDS = 30;
    uint64 internal constant HALF_LIFE_EPOCHS = 6_307_200; // six years of 365 days
    uint256 internal constant SIMPLE_TOTAL = 330_000_000e18;
    uint256 internal constant BASELINE_TOTAL = 770_000_000e18;
    /// 2.5057 EiB, in bytes, at epoch 0; doubles every year.
    uint256 internal constant BASELINE_INITIAL = 2_888_888_880_000_000_000;
    /// The baseline grows, and effective network time counts, for sixty years; then 1/1024 of the baseline part is left and stays unminted.
    uint64 internal constant BASELINE_EPOCHS_MAX = 63_072_000;

    uint256 internal constant ONE = 1 << 128;
    uint256 private constant LAMBDA = 37396271439864487274534522888786; // ln 2 / HALF_LIFE_EPOCHS, Q.128
    uint256 private constant EXP_LAMBDA_MINUS_ONE = 37396273494747879394193016954629; // Q.128
    uint256 private constant BASELINE_GROWTH = 340282591298641078465964189926313473653; // 2^(1 / epochs per year), Q.128
    uint256 private constant GROWTH_BITS = 26; // 2^26 > BASELINE_EPOCHS_MAX
    /// The polynomial is used directly below this many half-lives (exponent 4.85; it is made for less than 5), beyond it the exponent is reduced.
    uint64 private constant DIRECT_HALF_LIVES = 7;

    /// @notice Filecoin's simple reward of one epoch, base units: floor(330M * (e^lambda - 1) * e^(-lambda t)).
    function simpleReward(uint64 epoch) internal pure returns (uint256) {
        return Math.mulShr(SIMPLE_TOTAL * EXP_LAMBDA_MINUS_ONE, expNegOfEpoch(epoch), 128) >> 128;
    }

    /// @notice Sum of the simple rewards of epochs 1..epoch, Q.128.
    function simpleSupply(uint64 epoch) internal pure returns (uint256) {
        return (ONE - expNegOfEpoch(epoch)) * SIMPLE_TOTAL;
    }

    /// @notice Baseline tokens minted up to an effective network time (Q.128 epochs), Q.128. As compute_baseline_supply.
    function baselineSupply(uint256 time) internal pure returns (uint256) {
        uint256 whole = time >> 128;
        if (whole < DIRECT_HALF_LIVES * HALF_LIFE_EPOCHS) return (ONE - expNeg(Math.mulShr(time, LAMBDA, 128))) * BASELINE_TOTAL;
        uint256 halvings = whole / HALF_LIFE_EPOCHS;
        uint256 rest = time - ((halvings * HALF_LIFE_EPOCHS) << 128);
        return (ONE - (expNeg(Math.mulShr(rest, LAMBDA, 128)) >> halvings)) * BASELINE_TOTAL;
    }

    /// @notice e^(-lambda * epoch), Q.128.
    function expNegOfEpoch(uint64 epoch) internal pure returns (uint256) {
        if (epoch < DIRECT_HALF_LIVES * HALF_LIFE_EPOCHS) return expNeg(LAMBDA * epoch);
        uint64 halvings = epoch / HALF_LIFE_EPOCHS;
        if (halvings > 255) return 0;
        return expNeg(LAMBDA * (epoch % HALF_LIFE_EPOCHS)) >> halvings;
    }

    /// @notice e^(-x) for x < 5 in Q.128, by the reference's rational polynomial, bit for bit.
    function expNeg(uint256 x) internal pure returns (uint256) {
        // Numerator: signs alternate, so it is carried as a signed number and each product is rounded down (as >> does on a BigInt).
        int256 n = -648770010757830093818553637600;
        n = _mulFloor(n, x) + 67469480939593786226847644286976;
        n = _mulFloor(n, x) - 3197587544499098424029388939001856;
        n = _mulFloor(n, x) + 89244641121992890118377641805348864;
        n = _mulFloor(n, x) - 1579656163641440567800982336819953664;
        n = _mulFloor(n, x) + 17685496037279256458459817590917169152;
        n = _mulFloor(n, x) - 115682590513835356866803355398940131328;
        n = _mulFloor(n, x) + 340282366920938463463374607431768211456;
        uint256 d = 1225524182432722209606361;
        d = Math.mulShr(d, x, 128) + 114095592300906098243859450;
        d = Math.mulShr(d, x, 128) + 5665570424063336070530214243;
        d = Math.mulShr(d, x, 128) + 194450132448609991765137938448;
        d = Math.mulShr(d, x, 128) + 5068267641632683791026134915072;
        d = Math.mulShr(d, x, 128) + 104716890604972796896895427629056;
        d = Math.mulShr(d, x, 128) + 1748338658439454459487681798864896;
        d = Math.mulShr(d, x, 128) + 23704654329841312470660182937960448;
        d = Math.mulShr(d, x, 128) + 259380097567996910282699886670381056;
        d = Math.mulShr(d, x, 128) + 2250336698853390384720606936038375424;
        d = Math.mulShr(d, x, 128) + 14978272436876548034486263159246028800;
        d = Math.mulShr(d, x, 128) + 72144088983913131323343765784380833792;
        d = Math.mulShr(d, x, 128) + 224599776407103106596571252037123047424;
        d = Math.mulShr(d, x, 128) + 340282366920938463463374607431768211456;
        return Math.mulDiv(uint256(n), ONE, d);
    }

    /// @notice growth^(2^i) for i = 0..25, Q.128: computed once per call, used by the functions below.
    function growthTable() internal pure returns (uint256[] memory table) {
        table = new uint256[](GROWTH_BITS);
        table[0] = BASELINE_GROWTH;
        for (uint256 i = 1; i < GROWTH_BITS; ++i) {
            table[i] = Math.mulShr(table[i - 1], table[i - 1], 128);
        }
    }

    /// @notice Baseline at an epoch (clamped to BASELINE_EPOCHS_MAX), bytes.
    function baselineAt(uint256[] memory table, uint64 epoch) internal pure returns (uint256) {
        return Math.mulShr(BASELINE_INITIAL, _growth(table, epoch), 128);
    }

    /// @notice Sum of the baseline over epochs 1..epoch (clamped), byte-epochs.
    function baselineSum(uint256[] memory table, uint64 epoch) internal pure returns (uint256) {
        return _sumOf(_growth(table, epoch));
    }

    /// @notice Sum of min(power, baseline) over epochs from+1..to, byte-epochs, for constant power.
    function realizedSum(uint256[] memory table, uint64 from, uint64 to, uint256 power) internal pure returns (uint256) {
        if (to > BASELINE_EPOCHS_MAX) to = BASELINE_EPOCHS_MAX;
        if (power == 0 || from >= to) return 0;
        uint64 crossing = to; // the last epoch of the span whose baseline is not above the power
        if (baselineAt(table, to) > power) {
            uint64 below = from;
            if (baselineAt(table, from + 1) <= power) below = _lastWhere(table, power);
            crossing = below;
        }
        return baselineSum(table, crossing) - baselineSum(table, from) + power * (to - crossing);
    }

    /// @notice Effective network time, Q.128 epochs: where the sum of the baseline equals `realized`. As compute_r_theta: linear within an epoch.
    function theta(uint256[] memory table, uint256 realized) internal pure returns (uint256) {
        if (realized == 0) return 0;
        uint256 growth = ONE;
        uint64 epoch; // grows to the last epoch whose sum is below `realized`
        for (uint256 i = GROWTH_BITS; i > 0; --i) {
            uint64 candidate = epoch + uint64(1 << (i - 1));
            if (candidate > BASELINE_EPOCHS_MAX) continue;
            uint256 next = Math.mulShr(growth, table[i - 1], 128);
            if (_sumOf(next) < realized) (epoch, growth) = (candidate, next);
        }
        if (epoch == BASELINE_EPOCHS_MAX) return uint256(epoch) << 128;
        uint256 sum = baselineSum(table, epoch + 1);
        uint256 baseline = baselineAt(table, epoch + 1);
        return (uint256(epoch + 1) << 128) - Math.mulDiv(Math.min(sum - realized, baseline), ONE, baseline);
    }

    /// @dev Last epoch whose baseline is at most `power`; the baseline of epoch 0 must be.
    function _lastWhere(uint256[] memory table, uint256 power) private pure returns (uint64 epoch) {
        uint256 growth = ONE;
        for (uint256 i = GROWTH_BITS; i > 0; --i) {
            uint64 candidate = epoch + uint64(1 << (i - 1));
            if (candidate > BASELINE_EPOCHS_MAX) continue;
            uint256 next = Math.mulShr(growth, table[i - 1], 128);
            if (Math.mulShr(BASELINE_INITIAL, next, 128) <= power) (epoch, growth) = (candidate, next);
        }
    }

    /// @dev growth^epoch, Q.128, bits from the highest to the lowest: the same order as in the searches, so that all agree on each epoch.
    function _growth(uint256[] memory table, uint64 epoch) private pure returns (uint256 growth) {
        if (epoch > BASELINE_EPOCHS_MAX) epoch = BASELINE_EPOCHS_MAX;
        growth = ONE;
        for (uint256 i = GROWTH_BITS; i > 0; --i) {
            if ((epoch >> (i - 1)) & 1 == 1) growth = Math.mulShr(growth, table[i - 1], 128);
        }
    }

    /// @dev Geometric sum of epochs 1..n given growth^n.
    function _sumOf(uint256 growth) private pure returns (uint256) {
        return Math.mulDiv(BASELINE_INITIAL, Math.mulDiv(growth - ONE, BASELINE_GROWTH, BASELINE_GROWTH - ONE), ONE);
    }

    function _mulFloor(int256 a, uint256 x) private pure returns (int256) {
        if (a >= 0) return int256(Math.mulShr(uint256(a), x, 128));
        return -int256(Math.mulShr(uint256(-a), x, 128, Math.Rounding.Ceil));
    }
}
