// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title BuybackAuction: fees taken in the stable token buy back the native token, which is burnt in the buying transaction (decision 0028).
/// @notice A Dutch auction, one lot at a time. Fees are this contract's own account at the rails; whoever credits it pays fees. Anybody opens
/// the next lot: all fees there are, at most `lotMax` (a full lot). Less than that, and at least `lotMin`, may be opened once `patienceSeconds`
/// have passed since the lot before was sold or ran out. It is on sale `noticeSeconds` later, so that who opens it is not the first to know.
/// A price is native base units for 1e18 stable base units. It starts at twice the median of the last five full lots' prices, halves in each
/// `halfLifeSeconds` (in a straight line between halvings) and does not fall below `floorPrice`, at which it stays until the end of that half-life.
/// The first to pay takes the whole lot: the cost, rounded up, is burnt out of its own balance, and the stable amount is credited to the
/// account that it names at the rails, to be withdrawn from there. A lot that nobody takes rolls over: its fees are in the next.
/// Fees that came in the native token are burnt as they are.
/// @dev No owner, no oracle, no parameter that can change. The history begins with five times the first price that deployment states.
interface IBuybackAuction {
    struct Config {
        uint128 lotMin; // stable base units
        uint128 lotMax;
        uint256 floorPrice; // native base units for 1e18 stable base units
        uint256 firstPrice; // what the history holds before the first full lot is sold
        uint32 halfLifeSeconds;
        uint32 noticeSeconds;
        uint32 patienceSeconds;
    }

    struct Lot {
        uint64 id; // from 1
        uint64 startsAt;
        uint64 endsAt; // the lot has run out from here on
        bool sold;
        uint128 amount; // stable base units
        uint256 startPrice;
    }

    event LotOpened(uint64 indexed lotId, uint128 amount, uint256 startPrice, uint64 startsAt, uint64 endsAt);
    /// @param cost native base units, burnt
    event LotSold(uint64 indexed lotId, address indexed buyer, address indexed to, uint128 amount, uint256 price, uint256 cost);
    event LotRolledOver(uint64 indexed lotId, uint128 amount);
    event NativeFeesBurnt(uint256 amount);

    error BadConfig(string field, uint256 got, uint256 limit);
    error LotStillOpen(uint64 lotId, uint64 endsAt);
    error LotTooSmall(uint256 held, uint256 needed, uint64 lotMinFrom);
    error LotNotOnSale(uint64 lotId, uint64 currentId, uint64 startsAt, uint64 endsAt);
    error CostAboveLimit(uint256 cost, uint256 costMax);
    error BurnDiffers(uint256 supplyBefore, uint256 supplyAfter, uint256 amount);

    /// @notice Anybody: opens the next lot.
    function open() external returns (uint64 lotId);
    /// @notice Takes the lot that is on sale, whole. The caller has approved this contract for the cost in the native token.
    /// @param lotId the lot that is meant; another one is never sold in its place
    /// @param costMax most native base units that the caller will burn for it
    /// @param to whose account at the rails is credited
    function buy(uint64 lotId, uint256 costMax, address to) external returns (uint256 cost);
    /// @notice Anybody: burns fees that came in the native token, and native tokens that were sent here.
    function burnNativeFees() external returns (uint256 amount);

    /// @notice The latest lot; `id` 0 before the first.
    function lot() external view returns (Lot memory);
    /// @notice Price of the lot that is on sale; reverts when none is.
    function price() external view returns (uint256);
    /// @notice What the lot that is on sale costs now, native base units, rounded up.
    function cost() external view returns (uint256);
    /// @notice Prices of the last five full lots.
    function history() external view returns (uint256[5] memory);
    function medianPrice() external view returns (uint256);
    /// @notice Fees that are not sold, stable base units.
    function held() external view returns (uint256);
    /// @notice Fees sold ever, stable base units.
    function sold() external view returns (uint256);
    /// @notice Native base units burnt ever: paid for lots, and fees that came in the native token.
    function burnt() external view returns (uint256);
    /// @notice Of what is burnt, what was paid for lots.
    function paid() external view returns (uint256);
    function config() external view returns (Config memory);
}
