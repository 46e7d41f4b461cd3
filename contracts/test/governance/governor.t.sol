// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {IGovernor} from "@openzeppelin/contracts/governance/IGovernor.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {IParameters} from "../../src/chain/IParameters.sol";
import {IRegistry} from "../../src/chain/IRegistry.sol";
import {StakeGovernor} from "../../src/governance/StakeGovernor.sol";
import {Timelock} from "../../src/governance/Timelock.sol";
import {ChainFixture, SlasherModule} from "../chain/fixture.sol";
import {deployStakeGovernor} from "../deploy/governance.sol";

/// Votes that count blocks: what a governor here must not be given.
contract BlockClockVotes is ERC20, ERC20Permit, ERC20Votes {
    constructor() ERC20("Blocks", "B") ERC20Permit("Blocks") {}

    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Votes) {
        super._update(from, to, value);
    }

    function nonces(address owner) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }
}

/// @notice A sealed network: registry and parameters obey the timelock, votes are stake in the real vault.
abstract contract GovernedFixture is ChainFixture {
    uint256 internal constant BLOCK_NUMBER = 1000; // it never moves here: time is timestamps alone

    StakeGovernor internal governor;
    Timelock internal timelock;
    address internal large = makeAddr("large staker");
    address internal small = makeAddr("small staker");
    uint64 internal largeId;
    uint64 internal smallId;

    function setUp() public virtual override {
        super.setUp();
        vm.roll(BLOCK_NUMBER);
        fillRegistry();
        governor = deployStakeGovernor(IVotes(address(vault)), rules());
        timelock = Timelock(payable(governor.timelock()));
        registry.set("timelock", address(timelock), false);
        registry.set("governor", address(governor), false);
        registry.seal();
        largeId = _stake(large, "large", 90e18);
        smallId = _stake(small, "small", 10e18);
        skip(1);
    }

    function rules() internal pure returns (StakeGovernor.Rules memory) {
        return StakeGovernor.Rules({
            votingDelaySeconds: 1 days,
            votingPeriodSeconds: 3 days,
            proposalThreshold: 5e18,
            quorumPercent: 21,
            timelockDelaySeconds: 2 days
        });
    }

    function _stake(address owner, string memory name, uint256 amount) private returns (uint64 operatorId) {
        (operatorId,,) = registerOperator(owner, name);
        token.mint(owner, amount);
        vm.startPrank(owner);
        token.approve(address(vault), amount);
        vault.deposit(operatorId, amount);
        vm.stopPrank();
    }

    function propose(address proposer, address target, bytes memory call) internal returns (uint256) {
        (address[] memory targets, uint256[] memory values, bytes[] memory calls) = action(target, call);
        vm.prank(proposer);
        return governor.propose(targets, values, calls, "# A change");
    }

    function queue(address target, bytes memory call) internal {
        (address[] memory targets, uint256[] memory values, bytes[] memory calls) = action(target, call);
        governor.queue(targets, values, calls, keccak256("# A change"));
    }

    function execute(address target, bytes memory call) internal {
        (address[] memory targets, uint256[] memory values, bytes[] memory calls) = action(target, call);
        governor.execute(targets, values, calls, keccak256("# A change"));
    }

    function action(address target, bytes memory call)
        internal
        pure
        returns (address[] memory targets, uint256[] memory values, bytes[] memory calls)
    {
        (targets, values, calls) = (new address[](1), new uint256[](1), new bytes[](1));
        (targets[0], calls[0]) = (target, call);
    }

    function vote(address voter, uint256 proposal) internal {
        vm.prank(voter);
        governor.castVote(proposal, 1);
    }

    /// From proposal to the moment when it may be executed.
    function pass(address target, bytes memory call) internal {
        uint256 proposal = propose(large, target, call);
        skip(1 days + 1);
        vote(large, proposal);
        skip(3 days);
        queue(target, call);
        skip(2 days);
    }
}

contract StakeGovernorTest is GovernedFixture {
    function test_aVoteOfStakersChangesAParameterAfterTheTimelock() public {
        bytes memory call = abi.encodeCall(IParameters.set, (DELAY, 14 days));
        skip(7 days);
        uint256 proposal = propose(small, address(parameters), call);
        assertTrue(governor.proposalNeedsQueuing(proposal));
        vm.prank(large);
        vm.expectPartialRevert(IGovernor.GovernorUnexpectedProposalState.selector); // the delay before voting
        governor.castVote(proposal, 1);
        skip(1 days + 1);
        vote(large, proposal);
        assertEq(uint8(governor.state(proposal)), uint8(IGovernor.ProposalState.Active));
        skip(3 days);
        assertEq(uint8(governor.state(proposal)), uint8(IGovernor.ProposalState.Succeeded));
        queue(address(parameters), call);
        vm.expectPartialRevert(TimelockController.TimelockUnexpectedOperationState.selector); // too early
        execute(address(parameters), call);
        skip(2 days);
        vm.prank(makeAddr("anyone"));
        execute(address(parameters), call);
        assertEq(parameters.get(DELAY), 14 days);
        assertEq(uint8(governor.state(proposal)), uint8(IGovernor.ProposalState.Executed));
        assertEq(block.number, BLOCK_NUMBER);
    }

    function test_aVoteRegistersAModule() public {
        bytes memory call = abi.encodeCall(IRegistry.set, ("storageMarket", address(new SlasherModule(5 days)), true));
        pass(address(registry), call);
        execute(address(registry), call);
        assertEq(registry.slashers().length, 1);
    }

    function test_withoutAQuorumNothingPasses() public {
        bytes memory call = abi.encodeCall(IParameters.set, (DELAY, 14 days));
        uint256 proposal = propose(small, address(parameters), call);
        skip(1 days + 1);
        vote(small, proposal); // 10 of 100, the quorum is 21
        skip(3 days);
        assertEq(uint8(governor.state(proposal)), uint8(IGovernor.ProposalState.Defeated));
        assertEq(governor.quorum(block.timestamp - 1), 21e18);
    }

    function testFuzz_withoutStakeNobodyProposesOrCounts(address stranger) public {
        vm.assume(stranger != large && stranger != small && stranger != address(0));
        (address[] memory targets, uint256[] memory values, bytes[] memory calls) =
            action(address(parameters), abi.encodeCall(IParameters.set, (DELAY, 14 days)));
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IGovernor.GovernorInsufficientProposerVotes.selector, stranger, 0, 5e18));
        governor.propose(targets, values, calls, "# A change");
        uint256 proposal = propose(small, targets[0], calls[0]);
        skip(1 days + 1);
        vote(stranger, proposal);
        (, uint256 forVotes,) = governor.proposalVotes(proposal);
        assertEq(forVotes, 0);
    }

    function test_stakeThatComesAfterTheProposalDoesNotVote() public {
        uint256 proposal = propose(small, address(parameters), abi.encodeCall(IParameters.set, (DELAY, 14 days)));
        skip(1 days + 1);
        token.mint(small, 500e18);
        vm.startPrank(small);
        token.approve(address(vault), 500e18);
        vault.deposit(smallId, 500e18);
        vm.stopPrank();
        vote(small, proposal);
        (, uint256 forVotes,) = governor.proposalVotes(proposal);
        assertEq(forVotes, 10e18);
    }

    function test_theProposerCancelsBeforeTheVote() public {
        bytes memory call = abi.encodeCall(IParameters.set, (DELAY, 14 days));
        uint256 proposal = propose(small, address(parameters), call);
        (address[] memory targets, uint256[] memory values, bytes[] memory calls) = action(address(parameters), call);
        vm.prank(small);
        governor.cancel(targets, values, calls, keccak256("# A change"));
        assertEq(uint8(governor.state(proposal)), uint8(IGovernor.ProposalState.Canceled));
    }

    function testFuzz_aProposalPassesByMoreForThanAgainstAndAQuorum(uint256 more, uint8 largeSays, uint8 smallSays) public {
        (largeSays, smallSays) = (uint8(bound(largeSays, 0, 3)), uint8(bound(smallSays, 0, 3)));
        more = bound(more, 0, 400e18);
        uint256[3] memory sum;
        token.mint(small, more);
        vm.startPrank(small);
        token.approve(address(vault), more);
        if (more > 0) vault.deposit(smallId, more);
        vm.stopPrank();
        skip(1);
        uint256 proposal = propose(small, address(parameters), abi.encodeCall(IParameters.set, (DELAY, 14 days)));
        skip(1 days + 1);
        _say(large, proposal, largeSays, 90e18, sum);
        _say(small, proposal, smallSays, 10e18 + more, sum);
        skip(3 days);
        bool passed = sum[1] > sum[0] && (sum[1] + sum[2]) * 100 >= (100e18 + more) * 21;
        IGovernor.ProposalState expected = passed ? IGovernor.ProposalState.Succeeded : IGovernor.ProposalState.Defeated;
        assertEq(uint8(governor.state(proposal)), uint8(expected));
        (uint256 against, uint256 forVotes, uint256 abstain) = governor.proposalVotes(proposal);
        assertEq(abi.encode(against, forVotes, abstain), abi.encode(sum[0], sum[1], sum[2]));
    }

    function _say(address voter, uint256 proposal, uint8 support, uint256 weight, uint256[3] memory sum) private {
        vm.prank(voter);
        if (support > 2) {
            vm.expectRevert(IGovernor.GovernorInvalidVoteType.selector);
            governor.castVote(proposal, support);
        } else {
            governor.castVote(proposal, support);
            sum[support] += weight;
        }
    }

    /// No role is held by a plain account, and the deployer has kept nothing.
    function test_theGovernorIsTheOnlyProposerAndTheTimelockItsOwnAdmin() public view {
        bytes32[3] memory roles = [timelock.PROPOSER_ROLE(), timelock.CANCELLER_ROLE(), timelock.DEFAULT_ADMIN_ROLE()];
        address[3] memory plain = [address(this), large, address(0)];
        for (uint256 i; i < 3; ++i) {
            for (uint256 j; j < 3; ++j) {
                assertFalse(timelock.hasRole(roles[i], plain[j]));
            }
        }
        assertTrue(timelock.hasRole(timelock.PROPOSER_ROLE(), address(governor)));
        assertTrue(timelock.hasRole(timelock.CANCELLER_ROLE(), address(governor)));
        assertTrue(timelock.hasRole(timelock.DEFAULT_ADMIN_ROLE(), address(timelock)));
        assertTrue(timelock.hasRole(timelock.EXECUTOR_ROLE(), address(0)));
        assertEq(timelock.getMinDelay(), 2 days);
        assertEq(registry.authority(), address(timelock));
        assertEq(governor.CLOCK_MODE(), "mode=timestamp");
        assertEq(governor.COUNTING_MODE(), "support=bravo&quorum=for,abstain");
        assertEq(governor.votingDelay(), 1 days);
        assertEq(governor.votingPeriod(), 3 days);
        assertEq(governor.proposalThreshold(), 5e18);
    }

    function testFuzz_nobodyReachesTheTimelockBesideTheGovernor(address stranger) public {
        vm.assume(stranger != address(governor) && stranger != address(timelock));
        bytes memory call = abi.encodeCall(IParameters.set, (DELAY, 14 days));
        bytes32 role = timelock.PROPOSER_ROLE();
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, stranger, role));
        timelock.schedule(address(parameters), 0, call, 0, 0, 2 days);
        vm.expectRevert(abi.encodeWithSelector(TimelockController.TimelockUnauthorizedCaller.selector, stranger));
        timelock.updateDelay(3 days);
        vm.expectRevert(abi.encodeWithSelector(IGovernor.GovernorOnlyExecutor.selector, stranger));
        governor.setVotingPeriod(3 days);
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotTimelock.selector, stranger, timelock));
        parameters.set(DELAY, 14 days);
        vm.stopPrank();
    }

    function testFuzz_aVoteMovesTheVotingDelayOnlyWithinItsBounds(uint48 got) public {
        got = uint48(bound(got, 0, 30 days));
        _rule(abi.encodeCall(governor.setVotingDelay, (got)), "votingDelay", got, 12 hours, 4 days);
        if (got >= 12 hours && got <= 4 days) assertEq(governor.votingDelay(), got);
    }

    function testFuzz_aVoteMovesTheVotingPeriodOnlyWithinItsBounds(uint32 got) public {
        got = uint32(bound(got, 0, 30 days));
        _rule(abi.encodeCall(governor.setVotingPeriod, (got)), "votingPeriod", got, 36 hours, 12 days);
        if (got >= 36 hours && got <= 12 days) assertEq(governor.votingPeriod(), got);
    }

    function testFuzz_aVoteMovesTheProposalThresholdOnlyWithinItsBounds(uint256 got) public {
        got = bound(got, 0, 50e18);
        _rule(abi.encodeCall(governor.setProposalThreshold, (got)), "proposalThreshold", got, 2.5e18, 20e18);
        if (got >= 2.5e18 && got <= 20e18) assertEq(governor.proposalThreshold(), got);
    }

    function testFuzz_aVoteMovesTheQuorumOnlyWithinItsBounds(uint256 got) public {
        got = bound(got, 0, 120);
        _rule(abi.encodeCall(governor.updateQuorumNumerator, (got)), "quorumPercent", got, 11, 42);
        if (got >= 11 && got <= 42) assertEq(governor.quorumNumerator(), got);
    }

    function _rule(bytes memory call, string memory rule, uint256 got, uint256 min, uint256 max) private {
        pass(address(governor), call);
        if (got < min || got > max) vm.expectRevert(abi.encodeWithSelector(StakeGovernor.RuleOutOfBounds.selector, rule, got, min, max));
        execute(address(governor), call);
    }

    function testFuzz_aVoteLengthensTheTimelockButNeverBelowTheFirstDelay(uint256 got) public {
        got = bound(got, 0, 20 days);
        bytes memory call = abi.encodeCall(TimelockController.updateDelay, (got));
        pass(address(timelock), call);
        if (got < 2 days || got > 16 days) {
            vm.expectRevert(abi.encodeWithSelector(Timelock.DelayOutOfBounds.selector, got, 2 days, 16 days));
            execute(address(timelock), call);
        } else {
            execute(address(timelock), call);
            assertEq(timelock.getMinDelay(), got);
        }
    }

    function test_aClockThatCountsBlocksIsRefused() public {
        BlockClockVotes votes = new BlockClockVotes();
        vm.expectRevert(abi.encodeWithSelector(StakeGovernor.NotTimestampClock.selector, uint48(BLOCK_NUMBER), block.timestamp));
        deployStakeGovernor(votes, rules());
    }

    function test_aQuorumOfNothingIsRefused() public {
        StakeGovernor.Rules memory none = rules();
        none.quorumPercent = 0;
        vm.expectRevert(abi.encodeWithSelector(StakeGovernor.RuleOutOfBounds.selector, "quorumPercent", 0, 1, 100));
        deployStakeGovernor(IVotes(address(vault)), none);
    }

    function test_votesAndDelegationFollowActiveStake() public {
        vm.prank(small);
        vault.delegate(large);
        skip(1);
        assertEq(governor.getVotes(large, block.timestamp - 1), 100e18);
        vm.prank(large);
        vault.requestExit(largeId, 40e18);
        skip(1);
        assertEq(governor.getVotes(large, block.timestamp - 1), 60e18);
    }

    function testGas_aProposalsLife() public {
        bytes memory call = abi.encodeCall(IParameters.set, (DELAY, 14 days));
        skip(7 days);
        uint256 proposal = propose(large, address(parameters), call);
        vm.snapshotGasLastCall("StakeGovernor", "propose");
        skip(1 days + 1);
        vote(large, proposal);
        vm.snapshotGasLastCall("StakeGovernor", "castVote");
        skip(3 days);
        queue(address(parameters), call);
        vm.snapshotGasLastCall("StakeGovernor", "queue");
        skip(2 days);
        execute(address(parameters), call);
        vm.snapshotGasLastCall("StakeGovernor", "execute");
    }
}
