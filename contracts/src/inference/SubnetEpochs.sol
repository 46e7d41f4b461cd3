// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IRegistry} from "../chain/IRegistry.sol";
import {IBackerIncome, IIncomeSource} from "../token/IBackerIncome.sol";
import {EpochEvidence} from "./EpochEvidence.sol";
import {ISubnetEmission} from "./ISubnetEmission.sol";
import {ISubnetEpochs} from "./ISubnetEpochs.sol";
import {ISubnets} from "./ISubnets.sol";
import {IWeightsBoard} from "./IWeightsBoard.sol";
import {Yuma} from "./Yuma.sol";
import {YumaCore} from "./YumaCore.sol";
import {YumaInput} from "./YumaTypes.sol";

/// @title SubnetEpochs: see ISubnetEpochs for the rules. No owner, no parameter that can change.
/// @dev The token is the network's own, without callbacks. Every function writes its state before it calls out.
contract SubnetEpochs is ISubnetEpochs {
    using SafeERC20 for IERC20;

    uint256 private constant BPS = 10_000;
    uint256 private constant UIDS_MAX = 256;
    uint256 private constant WORD = 32;
    /// @notice Rows are gone from the board after so many epochs. As WeightsBoard.RETAINED_EPOCHS.
    uint64 public constant RETAINED_EPOCHS = 16;

    IRegistry public immutable registry;
    IOperators public immutable operators;
    ISubnets public immutable subnets;
    IWeightsBoard public immutable board;
    ISubnetEmission public immutable emission;
    YumaCore public immutable core;
    IERC20 public immutable token;

    Config private _config; // written once, in the constructor
    mapping(uint64 subnetId => Account) private _accounts;
    mapping(uint64 subnetId => Decision) private _decisions;
    mapping(uint64 operatorId => Earnings) private _earnings;
    /// @inheritdoc ISubnetEpochs
    mapping(address account => uint256) public owedTo;
    /// @inheritdoc ISubnetEpochs
    mapping(uint64 subnetId => mapping(uint64 epoch => bytes32)) public paymentsHash;
    /// @inheritdoc ISubnetEpochs
    mapping(uint64 subnetId => mapping(uint64 epoch => uint256)) public creditedOf;
    /// @inheritdoc ISubnetEpochs
    uint256 public obligations;

    constructor(
        Config memory c,
        IRegistry registry_,
        IOperators operators_,
        ISubnets subnets_,
        IWeightsBoard board_,
        ISubnetEmission emission_,
        YumaCore core_
    ) {
        if (c.windowBps > 2 * BPS) revert BadConfig("windowBps", c.windowBps, 2 * BPS);
        if (c.windowMinSeconds == 0) revert BadConfig("windowMinSeconds", 0, 1);
        if (c.bondMin == 0) revert BadConfig("bondMin", 0, 1);
        if (c.resetEpochs == 0 || c.resetEpochs > 8) revert BadConfig("resetEpochs", c.resetEpochs, 8);
        _config = c;
        (registry, operators, subnets, board, emission, core) = (registry_, operators_, subnets_, board_, emission_, core_);
        token = IERC20(emission_.token());
    }

    // ------------------------------------------------------------------------------------------------------------- decide

    /// @inheritdoc ISubnetEpochs
    function propose(uint64 subnetId, uint64 epoch, Result calldata result, uint256 bond) external {
        uint256 finalFrom = block.timestamp + _windowOf(subnetId);
        _requireDue(subnetId, epoch, finalFrom);
        if (!subnets.hyperparametersAt(subnetId, epoch).optimistic) revert NotOptimistic(subnetId, epoch);
        bytes32 root = _decisions[subnetId].root;
        if (root != 0) revert AlreadyDecided(subnetId, epoch, root);
        (uint256 total, uint256 needed) = stakesOf(subnetId, epoch);
        if (bond < needed) revert BondTooSmall(bond, needed);
        _checkPayments(result, total);
        root = rootOf(keccak256(result.payments), keccak256(result.ranks), keccak256(result.state));
        _decisions[subnetId] = Decision(root, msg.sender, uint64(finalFrom), SafeCast.toUint128(bond), uint128(total));
        obligations += bond;
        emit Proposed(subnetId, epoch, msg.sender, root, bond, finalFrom, result);
        token.safeTransferFrom(msg.sender, address(this), bond);
    }

    /// @inheritdoc ISubnetEpochs
    function settle(uint64 subnetId, uint64 epoch, Evidence calldata evidence) external returns (bytes32 root) {
        _requireDue(subnetId, epoch, block.timestamp);
        Decision memory d = _decisions[subnetId];
        if (d.root != 0 && d.proposer == address(0)) revert AlreadyDecided(subnetId, epoch, d.root);
        (uint256 total,) = stakesOf(subnetId, epoch);
        Result memory result = _compute(subnetId, epoch, total, evidence);
        root = rootOf(keccak256(result.payments), keccak256(result.ranks), keccak256(result.state));
        _decisions[subnetId] = Decision(root, address(0), uint64(block.timestamp), 0, uint128(total));
        if (d.root != 0) {
            // What was proposed is logged already, or the challenger has computed what is right: a dispute must be cheap.
            _resolve(subnetId, epoch, d, d.root == root);
            delete result;
        }
        emit Settled(subnetId, epoch, msg.sender, root, result);
    }

    /// @dev The epoch can be decided: it is the next one, closed, its reveals are over, and its rows are kept until `until`.
    function _requireDue(uint64 subnetId, uint64 epoch, uint256 until) private view {
        uint64 next = _accounts[subnetId].next;
        if (epoch != next) revert WrongEpoch(subnetId, epoch, next);
        if (subnets.metagraphHash(subnetId, epoch) == 0) revert EpochNotClosed(subnetId, epoch);
        (, uint256 closesAt) = board.windowOf(subnetId, epoch);
        if (block.timestamp < closesAt) revert RevealsStillOpen(subnetId, epoch, closesAt, block.timestamp);
        uint64 present = subnets.epochAt(subnetId, until);
        if (present >= epoch + RETAINED_EPOCHS) revert RowsNoLongerKept(subnetId, epoch, present, epoch + RETAINED_EPOCHS - 1);
    }

    /// @dev A wrong result is refused by whoever settles; this only keeps any result from paying out more than there is.
    function _checkPayments(Result calldata result, uint256 total) private pure {
        (uint256 sum, uint256 length) = (0, result.payments.length);
        if (length < WORD || length > (UIDS_MAX + 1) * WORD || length % WORD != 0) revert WrongLength("payments", length, WORD);
        // 4 bytes of ranks for each word of payments but the first, after a word.
        if (result.ranks.length != WORD + length / 8 - 4) revert WrongLength("ranks", result.ranks.length, WORD + length / 8 - 4);
        if (result.state.length < 2) revert WrongLength("state", result.state.length, 2);
        bytes calldata payments = result.payments;
        assembly ("memory-safe") {
            let end := add(payments.offset, length)
            for { let at := add(payments.offset, 32) } lt(at, end) { at := add(at, 32) } {
                let word := calldataload(at)
                sum := add(sum, add(and(shr(96, word), 0xffffffffffffffffffffffff), and(word, 0xffffffffffffffffffffffff)))
            }
        }
        (uint256 ownerPart, uint256 dust) = _head(payments);
        uint256 expected = total * Yuma.OWNER_CUT / type(uint16).max;
        if (ownerPart != expected) revert WrongOwnerPart(ownerPart, expected);
        if (sum + ownerPart + dust != total) revert PaymentsDoNotAddUp(sum + ownerPart + dust, total);
    }

    function _resolve(uint64 subnetId, uint64 epoch, Decision memory d, bool isRight) private {
        (address proposer, uint256 bond) = (d.proposer, d.bond);
        if (isRight) {
            owedTo[proposer] += bond;
            emit ProposalUpheld(subnetId, epoch, proposer, bond);
            return;
        }
        uint256 reward = bond / 2;
        owedTo[msg.sender] += reward;
        obligations -= bond - reward;
        emit ProposalRefuted(subnetId, epoch, proposer, msg.sender, reward, bond - reward);
        ERC20Burnable(address(token)).burn(bond - reward);
    }

    function _compute(uint64 subnetId, uint64 epoch, uint256 total, Evidence calldata evidence)
        private
        view
        returns (Result memory result)
    {
        _requireHash("metagraph", keccak256(evidence.metagraph), subnets.metagraphHash(subnetId, epoch));
        _requireHash("state", evidence.state.length == 0 ? bytes32(0) : keccak256(evidence.state), _accounts[subnetId].stateHash);
        EpochEvidence.Rows memory r = EpochEvidence.readRows(board, subnetId, epoch, evidence.metagraph);
        EpochEvidence.checkRows(r, evidence.rows);
        uint256 last = _accounts[subnetId].lastEpochAt;
        uint256 end = EpochEvidence.consensusEnd(evidence.state);
        (result.payments, result.ranks, result.state) = core.decide(
            _input(subnetId, epoch, total, last),
            EpochEvidence.uidWords(evidence.metagraph, r),
            evidence.rows,
            evidence.state[end == 0 ? 0 : 2:end],
            EpochEvidence.bondsOf(evidence.metagraph, evidence.state, last)
        );
        EpochEvidence.nameOperators(evidence.metagraph, result.payments);
    }

    function _input(uint64 subnetId, uint64 epoch, uint256 total, uint256 last) private view returns (YumaInput memory) {
        return YumaInput({
            parameters: EpochEvidence.parametersOf(subnets.hyperparametersAt(subnetId, epoch), subnets.subnet(subnetId).tempoSeconds),
            time: uint40(subnets.epochStart(subnetId, epoch + 1)),
            lastEpochAt: uint40(last),
            ownerUid: type(uint16).max,
            totalEmission: uint128(total)
        });
    }

    function _requireHash(bytes32 part, bytes32 got, bytes32 expected) private pure {
        if (got != expected) revert WrongHash(part, got, expected);
    }

    // ----------------------------------------------------------------------------------------------------------- finalize

    /// @inheritdoc ISubnetEpochs
    function finalize(uint64 subnetId, uint64 epoch, bytes calldata payments, bytes calldata ranks, bytes32 stateHash) external {
        Account storage a = _accounts[subnetId];
        Decision memory d = _decisions[subnetId];
        if (epoch != a.next) revert WrongEpoch(subnetId, epoch, a.next);
        if (d.root == 0) revert NotDecided(subnetId, epoch);
        if (block.timestamp < d.finalFrom) revert WindowOpen(subnetId, epoch, d.finalFrom, block.timestamp);
        _requireHash("result", rootOf(keccak256(payments), keccak256(ranks), stateHash), d.root);
        (uint256 ownerPart, uint256 dust) = _head(payments);
        delete _decisions[subnetId];
        if (d.proposer != address(0)) owedTo[d.proposer] += d.bond;
        owedTo[subnets.ownerOf(subnetId)] += ownerPart;
        (a.next, a.lastEpochAt) = (epoch + 1, uint40(subnets.epochStart(subnetId, epoch + 1)));
        (a.carried, a.stateHash) = (uint128(dust), stateHash);
        paymentsHash[subnetId][epoch] = keccak256(payments);
        emit Finalized(subnetId, epoch, d.root, d.total, ownerPart, dust);
        obligations += emission.collect(subnetId, epoch);
        subnets.record(subnetId, epoch, uint256(bytes32(ranks[:WORD])), ranks[WORD:]);
    }

    /// @inheritdoc ISubnetEpochs
    function skip(uint64 subnetId) external {
        Account storage a = _accounts[subnetId];
        uint64 epoch = a.next;
        bool closed = subnets.metagraphHash(subnetId, epoch) != 0;
        if (closed) {
            (, uint256 from) = board.windowOf(subnetId, epoch);
            from += uint256(_config.resetEpochs) * subnets.subnet(subnetId).tempoSeconds;
            if (block.timestamp < from || _decisions[subnetId].root != 0) revert NotSkippable(subnetId, epoch, from, block.timestamp);
            (a.lastEpochAt, a.stateHash) = (0, 0);
        } else if (subnets.nextToClose(subnetId) <= epoch) {
            revert EpochNotClosed(subnetId, epoch);
        }
        a.next = epoch + 1; // before the emission is called: nothing settles this epoch from within
        if (closed) {
            uint256 amount = emission.collect(subnetId, epoch);
            obligations += amount;
            a.carried += uint128(amount);
        }
        emit Skipped(subnetId, epoch, a.carried, closed);
    }

    // ---------------------------------------------------------------------------------------------------------------- pay

    /// @inheritdoc ISubnetEpochs
    function credit(uint64 subnetId, uint64 epoch, bytes calldata payments, uint16[] calldata uids) external {
        _requireHash("payments", keccak256(payments), paymentsHash[subnetId][epoch]);
        uint256 done = creditedOf[subnetId][epoch];
        for (uint256 i; i < uids.length; ++i) {
            uint16 uid = uids[i];
            if ((uint256(uid) + 2) * WORD > payments.length) revert UnknownUid(uid, payments.length / WORD - 1);
            if (done >> uid & 1 == 1) continue;
            done |= 1 << uid;
            uint256 word = uint256(bytes32(payments[(uint256(uid) + 1) * WORD:]));
            (uint64 operatorId, uint96 miner, uint96 validator) = (uint64(word >> 192), uint96(word >> 96), uint96(word));
            Earnings storage e = _earnings[operatorId];
            (e.miner, e.validator) = (e.miner + miner, e.validator + validator);
            emit Credited(subnetId, epoch, uid, operatorId, miner, validator);
        }
        creditedOf[subnetId][epoch] = done;
    }

    /// @inheritdoc ISubnetEpochs
    function payMiner(uint64 operatorId) external returns (uint256 amount) {
        amount = _earnings[operatorId].miner;
        if (amount == 0) revert NothingEarned(operatorId);
        _earnings[operatorId].miner = 0;
        address to = operators.beneficiaryOf(operatorId);
        emit MinerPaid(operatorId, to, amount);
        _pay(to, amount);
    }

    /// @inheritdoc IIncomeSource
    function release(uint64 operatorId) external returns (uint256 amount) {
        amount = _earnings[operatorId].validator;
        if (amount == 0) return 0;
        _earnings[operatorId].validator = 0;
        obligations -= amount;
        IBackerIncome income = IBackerIncome(registry.get("backerIncome"));
        emit ValidatorPaid(operatorId, amount);
        token.forceApprove(address(income), amount);
        income.distribute(operatorId, address(token), amount);
    }

    /// @inheritdoc ISubnetEpochs
    function claim(address to) external returns (uint256 amount) {
        amount = owedTo[msg.sender];
        if (amount == 0) revert NothingOwed(msg.sender);
        owedTo[msg.sender] = 0;
        emit AccountPaid(msg.sender, to, amount);
        _pay(to, amount);
    }

    function _pay(address to, uint256 amount) private {
        obligations -= amount;
        token.safeTransfer(to, amount);
    }

    // -------------------------------------------------------------------------------------------------------------- views

    /// @notice The root of a result, of the hashes of its parts.
    function rootOf(bytes32 payments, bytes32 ranks, bytes32 state) public pure returns (bytes32) {
        return keccak256(abi.encode(payments, ranks, state));
    }

    /// @inheritdoc ISubnetEpochs
    function stakesOf(uint64 subnetId, uint64 epoch) public view returns (uint256 total, uint256 bond) {
        total = emission.emissionOf(subnetId, epoch) + _accounts[subnetId].carried;
        bond = Math.max(total, _config.bondMin);
    }

    /// @inheritdoc ISubnetEpochs
    function accountOf(uint64 subnetId) external view returns (Account memory) {
        return _accounts[subnetId];
    }

    /// @inheritdoc ISubnetEpochs
    function decisionOf(uint64 subnetId) external view returns (Decision memory) {
        return _decisions[subnetId];
    }

    /// @inheritdoc ISubnetEpochs
    function earningsOf(uint64 operatorId) external view returns (Earnings memory) {
        return _earnings[operatorId];
    }

    /// @inheritdoc ISubnetEpochs
    function config() external view returns (Config memory) {
        return _config;
    }

    function _windowOf(uint64 subnetId) private view returns (uint256) {
        return Math.max(uint256(subnets.subnet(subnetId).tempoSeconds) * _config.windowBps / BPS, _config.windowMinSeconds);
    }

    function _head(bytes calldata payments) private pure returns (uint256 ownerPart, uint256 dust) {
        uint256 head = uint256(bytes32(payments[:WORD]));
        return (head >> 128, uint128(head));
    }
}
