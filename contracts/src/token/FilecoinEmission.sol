// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IRegistry} from "../chain/IRegistry.sol";
import {FilecoinSchedule} from "./FilecoinSchedule.sol";
import {IEmissionPolicy, IPowerMeter} from "./IEmissionPolicy.sol";
import {NetworkToken} from "./NetworkToken.sol";

/// @title Filecoin's emission: cap 2 billion; 330 million by time (half-life six years), 770 million by storage power against a growing baseline.
/// @notice Epochs of 30 seconds of chain time since deployment. Power counts from the checkpoint that first saw it and is taken as constant until the
/// next one; it is zero while no module is registered as "power", so bytes that are merely stored emit nothing by their size.
contract FilecoinEmission is IEmissionPolicy {
    bytes32 private constant POWER = "power";
    bytes32 private constant REWARDS = "rewards";
    uint256 public constant CAP = 2_000_000_000e18;

    IRegistry public immutable registry;
    NetworkToken private immutable _token;
    /// @notice Epoch 1 starts here.
    uint64 public immutable startTime;

    /// @inheritdoc IEmissionPolicy
    uint256 public emitted;
    /// @notice Power up to `notedEpoch` is in `realized`; from there on `notedPowerBytes` counts.
    uint64 public notedEpoch;
    uint256 public notedPowerBytes;
    /// @notice Sum over all epochs of min(power, baseline), byte-epochs.
    uint256 public realized;

    /// @param name at most 31 bytes (it is the EIP-712 domain)
    /// @param genesis what exists from the start, at most CAP - emissionMax
    constructor(IRegistry registry_, string memory name, string memory symbol, NetworkToken.Allocation[] memory genesis) {
        uint256 limit = CAP - emissionMax();
        uint256 total;
        for (uint256 i; i < genesis.length; ++i) {
            uint256 amount = genesis[i].amount;
            if (amount > limit - total) revert GenesisTooLarge(amount, limit - total);
            total += amount;
        }
        registry = registry_;
        startTime = uint64(block.timestamp);
        _token = new NetworkToken(name, symbol, CAP, genesis);
    }

    /// @inheritdoc IEmissionPolicy
    function mint() external returns (uint256 amount) {
        checkpoint();
        uint256 due = _supply(notedEpoch, realized);
        if (due <= emitted) return 0;
        amount = due - emitted;
        emitted = due;
        address rewards = registry.get(REWARDS);
        emit Minted(notedEpoch, rewards, amount);
        _token.mint(rewards, amount);
    }

    /// @inheritdoc IEmissionPolicy
    function checkpoint() public {
        uint64 now_ = epoch();
        if (now_ > notedEpoch) {
            if (notedPowerBytes != 0) {
                realized += FilecoinSchedule.realizedSum(FilecoinSchedule.growthTable(), notedEpoch, now_, notedPowerBytes);
            }
            notedEpoch = now_;
        }
        uint256 power = _power();
        if (power != notedPowerBytes) {
            notedPowerBytes = power;
            emit PowerNoted(now_, power);
        }
    }

    /// @inheritdoc IEmissionPolicy
    function token() external view returns (address) {
        return address(_token);
    }

    /// @inheritdoc IEmissionPolicy
    function emissionMax() public pure returns (uint256) {
        return FilecoinSchedule.SIMPLE_TOTAL + FilecoinSchedule.BASELINE_TOTAL;
    }

    /// @inheritdoc IEmissionPolicy
    function scheduled() external view returns (uint256) {
        uint64 now_ = epoch();
        uint256 more =
            notedPowerBytes == 0 ? 0 : FilecoinSchedule.realizedSum(FilecoinSchedule.growthTable(), notedEpoch, now_, notedPowerBytes);
        return _supply(now_, realized + more);
    }

    /// @inheritdoc IEmissionPolicy
    function epoch() public view returns (uint64) {
        return (uint64(block.timestamp) - startTime) / FilecoinSchedule.EPOCH_SECONDS;
    }

    /// @notice Filecoin's simple reward of one epoch, base units.
    function simpleReward(uint64 epoch_) external pure returns (uint256) {
        return FilecoinSchedule.simpleReward(epoch_);
    }

    /// @notice Baseline of an epoch, bytes.
    function baselineBytes(uint64 epoch_) external pure returns (uint256) {
        return FilecoinSchedule.baselineAt(FilecoinSchedule.growthTable(), epoch_);
    }

    /// @notice Effective network time now noted, Q.128 epochs.
    function effectiveNetworkTime() external view returns (uint256) {
        return FilecoinSchedule.theta(FilecoinSchedule.growthTable(), realized);
    }

    function _supply(uint64 epoch_, uint256 realized_) private pure returns (uint256) {
        uint256 supply = FilecoinSchedule.simpleSupply(epoch_);
        if (realized_ != 0) supply += FilecoinSchedule.baselineSupply(FilecoinSchedule.theta(FilecoinSchedule.growthTable(), realized_));
        return supply >> 128;
    }

    /// @dev A missing, failing or babbling power module counts as no power: it must not stop the simple part.
    function _power() private view returns (uint256) {
        try registry.get(POWER) returns (address module) {
            (bool answered, bytes memory answer) = module.staticcall(abi.encodeCall(IPowerMeter.powerBytes, ()));
            return answered && answer.length == 32 ? abi.decode(answer, (uint256)) : 0;
        } catch {
            return 0;
        }
    }
}
