// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

import {IIncomeSource} from "../token/IBackerIncome.sol";

/// @title SubnetEpochs: what an epoch of a subnet decides, and who is paid for it (decision 0019).
/// @notice Epochs of a subnet are decided in order, each by the library Yuma. Anybody settles one by handing in what it depends on: the
/// contract checks it against the hashes on chain and runs the function itself. In a subnet whose rules say `optimistic`, anybody may
/// propose the result instead, under a bond of at least the epoch's emission; whoever settles such an epoch refutes a wrong proposal and
/// gets half of its bond, the other half is burnt. A result that is proven, or stood through the window, is finalized: its emission
/// is minted here, ranks and permits are recorded, and each uid's operator is credited. For all that is ever minted: paid + owed +
/// carried = emission. An epoch that nobody settled for `resetEpochs` is passed over, with its emission carried on and the bonds forgotten.
/// @dev Packed data, big-endian. Payments: owner:u128 dust:u128, then for each uid operatorId:u64 miner:u96 validator:u96. Ranks: permits:u256,
/// then for each uid incentive:u16 dividends:u16. State: count:u16, count times consensus:u16, then rows of bonds (see YumaColumns). Rows:
/// as there, one for each uid with a permit that revealed one. Root: keccak256 of the three hashes of payments, ranks and state.
interface ISubnetEpochs is IIncomeSource {
    struct Config {
        uint16 windowBps; // of a tempo: how long a proposal may be refuted; at most 20,000
        uint32 windowMinSeconds;
        uint96 bondMin;
        uint8 resetEpochs; // tempos after the end of the reveal window until an epoch may be passed over; 1 to 8
    }

    /// @notice What an epoch's result depends on; each part is checked against its hash.
    struct Evidence {
        bytes metagraph; // as logged by Subnets.closeEpoch
        bytes rows;
        bytes state; // as the last epoch left it; empty: none
    }

    struct Result {
        bytes payments;
        bytes ranks;
        bytes state;
    }

    /// @notice Where a subnet is.
    struct Account {
        uint64 next; // the epoch to be decided now
        uint40 lastEpochAt; // end of the last decided epoch; 0: there are no bonds
        uint128 carried; // dust and emission that no epoch has paid out yet
        bytes32 stateHash; // 0: none
    }

    /// @notice The result of the epoch `next`, waiting to be final.
    struct Decision {
        bytes32 root; // 0: none
        address proposer; // none: it is proven
        uint64 finalFrom;
        uint128 bond;
        uint128 total; // emission and what was carried
    }

    struct Earnings {
        uint128 miner;
        uint128 validator;
    }

    event Proposed(
        uint64 indexed subnetId,
        uint64 indexed epoch,
        address indexed proposer,
        bytes32 root,
        uint256 bond,
        uint256 finalFrom,
        Result result
    );
    /// `result` is empty where a proposal waited: anybody computes it from what the chain has logged.
    event Settled(uint64 indexed subnetId, uint64 indexed epoch, address indexed by, bytes32 root, Result result);
    event ProposalRefuted(
        uint64 indexed subnetId, uint64 indexed epoch, address indexed proposer, address challenger, uint256 reward, uint256 burnt
    );
    event ProposalUpheld(uint64 indexed subnetId, uint64 indexed epoch, address indexed proposer, uint256 bond);
    event Finalized(uint64 indexed subnetId, uint64 indexed epoch, bytes32 root, uint256 emission, uint256 ownerPart, uint256 dust);
    event Skipped(uint64 indexed subnetId, uint64 indexed epoch, uint256 carried, bool closed);
    event Credited(uint64 indexed subnetId, uint64 indexed epoch, uint16 indexed uid, uint64 operatorId, uint256 miner, uint256 validator);
    event MinerPaid(uint64 indexed operatorId, address indexed to, uint256 amount);
    event ValidatorPaid(uint64 indexed operatorId, uint256 amount);
    event AccountPaid(address indexed account, address to, uint256 amount);

    error BadConfig(bytes32 field, uint256 got, uint256 limit);
    error WrongEpoch(uint64 subnetId, uint64 epoch, uint64 next);
    error EpochNotClosed(uint64 subnetId, uint64 epoch);
    error RevealsStillOpen(uint64 subnetId, uint64 epoch, uint256 closesAt, uint256 timestamp);
    error RowsNoLongerKept(uint64 subnetId, uint64 epoch, uint64 present, uint64 keptThrough);
    error NotOptimistic(uint64 subnetId, uint64 epoch);
    error AlreadyDecided(uint64 subnetId, uint64 epoch, bytes32 root);
    error NotDecided(uint64 subnetId, uint64 epoch);
    error WindowOpen(uint64 subnetId, uint64 epoch, uint256 finalFrom, uint256 timestamp);
    error BondTooSmall(uint256 bond, uint256 needed);
    error WrongHash(bytes32 part, bytes32 got, bytes32 expected);
    error WrongLength(bytes32 part, uint256 got, uint256 expected);
    error WrongRow(uint256 uid, bytes32 got, bytes32 expected);
    error MissingRow(uint256 uid, uint256 position);
    error ExtraRows(uint256 length, uint256 used);
    error PaymentsDoNotAddUp(uint256 sum, uint256 total);
    error WrongOwnerPart(uint256 got, uint256 expected);
    error NotSkippable(uint64 subnetId, uint64 epoch, uint256 skippableFrom, uint256 timestamp);
    error UnknownUid(uint16 uid, uint256 count);
    error NothingOwed(address account);
    error NothingEarned(uint64 operatorId);

    /// @notice Posts the result of the next epoch under a bond, which is pulled from the caller in the inference token.
    function propose(uint64 subnetId, uint64 epoch, Result calldata result, uint256 bond) external;
    /// @notice Anybody: runs the next epoch on chain. Refutes or upholds a proposal that waits; the result is proven and can be finalized.
    function settle(uint64 subnetId, uint64 epoch, Evidence calldata evidence) external returns (bytes32 root);
    /// @notice Anybody, when the result is proven or its window has passed: mints, records, and makes payments creditable.
    function finalize(uint64 subnetId, uint64 epoch, bytes calldata payments, bytes calldata ranks, bytes32 stateHash) external;
    /// @notice Anybody: credits operators of these uids with what a final epoch gave them. A uid that was credited before is passed over.
    function credit(uint64 subnetId, uint64 epoch, bytes calldata payments, uint16[] calldata uids) external;
    /// @notice Anybody: passes over the next epoch. If it was never closed at once; else when nobody settled it for `resetEpochs`, and then
    /// its emission is carried and the bonds are forgotten.
    function skip(uint64 subnetId) external;
    /// @notice Anybody: pays what an operator earned as a miner to its beneficiary.
    function payMiner(uint64 operatorId) external returns (uint256 amount);
    /// @notice Pays the caller what it is owed as a subnet's owner, proposer or challenger.
    function claim(address to) external returns (uint256 amount);

    function accountOf(uint64 subnetId) external view returns (Account memory);
    function decisionOf(uint64 subnetId) external view returns (Decision memory);
    /// @notice What the next epoch of a subnet has to share out as things stand, and the least bond of its proposer.
    function stakesOf(uint64 subnetId, uint64 epoch) external view returns (uint256 total, uint256 bond);
    function earningsOf(uint64 operatorId) external view returns (Earnings memory);
    function owedTo(address account) external view returns (uint256);
    /// @notice Hash of a final epoch's payments; 0: not final.
    function paymentsHash(uint64 subnetId, uint64 epoch) external view returns (bytes32);
    /// @notice Bit uid is set when the uid was credited for the epoch.
    function creditedOf(uint64 subnetId, uint64 epoch) external view returns (uint256);
    /// @notice All that is here for somebody: carried, payable and bonds. Never more than the contract holds.
    function obligations() external view returns (uint256);
    function config() external view returns (Config memory);
}
