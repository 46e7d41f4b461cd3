// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title Subnets: markets of one kind of model each, who serves and judges in them, and by which rules (decision 0021).
/// @notice A subnet's epoch e is the time [genesis + e * tempo, genesis + (e + 1) * tempo). A uid (0 to 255) is a place in a subnet that
/// an operator holds; one operator holds at most one in each subnet. When an epoch is over anybody closes it: who held which uid at its
/// end, with how much stake, under which permits, and how much emission is due, is fixed for ever as the hash of an event's data.
/// @dev The metagraph that `closeEpoch` hashes and logs is packed: permits:u256, then for each uid in order
/// operatorId:u64 registeredAt:u48 stake:u96, big-endian. `stake` is the lesser of the operator's active stake (own and backers') when
/// the epoch began and when it ended, both as of the last second before. The subnet's owner has no rights in consensus: no uid is its.
interface ISubnets {
    enum Yuma {
        Yuma2,
        Yuma3,
        Yuma3Liquid
    }

    enum ConsensusMode {
        Previous,
        Current,
        Auto
    }

    /// @notice As EpochParameters in src/inference/consensus/epoch-input.ts. Shares are u16 of 65,535.
    struct Hyperparameters {
        Yuma mode;
        ConsensusMode consensusMode;
        uint16 kappa;
        uint16 bondsPenalty;
        uint32 bondsMovingAverage; // millionths of the old bond that stay
        uint16 alphaLow;
        uint16 alphaHigh;
        uint16 alphaSteepness; // hundredths
        uint8 stakeCapPercentile; // 0: off
        uint8 maxValidators; // 1 to 64
        uint8 bondRowCap; // 1 to 64
        uint8 revealDelayEpochs; // 1 to 4
        uint16 immunityEpochs; // more than revealDelayEpochs + 2
        bool optimistic; // settlement: a bonded proposer, not direct
        uint96 stakeThreshold;
    }

    struct Subnet {
        address owner;
        uint40 genesis; // 0: no such subnet
        uint32 tempoSeconds; // never changes
        uint16 uidCount;
        bool dissolved;
        bytes32 kind; // the task that its models do, as a label
        address creator;
        uint96 lock; // base units of the network's token that its creator locked
    }

    struct Holder {
        uint64 operatorId; // 0: nobody
        uint48 registeredAt;
    }

    event SubnetCreated(
        uint64 indexed subnetId, address indexed owner, bytes32 indexed kind, uint64 genesis, uint32 tempoSeconds, uint256 lock
    );
    event SubnetDissolved(uint64 indexed subnetId, address indexed by);
    event LockReturned(uint64 indexed subnetId, address indexed to, uint256 amount);
    event OwnerProposed(uint64 indexed subnetId, address indexed proposed);
    event OwnerChanged(uint64 indexed subnetId, address indexed from, address indexed to);
    event HyperparametersSet(uint64 indexed subnetId, uint64 fromEpoch, Hyperparameters hyperparameters);
    event UidRegistered(uint64 indexed subnetId, uint16 indexed uid, uint64 indexed operatorId, uint256 price);
    event UidPruned(uint64 indexed subnetId, uint16 indexed uid, uint64 indexed operatorId, uint256 score, bool immune);
    event BurntFor(uint64 indexed subnetId, address indexed from, uint256 amount);
    event PermitClaimed(uint64 indexed subnetId, uint16 indexed uid, uint64 epoch);
    event PermitRevoked(uint64 indexed subnetId, uint16 indexed uid, uint64 indexed operatorId, uint64 barredUntilEpoch);
    event EpochClosed(uint64 indexed subnetId, uint64 indexed epoch, uint256 emission, bytes metagraph);
    event RanksRecorded(uint64 indexed subnetId, uint64 indexed epoch, uint64 permitsFromEpoch, uint256 permits, bytes ranks);

    error UnknownSubnet(uint64 subnetId);
    error SubnetIsDissolved(uint64 subnetId);
    error NetworkFull(uint256 subnets);
    error LockAboveLimit(uint256 lock, uint256 limit);
    error PriceAboveLimit(uint256 price, uint256 limit);
    error OutOfRange(bytes32 field, uint256 got, uint256 min, uint256 max);
    error ImmunityTooShort(uint256 immunityEpochs, uint256 needed);
    error ChangedTooRecently(uint64 subnetId, uint256 notBefore, uint256 timestamp);
    error NotSubnetOwner(uint64 subnetId, address caller, address owner);
    error NotProposedOwner(uint64 subnetId, address caller, address proposed);
    error NotOperatorOwner(uint64 operatorId, address caller);
    error AlreadyRegistered(uint64 subnetId, uint64 operatorId, uint16 uid);
    error NotRegistered(uint64 subnetId, uint64 operatorId);
    error NotHolder(uint64 subnetId, uint16 uid, address caller);
    error NoPermit(uint64 subnetId, uint16 uid, uint64 epoch);
    error AlreadyPermitted(uint64 subnetId, uint16 uid);
    error NoSeatFree(uint64 subnetId, uint256 permits);
    error StakeTooSmall(uint64 subnetId, uint16 uid, uint256 stake, uint256 needed);
    error BarredUntil(uint64 subnetId, uint16 uid, uint64 epoch);
    error EpochNotOver(uint64 subnetId, uint64 epoch, uint256 endsAt, uint256 timestamp);
    error EpochNotNext(uint64 subnetId, uint64 epoch, uint64 expected);
    error EpochNotClosed(uint64 subnetId, uint64 epoch);
    error RanksOutOfOrder(uint64 subnetId, uint64 epoch, uint64 last);
    error LockNotDue(uint64 subnetId, uint256 notBefore, uint256 timestamp);
    error NotIdle(uint64 subnetId, uint256 idleFrom, uint256 timestamp);
    error NotModule(address caller, bytes32 module);
    error ZeroAmount();

    // ---- the life of a subnet

    /// @notice Creates a subnet whose owner is the caller, for the lock that `lockCost` names, at most `maxLock`.
    function create(bytes32 kind, uint32 tempoSeconds, Hyperparameters calldata hyperparameters, uint256 maxLock)
        external
        returns (uint64 subnetId);
    /// @notice Ends a subnet: its owner at any time, anybody when no epoch of it was settled for `idleSeconds`.
    function dissolve(uint64 subnetId) external;
    /// @notice Gives the lock of a dissolved subnet back to its creator, not before `lockSeconds` after its genesis.
    function returnLock(uint64 subnetId) external returns (uint256 amount);
    function proposeOwner(uint64 subnetId, address proposed) external;
    function acceptOwner(uint64 subnetId) external;
    /// @notice The owner changes the rules, within their bounds, from the next epoch on and at most once in `changeSeconds`.
    function setHyperparameters(uint64 subnetId, Hyperparameters calldata hyperparameters) external;

    // ---- uids

    /// @notice The operator's owner takes a uid for it: the next free one, or that of the worst (see `worst`). Burns `registrationPrice`.
    function register(uint64 subnetId, uint64 operatorId, uint256 maxPrice) external returns (uint16 uid);
    /// @notice Burns the caller's tokens for a subnet: this is what its share of the emission is measured by.
    function burnFor(uint64 subnetId, uint256 amount) external;
    /// @notice Anybody: gives a uid with enough stake, as of the last second, a permit that is free, from this epoch on, until permits
    /// that a settlement gave come into force.
    function claimPermit(uint64 subnetId, uint16 uid) external;

    // ---- epochs

    /// @notice Anybody: fixes the metagraph and the emission of an epoch that is over, in order of epochs (see `nextToClose`).
    function closeEpoch(uint64 subnetId, uint64 epoch) external returns (bytes32 metagraphHash, uint256 emission);
    /// @notice The module "subnetEpochs" alone: what an epoch decided. The permits hold from the epoch after the present one.
    /// @param newPermits bit uid is set where the uid has a permit; who was barred or replaced since then gets none
    /// @param ranks incentive:u16 dividends:u16 for each uid of the closed metagraph. Incentive must be 0 where consensus is 0: it is what
    /// a uid survives by.
    function record(uint64 subnetId, uint64 epoch, uint256 newPermits, bytes calldata ranks) external;
    /// @notice The module "weightsBoard" alone: takes the permit of a uid that did not open its commits.
    function revokePermit(uint64 subnetId, uint16 uid, uint64 operatorId) external;

    // ---- views

    function subnetCount() external view returns (uint64);
    function liveSubnets() external view returns (uint256);
    function subnet(uint64 subnetId) external view returns (Subnet memory);
    function ownerOf(uint64 subnetId) external view returns (address);
    function hyperparametersAt(uint64 subnetId, uint64 epoch) external view returns (Hyperparameters memory);
    function lockCost() external view returns (uint256);
    function registrationPrice(uint64 subnetId) external view returns (uint256);
    function epochAt(uint64 subnetId, uint256 time) external view returns (uint64);
    function epochStart(uint64 subnetId, uint64 epoch) external view returns (uint256);
    function nextToClose(uint64 subnetId) external view returns (uint64);
    /// @notice keccak256 of the metagraph of a closed epoch; 0 when it is not closed.
    function metagraphHash(uint64 subnetId, uint64 epoch) external view returns (bytes32);
    /// @notice What `closeEpoch` would log now for an epoch that is over; of a closed epoch the same as was logged.
    function metagraph(uint64 subnetId, uint64 epoch) external view returns (bytes memory);
    /// @notice Who held a uid at a time that is not in the future (everything in that second included).
    function holderAt(uint64 subnetId, uint16 uid, uint256 time) external view returns (Holder memory);
    /// @notice The uid of an operator; reverts with NotRegistered when it has none.
    function uidOf(uint64 subnetId, uint64 operatorId) external view returns (uint16);
    function permitsAt(uint64 subnetId, uint64 epoch) external view returns (uint256);
    function barredUntil(uint64 subnetId, uint16 uid) external view returns (uint64 epoch);
    /// @notice As last recorded; 0 for a uid that registered since that epoch.
    function rankOf(uint64 subnetId, uint16 uid) external view returns (uint16 incentive, uint16 dividends);
    /// @notice Which uid would be pruned now, were the subnet full: of those that are not immune, if they are more than `minNonImmune`,
    /// else of the immune, the one with the lowest rank, then the earliest registration, then the lowest uid.
    function worst(uint64 subnetId) external view returns (uint16 uid, uint256 score, bool immune);
    /// @notice What WeightsBoard asks: reverts unless `account` is the node key of the uid's operator, which holds a permit now.
    function requireValidator(uint64 subnetId, uint16 uid, address account) external view returns (uint64 epoch, uint64 operatorId);
    /// @notice The times of an epoch: when it ends, and from when to when its commits may be opened (before any extension).
    function timesOf(uint64 subnetId, uint64 epoch) external view returns (uint256 endsAt, uint256 opensAt, uint256 closesAt);
}
