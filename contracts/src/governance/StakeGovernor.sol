// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {Governor} from "@openzeppelin/contracts/governance/Governor.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {GovernorCountingSimple} from "@openzeppelin/contracts/governance/extensions/GovernorCountingSimple.sol";
import {GovernorSettings} from "@openzeppelin/contracts/governance/extensions/GovernorSettings.sol";
import {GovernorTimelockControl} from "@openzeppelin/contracts/governance/extensions/GovernorTimelockControl.sol";
import {GovernorVotes} from "@openzeppelin/contracts/governance/extensions/GovernorVotes.sol";
import {GovernorVotesQuorumFraction} from "@openzeppelin/contracts/governance/extensions/GovernorVotesQuorumFraction.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {Timelock} from "./Timelock.sol";

/// @title Governor of a network: votes are active stake in the stake vault, time is counted in seconds, decisions wait in a timelock of its own.
/// @notice A vote may change the rules, but only between half and four times what they were at deployment (quorum: between half and twice), so
/// that no captured vote can abolish the vote. The constructor creates the timelock: there is never an account that could have taken it.
contract StakeGovernor is GovernorSettings, GovernorCountingSimple, GovernorVotes, GovernorVotesQuorumFraction, GovernorTimelockControl {
    struct Rules {
        uint48 votingDelaySeconds;
        uint32 votingPeriodSeconds;
        uint256 proposalThreshold; // base units of stake
        uint256 quorumPercent; // of all votes
        uint256 timelockDelaySeconds;
    }

    uint48 public immutable votingDelayFirst;
    uint32 public immutable votingPeriodFirst;
    uint256 public immutable proposalThresholdFirst;
    uint256 public immutable quorumPercentFirst;

    error RuleOutOfBounds(string rule, uint256 got, uint256 min, uint256 max);
    error NotTimestampClock(uint48 clock, uint256 timestamp);

    /// @param stakeVault votes with a timestamp clock (ERC-6372)
    constructor(IVotes stakeVault, Rules memory rules)
        Governor("Millrace Governor")
        GovernorSettings(rules.votingDelaySeconds, rules.votingPeriodSeconds, rules.proposalThreshold)
        GovernorVotes(stakeVault)
        GovernorVotesQuorumFraction(rules.quorumPercent)
        GovernorTimelockControl(new Timelock(rules.timelockDelaySeconds, address(this)))
    {
        if (clock() != block.timestamp) revert NotTimestampClock(clock(), block.timestamp);
        if (rules.quorumPercent == 0) revert RuleOutOfBounds("quorumPercent", 0, 1, 100);
        if (rules.timelockDelaySeconds == 0) revert RuleOutOfBounds("timelockDelay", 0, 1, type(uint256).max);
        votingDelayFirst = rules.votingDelaySeconds;
        votingPeriodFirst = rules.votingPeriodSeconds;
        proposalThresholdFirst = rules.proposalThreshold;
        quorumPercentFirst = rules.quorumPercent;
    }

    function _setVotingDelay(uint48 got) internal override {
        if (_deployed()) _checkRule("votingDelay", got, votingDelayFirst, 4);
        super._setVotingDelay(got);
    }

    function _setVotingPeriod(uint32 got) internal override {
        if (_deployed()) _checkRule("votingPeriod", got, votingPeriodFirst, 4);
        super._setVotingPeriod(got);
    }

    function _setProposalThreshold(uint256 got) internal override {
        if (_deployed()) _checkRule("proposalThreshold", got, proposalThresholdFirst, 4);
        super._setProposalThreshold(got);
    }

    function _updateQuorumNumerator(uint256 got) internal override {
        if (_deployed()) _checkRule("quorumPercent", got, quorumPercentFirst, 2);
        super._updateQuorumNumerator(got);
    }

    /// @dev False inside the constructor, where the first rules are set.
    function _deployed() private view returns (bool) {
        return address(this).code.length != 0;
    }

    function _checkRule(string memory rule, uint256 got, uint256 first, uint256 times) private pure {
        uint256 min = (first + 1) / 2;
        uint256 max = first * times;
        if (got < min || got > max) revert RuleOutOfBounds(rule, got, min, max);
    }

    // The remaining functions only say which of two inherited versions counts.

    function state(uint256 proposalId) public view override(Governor, GovernorTimelockControl) returns (ProposalState) {
        return super.state(proposalId);
    }

    function proposalNeedsQueuing(uint256 proposalId) public view override(Governor, GovernorTimelockControl) returns (bool) {
        return super.proposalNeedsQueuing(proposalId);
    }

    function proposalThreshold() public view override(Governor, GovernorSettings) returns (uint256) {
        return super.proposalThreshold();
    }

    function _queueOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) returns (uint48) {
        return super._queueOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _executeOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) {
        super._executeOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _cancel(address[] memory targets, uint256[] memory values, bytes[] memory calldatas, bytes32 descriptionHash)
        internal
        override(Governor, GovernorTimelockControl)
        returns (uint256)
    {
        return super._cancel(targets, values, calldatas, descriptionHash);
    }

    function _executor() internal view override(Governor, GovernorTimelockControl) returns (address) {
        return super._executor();
    }
}
