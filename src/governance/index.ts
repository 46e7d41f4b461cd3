/** Disputes of all networks before one jury: the juror's agent, its seats, and what judges are given. */

export { readEvidence } from './evidence.ts';
export { type EvidencePlace, evidencePlaceText, inlineEvidence, openEvidence } from './evidence-document.ts';
export type { DisputeEvidence, EvidencePiece, Judge, JuryDispute } from './judge.ts';
export { type Juror, type JurorOptions, type JurorRecord, openJuror } from './juror.ts';
export { type JurorVote, type JuryCase, type JuryPhase, readJurorVote, readJuryCase } from './jury-round.ts';
export { enrolJuror, type JurorStanding, leaveJury, readJurorStanding, type SeatRequest, unlockSeats } from './seats.ts';
