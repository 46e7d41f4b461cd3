// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IOperators} from "../chain/IOperators.sol";
import {IModule} from "../chain/IRegistry.sol";
import {IArbitrable, IEvidence} from "../governance/IArbitration.sol";
import {IJury} from "../governance/IJury.sol";
import {JuryTerms} from "../governance/JuryTerms.sol";
import {IRails} from "../token/IRails.sol";
import {IStakeVault} from "../token/IStakeVault.sol";
import {IReceiptCourt} from "./IReceiptCourt.sol";
import {ReceiptDigest} from "./ReceiptDigest.sol";

/// @title ReceiptCourt: see IReceiptCourt for the rules. No owner, no parameter that can change.
/// @notice Money: bonds of open cases are this contract's account at Rails; it holds no coins.
contract ReceiptCourt is IReceiptCourt, IArbitrable, IEvidence, IModule, EIP712 {
    uint256 private constant GUILTY = 1;
    uint256 private constant NOT_GUILTY = 2;
    uint256 private constant EVIDENCE_BYTES_MAX = 2_048;
    uint256 private constant BPS = 10_000;
    /// Reward and slash: who reports itself loses at least this share.
    uint256 private constant REWARD_BPS_MAX = 4_000;
    uint32 private constant LEAVE_SECONDS_MAX = 30 days;
    string private constant META_EVIDENCE =
        "data:application/json,{\"title\":\"A miner's receipt\",\"question\":\"Did the miner sign a receipt that does not tell the truth about its answer, or answer with something else than the model that the receipt names?\",\"rulingOptions\":{\"titles\":[\"Guilty\",\"Not guilty\"]}}";

    IOperators public immutable operators;
    IStakeVault public immutable stakeVault;
    IRails public immutable rails;
    IJury public immutable jury;
    address public immutable token;

    Config private _config; // written once, in the constructor
    mapping(uint64 operatorId => Miner) private _miners;
    /// Until when (exclusive) receipts of a key convict; the greatest time: as long as it is bound.
    mapping(uint64 operatorId => mapping(address key => uint256)) private _answerableUntil;
    mapping(uint64 operatorId => mapping(bytes32 receiptId => bool)) public isPunished;
    mapping(uint256 disputeId => Case) private _cases;

    constructor(Config memory c, IOperators operators_, IStakeVault stakeVault_, IRails rails_, IJury jury_)
        EIP712("Millrace Receipt", "1")
    {
        if (c.slash == 0 || c.slash > c.bond) revert BadConfig("slash", c.slash, c.bond);
        if (c.caseBond == 0) revert BadConfig("caseBond", 0, 1);
        if (c.rewardBps > REWARD_BPS_MAX) revert BadConfig("rewardBps", c.rewardBps, REWARD_BPS_MAX);
        if (c.challengeBps > REWARD_BPS_MAX) revert BadConfig("challengeBps", c.challengeBps, REWARD_BPS_MAX);
        if (c.leaveSeconds == 0 || c.leaveSeconds > LEAVE_SECONDS_MAX) revert BadConfig("leaveSeconds", c.leaveSeconds, LEAVE_SECONDS_MAX);
        _config = c;
        operators = operators_;
        stakeVault = stakeVault_;
        rails = rails_;
        jury = jury_;
        token = stakeVault_.stakeToken();
        emit MetaEvidence(0, META_EVIDENCE);
    }

    // ------------------------------------------------------------------------------------------------------------------ miners

    /// @inheritdoc IReceiptCourt
    function enrol(uint64 operatorId) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        Miner storage m = _miners[operatorId];
        _bind(operatorId, m, msg.sender);
        m.unlocksAt = 0;
        uint256 locked = stakeVault.lockedOfModule(operatorId, address(this));
        emit Enrolled(operatorId, msg.sender, locked < _config.bond ? _config.bond : locked);
        if (locked < _config.bond) stakeVault.lock(operatorId, _config.bond - locked);
    }

    /// @inheritdoc IReceiptCourt
    function replaceKey(uint64 operatorId) external {
        Miner storage m = _known(operatorId);
        address key = operators.nodeKeyOf(operatorId);
        if (key == m.key) revert SameKey(operatorId, key);
        _bind(operatorId, m, key);
    }

    /// @inheritdoc IReceiptCourt
    function leave(uint64 operatorId) external {
        if (operators.nodeKeyOf(operatorId) != msg.sender && operators.ownerOf(operatorId) != msg.sender) revert NoOperator(msg.sender);
        Miner storage m = _known(operatorId);
        if (m.unlocksAt != 0) revert AlreadyLeft(operatorId, m.unlocksAt);
        m.unlocksAt = uint48(block.timestamp) + _config.leaveSeconds;
        emit Left(operatorId, m.unlocksAt);
    }

    /// @inheritdoc IReceiptCourt
    function unlock(uint64 operatorId) external {
        Miner storage m = _known(operatorId);
        if (m.unlocksAt == 0) revert NotLeft(operatorId);
        if (block.timestamp < m.unlocksAt) revert StillLocked(operatorId, m.unlocksAt, block.timestamp);
        if (m.openCases != 0) revert CasesOpen(operatorId, m.openCases);
        delete _answerableUntil[operatorId][m.key];
        delete _miners[operatorId];
        uint256 locked = stakeVault.lockedOfModule(operatorId, address(this));
        emit Unlocked(operatorId, locked);
        if (locked != 0) stakeVault.unlock(operatorId, locked);
    }

    function _bind(uint64 operatorId, Miner storage m, address key) private {
        address old = m.key;
        if (old == key) return;
        if (old != address(0)) {
            uint256 until = block.timestamp + _config.leaveSeconds;
            _answerableUntil[operatorId][old] = until;
            emit KeyReplaced(operatorId, old, key, until);
        }
        m.key = key;
        _answerableUntil[operatorId][key] = type(uint256).max;
    }

    // -------------------------------------------------------------------------------------------------- what the contract decides

    /// @inheritdoc IReceiptCourt
    function reportContradiction(Receipt calldata one, bytes calldata signature, Receipt calldata other, bytes calldata otherSignature)
        external
        returns (uint256 reward)
    {
        uint64 operatorId = _requireAnswerable(one.subject);
        bytes32 receiptId = one.inputs.receiptId;
        if (other.inputs.receiptId != receiptId) revert NotSameReceipt(receiptId, other.inputs.receiptId);
        if (ReceiptDigest.claimHash(one) == ReceiptDigest.claimHash(other)) revert NoContradiction(receiptId);
        _requireSigned(one, signature, one.subject.miner);
        _requireSigned(other, otherSignature, one.subject.miner);
        return _convict(operatorId, receiptId, Offence.Contradiction, msg.sender);
    }

    /// @inheritdoc IReceiptCourt
    function reportExcess(Receipt calldata receipt, bytes calldata signature) external returns (uint256 reward) {
        uint64 operatorId = _requireAnswerable(receipt.subject);
        bytes32 receiptId = receipt.inputs.receiptId;
        bool isLong = receipt.outputs.units > receipt.inputs.outputUnitsMax;
        if (!isLong && receipt.outputs.price <= receipt.inputs.voucher) revert WithinLimits(receiptId);
        _requireSigned(receipt, signature, receipt.subject.miner);
        return _convict(operatorId, receiptId, isLong ? Offence.UnitsAboveLimit : Offence.PriceAboveVoucher, msg.sender);
    }

    function _requireAnswerable(Subject calldata subject) private view returns (uint64) {
        if (!isAnswerable(subject.operatorId, subject.miner)) revert KeyNotBound(subject.operatorId, subject.miner);
        return uint64(subject.operatorId);
    }

    function _requireSigned(Receipt calldata receipt, bytes calldata signature, address key) private view {
        (address signer,,) = ECDSA.tryRecoverCalldata(digestOf(receipt), signature);
        if (signer != key) revert BadSignature(key);
    }

    /// Once for each receipt; the last of a bond may be less than a whole slash.
    function _convict(uint64 operatorId, bytes32 receiptId, Offence offence, address reporter) private returns (uint256 reward) {
        if (isPunished[operatorId][receiptId]) revert AlreadyPunished(operatorId, receiptId);
        uint256 locked = stakeVault.lockedOfModule(operatorId, address(this));
        if (locked == 0) revert NothingLocked(operatorId);
        isPunished[operatorId][receiptId] = true;
        uint256 amount = locked < _config.slash ? locked : _config.slash;
        uint256 wanted = amount * (offence == Offence.JuryVerdict ? _config.challengeBps : _config.rewardBps) / BPS;
        if (wanted > _config.rewardMax) wanted = _config.rewardMax;
        (,, reward) = stakeVault.slash(operatorId, amount, IStakeVault.Payout(address(0), 0, reporter, wanted));
        emit Convicted(operatorId, receiptId, offence, reporter, amount, reward);
    }

    // --------------------------------------------------------------------------------------------------- what the jury decides

    /// @inheritdoc IReceiptCourt
    function challenge(Receipt calldata receipt, bytes calldata signature, string calldata evidence)
        external
        payable
        returns (uint256 disputeId)
    {
        uint64 operatorId = _requireAnswerable(receipt.subject);
        bytes32 receiptId = receipt.inputs.receiptId;
        if (isPunished[operatorId][receiptId]) revert AlreadyPunished(operatorId, receiptId);
        if (stakeVault.lockedOfModule(operatorId, address(this)) == 0) revert NothingLocked(operatorId);
        _requireSigned(receipt, signature, receipt.subject.miner);
        disputeId = jury.createDispute{value: msg.value}(2, _termsFor(operatorId));
        _cases[disputeId] = Case(msg.sender, operatorId, false, receiptId);
        ++_miners[operatorId].openCases;
        emit Challenged(disputeId, operatorId, receiptId, msg.sender);
        emit Dispute(jury, disputeId, 0, disputeId);
        _submit(disputeId, evidence);
        rails.transferFrom(token, msg.sender, address(this), _config.caseBond);
    }

    /// @inheritdoc IReceiptCourt
    function submitEvidence(uint256 disputeId, string calldata evidence) external {
        _openCase(disputeId);
        _submit(disputeId, evidence);
    }

    /// @inheritdoc IReceiptCourt
    function appeal(uint256 disputeId) external payable {
        _openCase(disputeId);
        jury.appeal{value: msg.value}(disputeId, abi.encodePacked(msg.sender));
    }

    /// @inheritdoc IArbitrable
    /// @dev Does not revert for anything but a wrong caller and a closed case: a bond that is gone by then is no obstacle.
    function rule(uint256 _disputeID, uint256 _ruling) external {
        if (msg.sender != address(jury)) revert NotArbitrator(msg.sender);
        Case storage c = _openCase(_disputeID);
        (c.closed, _miners[c.operatorId].openCases) = (true, _miners[c.operatorId].openCases - 1);
        emit Ruling(jury, _disputeID, _ruling);
        emit CaseClosed(_disputeID, c.operatorId, _ruling);
        address to = _ruling == NOT_GUILTY ? operators.beneficiaryOf(c.operatorId) : c.challenger;
        rails.transfer(token, to, _config.caseBond);
        bool isPunishable = !isPunished[c.operatorId][c.receiptId] && stakeVault.lockedOfModule(c.operatorId, address(this)) != 0;
        if (_ruling == GUILTY && isPunishable) _convict(c.operatorId, c.receiptId, Offence.JuryVerdict, c.challenger);
    }

    function _submit(uint256 disputeId, string calldata evidence) private {
        if (bytes(evidence).length > EVIDENCE_BYTES_MAX) revert EvidenceTooLong(bytes(evidence).length, EVIDENCE_BYTES_MAX);
        emit Evidence(jury, disputeId, msg.sender, evidence);
    }

    /// The accused operator and the challenger do not judge; what the jury gives back is the challenger's.
    function _termsFor(uint64 operatorId) private view returns (bytes memory) {
        uint64[] memory parties = new uint64[](1);
        address[] memory accounts = new address[](1);
        (parties[0], accounts[0]) = (operatorId, msg.sender);
        return JuryTerms.encode(msg.sender, parties, accounts);
    }

    // ------------------------------------------------------------------------------------------------------------------- views

    /// @inheritdoc IReceiptCourt
    function isBonded(uint64 operatorId, address key) external view returns (bool) {
        Miner storage m = _miners[operatorId];
        if (key == address(0) || m.key != key || m.unlocksAt != 0) return false;
        return stakeVault.lockedOfModule(operatorId, address(this)) >= _config.bond;
    }

    /// @inheritdoc IReceiptCourt
    function isAnswerable(uint256 operatorId, address key) public view returns (bool) {
        return operatorId <= type(uint64).max && block.timestamp < _answerableUntil[uint64(operatorId)][key];
    }

    /// @inheritdoc IReceiptCourt
    function miner(uint64 operatorId) external view returns (Miner memory) {
        return _miners[operatorId];
    }

    /// @inheritdoc IReceiptCourt
    function caseOf(uint256 disputeId) external view returns (Case memory) {
        return _cases[disputeId];
    }

    /// @inheritdoc IReceiptCourt
    function digestOf(Receipt calldata receipt) public view returns (bytes32) {
        return _hashTypedDataV4(ReceiptDigest.structHash(receipt));
    }

    /// @inheritdoc IReceiptCourt
    function config() external view returns (Config memory) {
        return _config;
    }

    /// @notice From the last receipt of a miner that leaves to the end of a case that was opened at the last moment.
    function exposureSeconds() external view returns (uint64) {
        return _config.leaveSeconds + IModule(address(jury)).exposureSeconds();
    }

    function _known(uint64 operatorId) private view returns (Miner storage m) {
        m = _miners[operatorId];
        if (m.key == address(0)) revert NotEnrolled(operatorId);
    }

    function _openCase(uint256 disputeId) private view returns (Case storage c) {
        c = _cases[disputeId];
        if (c.challenger == address(0)) revert UnknownCase(disputeId);
        if (c.closed) revert AlreadyClosed(disputeId);
    }
}
