// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.26;

/// @title ERC-792: whoever asks for rulings.
/// @notice Names and types are the standard's, so that arbitrables written for other courts work with this one and the other way round.
interface IArbitrable {
    event Ruling(IArbitrator indexed _arbitrator, uint256 indexed _disputeID, uint256 _ruling);

    /// @notice Called by the arbitrator, once. 0: it refused to arbitrate.
    function rule(uint256 _disputeID, uint256 _ruling) external;
}

/// @title ERC-792: whoever gives rulings.
interface IArbitrator {
    enum DisputeStatus {
        Waiting,
        Appealable,
        Solved
    }

    event DisputeCreation(uint256 indexed _disputeID, IArbitrable indexed _arbitrable);
    event AppealPossible(uint256 indexed _disputeID, IArbitrable indexed _arbitrable);
    event AppealDecision(uint256 indexed _disputeID, IArbitrable indexed _arbitrable);

    /// @notice Called by the arbitrable with at least `arbitrationCost(_extraData)` of the chain's own coin.
    /// @param _choices rulings are 1 to `_choices`, and 0
    function createDispute(uint256 _choices, bytes calldata _extraData) external payable returns (uint256 disputeID);
    function arbitrationCost(bytes calldata _extraData) external view returns (uint256 cost);
    function appeal(uint256 _disputeID, bytes calldata _extraData) external payable;
    function appealCost(uint256 _disputeID, bytes calldata _extraData) external view returns (uint256 cost);
    /// @return start 0 when no appeal is possible now
    function appealPeriod(uint256 _disputeID) external view returns (uint256 start, uint256 end);
    function disputeStatus(uint256 _disputeID) external view returns (DisputeStatus status);
    /// @notice What would be the ruling as things stand.
    function currentRuling(uint256 _disputeID) external view returns (uint256 ruling);
}

/// @title ERC-1497: how arbitrables say what a dispute is about.
interface IEvidence {
    event MetaEvidence(uint256 indexed _metaEvidenceID, string _evidence);
    event Evidence(IArbitrator indexed _arbitrator, uint256 indexed _evidenceGroupID, address indexed _party, string _evidence);
    event Dispute(IArbitrator indexed _arbitrator, uint256 indexed _disputeID, uint256 _metaEvidenceID, uint256 _evidenceGroupID);
}
