// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IParameters} from "../../src/chain/IParameters.sol";
import {IRandomness} from "../../src/chain/IRandomness.sol";
import {Randomness} from "../../src/chain/Randomness.sol";
import {StakeGovernor} from "../../src/governance/StakeGovernor.sol";
import {IPossession} from "../../src/storage/IPossession.sol";
import {IStorageMarket} from "../../src/storage/IStorageMarket.sol";
import {StorageMarket} from "../../src/storage/StorageMarket.sol";
import {NetworkToken} from "../../src/token/NetworkToken.sol";
import {StakeVault} from "../../src/token/StakeVault.sol";
import {deployParameters, deployRandomness} from "../deploy/chain.sol";
import {deployStakeGovernor} from "../deploy/governance.sol";
import {deployPossession, deployStorageMarket} from "../deploy/storage.sol";
import {deployNetworkToken, deployStakeVault} from "../deploy/token.sol";
import {StorageFixture} from "../storage/fixture.sol";

/// @notice A founder, careless or hostile, deploys numbers under which the rules would not hold.
contract UnsafeProfileAttack is StorageFixture {
    function vaultWith(bytes32 key, uint256 max) private returns (StakeVault) {
        IParameters.Entry[] memory entries = new IParameters.Entry[](3);
        entries[0] = IParameters.Entry("vault.withdrawalDelay", 3 days, 1 hours, 30 days, 30 days, 0);
        entries[1] = IParameters.Entry("vault.backerLossCapBps", 5_000, 0, 10_000, 10_000, 0);
        entries[2] = IParameters.Entry("vault.ownShareMinBps", 2_000, 0, 10_000, 10_000, 0);
        for (uint256 i; i < 3; ++i) {
            if (entries[i].key == key) entries[i].max = max;
        }
        return deployStakeVault(address(token), registry, operators, deployParameters(registry, entries));
    }

    function vaultExternal(bytes32 key, uint256 max) external {
        vaultWith(key, max);
    }

    function test_a_share_above_all_and_a_delay_that_cannot_be_kept_are_refused() public {
        vaultWith("none", 0);
        // a loss cap of 100.01 % would make every slash of a small pool fail
        vm.expectRevert(abi.encodeWithSelector(IParameters.BadBounds.selector, bytes32("vault.backerLossCapBps"), 5_000, 0, 10_001, 10_000));
        this.vaultExternal("vault.backerLossCapBps", 10_001);
        vm.expectPartialRevert(IParameters.BadBounds.selector);
        this.vaultExternal("vault.ownShareMinBps", 10_001);
        vm.expectPartialRevert(IParameters.BadBounds.selector);
        this.vaultExternal("vault.withdrawalDelay", uint256(1) << 32); // 2^64 would be read as no delay at all
    }

    function test_a_silence_that_no_transaction_could_make_final_is_refused() public {
        IPossession.Config memory c = possessionConfig();
        (c.maxMisses, c.graceEvery) = (200, 300);
        vm.expectPartialRevert(IPossession.BadConfig.selector);
        deployPossession(c, registry, operators, randomness);
        c.maxMisses = 100;
        deployPossession(c, registry, operators, randomness);
    }

    function test_a_market_in_another_token_than_the_stake_is_refused() public {
        NetworkToken other = deployNetworkToken("Other", "OTH", 1e18);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.WrongToken.selector, address(other), address(token)));
        deployStorageMarket(marketConfig(), registry, operators, vault, rails, possession, randomness, address(other));
    }

    function test_a_seed_that_could_go_stale_within_a_window_is_refused() public {
        Randomness hasty = deployRandomness(IRandomness.Source.PrevRandao, address(0), 149);
        vm.expectRevert(abi.encodeWithSelector(IStorageMarket.BadTerms.selector, "staleAfter", 149, 150));
        deployStorageMarket(marketConfig(), registry, operators, vault, rails, possession, hasty, address(token));
        Randomness patient = deployRandomness(IRandomness.Source.PrevRandao, address(0), 150);
        deployStorageMarket(marketConfig(), registry, operators, vault, rails, possession, patient, address(token));
    }

    function test_a_timelock_without_delay_is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(StakeGovernor.RuleOutOfBounds.selector, "timelockDelay", 0, 1, type(uint256).max));
        deployStakeGovernor(vault, StakeGovernor.Rules(60, 600, 1e18, 4, 0));
        deployStakeGovernor(vault, StakeGovernor.Rules(60, 600, 1e18, 4, 1));
    }

    function test_a_market_whose_exposure_outlasts_the_withdrawal_delay_is_not_registered() public {
        IStorageMarket.Config memory c = marketConfig();
        c.maxFaultPeriods = 900;
        StorageMarket slow = deployStorageMarket(c, registry, operators, vault, rails, possession, randomness, address(token));
        vm.expectRevert();
        registry.set("storageMarket", address(slow), true);
    }
}

/// @notice The longest silence that a profile may allow, measured in one transaction on cold storage.
contract LongSilence is StorageFixture {
    function possessionConfig() internal view override returns (IPossession.Config memory c) {
        c = super.possessionConfig();
        (c.maxMisses, c.graceEvery) = (100, 101);
    }

    /// forge-config: default.isolate = true
    function test_the_longest_silence_that_a_profile_may_allow_fits_a_transaction() public {
        uint64 dealId = activeDeal(alice, 1 << 100, 200);
        vm.warp(block.timestamp + 150 * 300);
        market.terminate(dealId);
        uint256 used = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint("gas", used);
        assertLt(used, 16_777_216);
        assertFalse(possession.stands(alice));
    }
}
