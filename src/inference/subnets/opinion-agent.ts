import { randomBytes } from 'node:crypto';
import { bytesToHex, type Hex, hexToBytes } from 'viem';
import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import { type Logger, silentLogger } from '../../log.ts';
import { eventArgs } from '../../token/index.ts';
import { type PulseSource, roundAt } from './beacon.ts';
import { openOpinionJournal } from './opinion-journal.ts';
import { openSealed, sealedRound, sealUntil } from './time-lock.ts';
import { commitmentOf, encodeRow, type Opening, packOpening, unpackOpening, weighScores } from './weights-row.ts';

/** Who a validator is, and where it keeps what it must not lose. */
export interface OpinionAgentOptions {
  client: ChainClient;
  /** Of the operator's node key. */
  sender: Sender;
  subnetId: bigint;
  uid: number;
  /** Salts of commits. */
  folder: string;
  /** Opens what others sealed; without it the agent opens its own commits only. */
  pulses?: PulseSource;
  log?: Logger;
}

/** What one round of an agent's work did. */
export interface OpinionWork {
  opened: { epoch: bigint; uids: number[] }[];
  expired: { epoch: bigint; uids: number[] }[];
}

/** A validator's hand on the weights board. */
export interface OpinionAgent {
  /**
   * Commits to scores for the present epoch; a later commit in the same epoch takes the place of an earlier one. The salt is durable before
   * the transaction is sent.
   * @throws nothing-to-say when no score is above 0, epoch-ends-first, no-permit, not-holder, and the sender's errors
   */
  commit(scores: ReadonlyMap<number, number>): Promise<{ epoch: bigint; commitment: Hex; row: Hex }>;
  /** Opens what may be opened (its own at once, others' a little later) and says what expired. Safe to repeat and to interrupt. */
  tend(): Promise<OpinionWork>;
  /** Tends at every block until the signal ends it; what fails is logged and tried again. */
  run(signal: AbortSignal): Promise<void>;
}

const RETAINED_EPOCHS = 16n;
/** No delay and extension together are longer. */
const OPEN_EPOCHS_MAX = 7n;
const BATCH = 16;
const ATTEMPTS = 3;
const COMMITTED = 1;
const GARBAGE_MAX = 1024;

/** The agent of one uid. */
export function createOpinionAgent(options: OpinionAgentOptions): OpinionAgent {
  const { log = silentLogger } = options;
  const board = createBoard(options);
  return {
    commit: board.commit,
    tend: () => tend(options, board),
    async run(signal) {
      await options.client.watchBlocks(async () => {
        try {
          await tend(options, board);
        } catch (error) {
          const { code, message } = toMillraceError(error);
          log.warn('opinions-not-tended', { subnetId: options.subnetId, uid: options.uid, code, message });
        }
      }, signal);
    },
  };
}

interface Board {
  commit: OpinionAgent['commit'];
  /** What opens a uid's commit, as far as this agent can know. */
  openingOf(epoch: bigint, uid: number, commitment: Hex): Promise<Opening | undefined>;
  forgetBefore(epoch: bigint): void;
}

function createBoard({ client, sender, subnetId, uid, folder, pulses }: OpinionAgentOptions): Board {
  const journal = openOpinionJournal(folder);
  /** Commits that their pulse did not open: looked at once, or garbage would cost every round a few pairings. */
  const garbage = new Set<Hex>();
  const place = (epoch: bigint, of: number) => ({
    chainId: client.chainId,
    board: client.address('weightsBoard'),
    subnetId,
    epoch,
    uid: of,
  });

  async function sealed(epoch: bigint, opening: Opening): Promise<Hex> {
    const beacon = await client.read('weightsBoard', 'beaconOf', [subnetId]);
    if (beacon.publicKey === '0x') return '0x';
    const [, opensAt] = await client.read('subnets', 'timesOf', [subnetId, epoch]);
    const publicKey = hexToBytes(beacon.publicKey);
    return bytesToHex(sealUntil({ publicKey, round: roundAt(beacon, opensAt), payload: packOpening(opening) }));
  }

  return {
    async commit(scores) {
      const row = encodeRow(weighScores(scores));
      if (row === '0x') {
        throw new MillraceError('nothing-to-say', {
          actor: 'caller',
          message: 'No score is above 0: there is no row to commit to',
          values: { scores: scores.size },
          hint: 'Who commits to nothing is not active in the epoch.',
        });
      }
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        const epoch = await client.read('subnets', 'epochAt', [subnetId, await client.now()]);
        const opening = { salt: bytesToHex(randomBytes(32)), row };
        const commitment = commitmentOf(place(epoch, uid), opening);
        const ciphertext = await sealed(epoch, opening);
        journal.add(epoch, { ...opening, commitment });
        const args = [subnetId, uid, commitment, ciphertext] as const;
        const receipt = await sender.send({ contract: 'weightsBoard', functionName: 'commit', args, key: `opinion/${commitment}` });
        if (eventArgs(receipt, 'weightsBoard', 'Committed').epoch === epoch) return { epoch, commitment, row };
        // The epoch ended before the transaction was in a block: that commit opens nowhere, and the next one takes its place.
      }
      throw new MillraceError('epoch-ends-first', {
        actor: 'chain',
        message: `Each of ${ATTEMPTS} commits came into a later epoch than it was made for`,
        values: { subnetId, uid },
        hint: "The subnet's epochs are shorter than the chain's blocks take.",
      });
    },
    async openingOf(epoch, of, commitment) {
      const own = of === uid ? journal.find(epoch, commitment) : undefined;
      if (own !== undefined || pulses === undefined || garbage.has(commitment)) return own;
      const events = await client.events({ name: 'weightsBoard', event: 'Committed', args: { subnetId, epoch, uid: of } });
      const ciphertext = events.find(({ args }) => args.commitment === commitment)?.args.ciphertext;
      if (ciphertext === undefined) return undefined;
      const opening = await unseal(pulses, hexToBytes(ciphertext));
      if (opening === undefined) return undefined;
      if (opening !== 'garbage' && commitmentOf(place(epoch, of), opening) === commitment) return opening;
      if (garbage.size >= GARBAGE_MAX) garbage.clear();
      garbage.add(commitment);
      return undefined;
    },
    forgetBefore: journal.forgetBefore,
  };
}

/** What was sealed; undefined while its pulse is not out. */
async function unseal(pulses: PulseSource, ciphertext: Uint8Array): Promise<Opening | 'garbage' | undefined> {
  try {
    const signature = await pulses.pulse(sealedRound(ciphertext));
    return signature === undefined ? undefined : (unpackOpening(openSealed(ciphertext, signature)) ?? 'garbage');
  } catch (error) {
    if (toMillraceError(error).code === 'broken-seal') return 'garbage';
    throw error;
  }
}

async function tend(options: OpinionAgentOptions, board: Board): Promise<OpinionWork> {
  const { client, subnetId } = options;
  const now = await client.now();
  const present = await client.read('subnets', 'epochAt', [subnetId, now]);
  const work: OpinionWork = { opened: [], expired: [] };
  for (let epoch = present > OPEN_EPOCHS_MAX ? present - OPEN_EPOCHS_MAX : 0n; epoch < present; epoch += 1n) {
    const [opensAt, closesAt] = await client.read('weightsBoard', 'windowOf', [subnetId, epoch]);
    if (now < opensAt) continue;
    const shut = await shutCommits(options, epoch);
    if (shut.length === 0) continue;
    if (now >= closesAt) {
      await options.sender.send({ contract: 'weightsBoard', functionName: 'expire', args: [subnetId, epoch, shut.map(({ uid }) => uid)] });
      work.expired.push({ epoch, uids: shut.map(({ uid }) => uid) });
      continue;
    }
    const mayOpenOthers = now - opensAt >= patienceOf(options.uid, closesAt - opensAt);
    const uids = await openCommits(options, board, { epoch, shut: shut.filter(({ uid }) => uid === options.uid || mayOpenOthers) });
    if (uids.length > 0) work.opened.push({ epoch, uids });
  }
  board.forgetBefore(present > RETAINED_EPOCHS ? present - RETAINED_EPOCHS : 0n);
  return work;
}

/** Validators open others' commits one after another, so that they do not all pay for the same: from 1/8 to 1/2 of the window on. */
function patienceOf(uid: number, windowSeconds: bigint): bigint {
  return (windowSeconds * BigInt(1 + (uid % 4))) / 8n;
}

async function shutCommits({ client, subnetId }: OpinionAgentOptions, epoch: bigint): Promise<{ uid: number; hash: Hex }[]> {
  const [committed] = await client.read('weightsBoard', 'tallyOf', [subnetId, epoch]);
  if (committed === 0n) return [];
  const events = await client.events({ name: 'weightsBoard', event: 'Committed', args: { subnetId, epoch } });
  const uids = [...new Set(events.map(({ args }) => args.uid))];
  const entries = await Promise.all(uids.map((uid) => client.read('weightsBoard', 'entryOf', [subnetId, epoch, uid])));
  return uids.flatMap((uid, at) => (entries[at]?.state === COMMITTED ? [{ uid, hash: entries[at].hash }] : []));
}

async function openCommits(
  { sender, subnetId }: OpinionAgentOptions,
  board: Board,
  { epoch, shut }: { epoch: bigint; shut: { uid: number; hash: Hex }[] },
): Promise<number[]> {
  const openings: { uid: number; salt: Hex; row: Hex }[] = [];
  for (const { uid, hash } of shut) {
    const opening = await board.openingOf(epoch, uid, hash);
    if (opening !== undefined) openings.push({ uid, salt: opening.salt, row: opening.row });
  }
  const opened: number[] = [];
  for (let at = 0; at < openings.length; at += BATCH) {
    const batch = openings.slice(at, at + BATCH);
    const receipt = await sender.send({ contract: 'weightsBoard', functionName: 'revealMany', args: [subnetId, epoch, batch] });
    const done = receipt.events.flatMap((event) => (event.module === 'weightsBoard' && event.name === 'Revealed' ? [event.args.uid] : []));
    opened.push(...done);
  }
  return opened;
}
