import type { Address, Hex } from 'viem';

/** A question that an arbitrable has asked the jury, as a judge sees it. Times are chain time, seconds. */
export interface JuryDispute {
  disputeId: bigint;
  /** 0 at first; one more after each appeal. */
  round: number;
  /** The contract that asks, and takes the ruling. */
  arbitrable: Address;
  /** Rulings are 1 to `choices`, and 0: refused. */
  choices: bigint;
  /** Of the present round. */
  openedAt: bigint;
  /** After this a vote can no longer be committed. */
  commitUntil: bigint;
  /** Operators that are parties, and other accounts that are. */
  parties: readonly bigint[];
  accounts: readonly Address[];
}

/** One statement of a party, as it stands in an event of ERC-1497. */
export interface EvidencePiece {
  party: Address;
  text: string;
  blockNumber: bigint;
  transaction: Hex;
}

/** What was said about a dispute on chain, each side's pieces in chain order, the sides by turns. Anybody may say anything: a judge believes only what it has checked. */
export interface DisputeEvidence {
  /** Number of the arbitrable's question (`MetaEvidence`) and of the group of evidence; undefined where it speaks no ERC-1497. */
  metaEvidenceId: bigint | undefined;
  groupId: bigint | undefined;
  pieces: readonly EvidencePiece[];
  /** There was more than is given here. */
  isCut: boolean;
}

/** What answers the questions of one arbitrable. */
export interface Judge {
  arbitrable: Address;
  /**
   * The ruling, found by looking at the matter itself. Undefined while it cannot be told: then it is asked again later, and in the end the juror
   * does not vote. Called again after a restart only where no vote was decided yet.
   * @param signal fires when the time to commit is over
   */
  judge(dispute: JuryDispute, evidence: DisputeEvidence, signal: AbortSignal): Promise<bigint | undefined>;
}
