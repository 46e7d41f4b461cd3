import type { Address } from 'viem';
import type { ChainClient, Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';

/** An operator's standing at the jury. Money in base units; times chain time, seconds. */
export interface JurorStanding {
  seats: number;
  /** Drawn and not settled: each is backed by `penalty` of the locked stake. */
  openVotes: number;
  /** Stake locked here. */
  locked: bigint;
  /** What one seat locks, and what one vote can lose. */
  seatStake: bigint;
  penalty: bigint;
  /** Of the chain's own coin, for each coherent vote at least. */
  voteFee: bigint;
  /** When the stake behind seats that were left or lost is free; undefined when none was ever left. */
  unlocksAt: bigint | undefined;
  /** Of the locked stake, what backs neither a seat nor a vote. */
  freeable: bigint;
  beneficiary: Address;
  /** Waiting for the beneficiary at the jury: the chain's own coin, and tokens. */
  owedCoins: bigint;
  owedTokens: bigint;
  /** Operators with a seat, this one included. */
  jurors: bigint;
}

/** How an operator stands at the jury. @throws unknown-module, chain-unreachable */
export async function readJurorStanding(client: ChainClient, operatorId: bigint): Promise<JurorStanding> {
  const [juror, config, locked, beneficiary, jurors] = await Promise.all([
    client.read('jury', 'juror', [operatorId]),
    client.read('jury', 'config'),
    client.read('stakeVault', 'lockedOfModule', [operatorId, client.address('jury')]),
    client.read('operators', 'beneficiaryOf', [operatorId]),
    client.read('jury', 'jurorCount'),
  ]);
  const [owedCoins, owedTokens] = await client.read('jury', 'owed', [beneficiary]);
  const [behindSeats, behindVotes] = [BigInt(juror.seats) * config.seatStake, BigInt(juror.openVotes) * config.penalty];
  const kept = behindSeats > behindVotes ? behindSeats : behindVotes;
  return {
    seats: juror.seats,
    openVotes: juror.openVotes,
    locked,
    seatStake: config.seatStake,
    penalty: config.penalty,
    voteFee: config.voteFee,
    unlocksAt: juror.unlocksAt === 0 ? undefined : BigInt(juror.unlocksAt),
    freeable: locked > kept ? locked - kept : 0n,
    beneficiary,
    owedCoins,
    owedTokens,
    jurors,
  };
}

/** Who asks, with the operator's node key. */
export interface SeatRequest {
  sender: Sender;
  operatorId: bigint;
}

/**
 * Takes seats at the jury; each locks stake, which a wrong vote or silence can lose.
 * @throws bad-seat-count, insufficient-unlocked, lock-above-limit, no-operator
 */
export async function enrolJuror({ sender, operatorId }: SeatRequest, seats: number): Promise<void> {
  await sender.send({ contract: 'jury', functionName: 'enrol', args: [operatorId, seats] });
}

/** Gives seats up; votes that were drawn already must still be cast. Without a number all of them. @throws no-seats, bad-seat-count */
export async function leaveJury(client: ChainClient, { sender, operatorId }: SeatRequest, seats?: number): Promise<number> {
  const count = seats ?? (await client.read('jury', 'juror', [operatorId])).seats;
  if (count === 0) {
    throw new MillraceError('no-seats', {
      actor: 'caller',
      message: `Operator ${operatorId} holds no seat at the jury`,
      values: { operatorId },
      hint: 'Take one with `millrace juror enrol`.',
    });
  }
  await sender.send({ contract: 'jury', functionName: 'leave', args: [operatorId, count] });
  return count;
}

/** Frees what is locked behind no seat and no vote. @throws still-locked, nothing-to-unlock */
export async function unlockSeats({ sender, operatorId }: SeatRequest): Promise<void> {
  await sender.send({ contract: 'jury', functionName: 'unlock', args: [operatorId] });
}
