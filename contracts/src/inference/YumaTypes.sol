// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @notice Which bonds rule an epoch uses (decision 0019, step 9).
enum YumaMode {
    Yuma2,
    Yuma3,
    Yuma3Liquid
}

/// @notice Whose consensus judges whether a miner was found early; Auto: the previous one where the bonds penalty is whole.
enum YumaConsensusMode {
    Previous,
    Current,
    Auto
}

/// @notice The hyper-parameters of one epoch; bounds and meaning as `EpochParameters` in src/inference/consensus/epoch-input.ts.
struct YumaParameters {
    YumaMode mode;
    YumaConsensusMode consensusMode;
    uint16 kappa; // u16 of one, 1..65,534
    uint16 bondsPenalty; // u16 of one
    uint32 bondsMovingAverage; // millionths, at most 1,000,000
    uint16 alphaLow; // u16 of one, at most alphaHigh
    uint16 alphaHigh; // u16 of one
    uint16 alphaSteepness; // hundredths, at most 2,000
    uint8 stakeCapPercentile; // 1..99, 0: off
    uint8 maxValidators; // 1..64
    uint16 bondRowCap; // 0: off
    uint40 activityCutoff; // seconds
    uint128 stakeThreshold; // base units
}

/// @notice What an epoch depends on besides its rows.
struct YumaInput {
    YumaParameters parameters;
    uint40 time;
    uint40 lastEpochAt; // 0 at the first epoch
    uint16 ownerUid; // at least the number of uids: the owner has none
    uint128 totalEmission; // base units
}

/// @notice What an epoch decides. Vectors are Q32, one word per uid; sets are bit maps, bit i for uid i.
struct YumaResult {
    uint256 active;
    uint256 permits;
    uint256[] stakeWeight;
    uint256[] consensus;
    uint256[] trust;
    uint256[] rank;
    uint256[] incentive;
    uint256[] dividends;
    uint256[] earned; // miner's base units << 128 | validator's
    uint256 ownerEmission;
    uint256 dust;
    bytes bonds; // as the bonds that went in
}

/// @notice Working state of one epoch. "At" is an address: of the first word of a vector in memory, or in calldata where that is said.
/// @dev The assembly of the Yuma libraries reads it by the offsets below.
struct YumaFrame {
    uint256 count; // 0x00 uids
    uint256 uidsAt; // 0x20 calldata: stake:128 lastUpdate:40 registeredAt:40 committedAt:40 flags:8, a word for each uid
    uint256 owner; // 0x40 uid
    uint256 lastEpochAt; // 0x60 time
    uint256 stakeAt; // 0x80 S
    uint256 activeAt; // 0xa0 A
    uint256 total; // 0xc0 sum of A
    uint256 minority; // 0xe0 what the stake below the consensus must exceed
    uint256 words; // 0x100 of a column
    uint256 cellsAt; // 0x120 the columns, one after another, see YumaColumns
    uint256 lanesAt; // 0x140 active stakes of the rows, in lanes as in a column
    uint256 consensusAt; // 0x160
    uint256 trustAt; // 0x180
    uint256 rankAt; // 0x1a0
    uint256 incentiveAt; // 0x1c0
    uint256 gainAt; // 0x1e0 dividends before they are normalised
    uint256 spareAt; // 0x200 room to work in: 576 words
    uint256 penalty; // 0x220 Q32
    uint256 speed; // 0x240 alpha where it is the same for all, Q32
    uint256 speedsAt; // 0x260 Yuma 3: table of 129 alphas by how far apart weight and bond are, and << 40 the step to the next
    uint256 judgeAt; // 0x280 consensus that liquid alpha compares with
    uint256 permits; // 0x2a0 new ones
    uint256 activeSet; // 0x2c0
    uint256 inForce; // 0x2e0 permits that count in this epoch
    uint256 uids; // 0x300 all of them
    uint256 kept; // 0x320 those that were there at the last epoch: bonds to others are forgotten
    uint256 listAt; // 0x340 of each uid its row as it counts: the sum of its values << 64 | where its entries are; 0: none
    uint256 entries; // 0x360 how many there are in all of these rows
    uint256 placesAt; // 0x380 of each row in force, in their order: its place in columns
    uint256 factsAt; // 0x3a0 of each miner what growing bonds needs, see YumaPairs and YumaShares
}
