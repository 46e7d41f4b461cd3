import { type Address, parseAbiItem } from 'viem';
import { type ChainClient, chainError } from '../chain/index.ts';
import type { MillraceError } from '../errors.ts';
import type { DisputeEvidence, EvidencePiece, JuryDispute } from './judge.ts';

/** ERC-1497, names and types as the standard has them. */
const DISPUTE = parseAbiItem(
  'event Dispute(address indexed _arbitrator, uint256 indexed _disputeID, uint256 _metaEvidenceID, uint256 _evidenceGroupID)',
);
const EVIDENCE = parseAbiItem(
  'event Evidence(address indexed _arbitrator, uint256 indexed _evidenceGroupID, address indexed _party, string _evidence)',
);

/** A range that one question of a node covers: of a flood that fills whole blocks, no more is held than these. */
const RANGE_BLOCKS = 1_000n;
/** Anybody may add evidence: of each side what comes first is kept, so that nobody drowns another's in more. */
const SIDE_PIECES_MAX = 64;
const SIDE_CHARACTERS_MAX = 1 << 18;

/** Those whose words count as one side of a dispute; undefined: all. */
type Speakers = readonly Address[] | undefined;

/**
 * What was said about a dispute, as its arbitrable's events tell (ERC-1497): all that came since the dispute was opened. Each named account, each
 * operator that is a party (by any of its keys) and everybody else has a share of its own, and they take turns in the list: whoever looks at the first
 * pieces hears every side, however much one of them says. An arbitrable that makes no such events gives none; its judge reads the contract.
 * @throws chain-unreachable, chain-refused
 */
export async function readEvidence(
  client: ChainClient,
  { disputeId, arbitrable, parties, accounts }: Pick<JuryDispute, 'disputeId' | 'arbitrable' | 'parties' | 'accounts'>,
): Promise<DisputeEvidence> {
  const none: DisputeEvidence = { metaEvidenceId: undefined, groupId: undefined, pieces: [], isCut: false };
  const [created] = await client.events({ name: 'jury', event: 'DisputeCreation', args: { _disputeID: disputeId } });
  if (created === undefined) return none;
  const jury = client.address('jury');
  const at = { address: arbitrable, fromBlock: created.blockNumber, toBlock: created.blockNumber };
  const [opened] = await told(
    client.public.getLogs({ ...at, event: DISPUTE, args: { _arbitrator: jury, _disputeID: disputeId }, strict: true }),
  );
  if (opened === undefined) return none;
  const { _metaEvidenceID: metaEvidenceId, _evidenceGroupID: groupId } = opened.args;
  const sides: Speakers[] = [
    ...accounts.map((account) => [account]),
    ...(await Promise.all(parties.map((id) => keysOf(client, id)))),
    undefined,
  ];
  const named = new Set(sides.flatMap((side) => side ?? []).map((address) => address.toLowerCase()));
  const said: SaidBySide[] = [];
  for (const speakers of sides) {
    said.push(await saidBy(client, { arbitrable, groupId, fromBlock: created.blockNumber, speakers, others: named }));
  }
  return { metaEvidenceId, groupId, pieces: inTurns(said.map(({ pieces }) => pieces)), isCut: said.some(({ isCut }) => isCut) };
}

/** Addresses that speak for an operator; none where an arbitrable has named one that there is not. */
async function keysOf(client: ChainClient, operatorId: bigint): Promise<Address[]> {
  try {
    const { owner, nodeKey, beneficiary } = await client.read('operators', 'operator', [operatorId]);
    return [...new Set([owner, nodeKey, beneficiary])];
  } catch (error) {
    if ((error as MillraceError).code === 'unknown-operator') return [];
    throw error;
  }
}

/** The first of each, then the second of each, and so on. */
function inTurns<Item>(lists: readonly (readonly Item[])[]): Item[] {
  const longest = Math.max(...lists.map(({ length }) => length));
  return Array.from({ length: longest }, (_, turn) => lists.flatMap((list) => list.slice(turn, turn + 1))).flat();
}

interface SaidBySide {
  pieces: EvidencePiece[];
  isCut: boolean;
}

/** The first pieces of one side. What a node refuses to list, because there is too much of it, is cut off: it keeps no other side from being heard. */
async function saidBy(
  client: ChainClient,
  of: { arbitrable: Address; groupId: bigint; fromBlock: bigint; speakers: Speakers; others: ReadonlySet<string> },
): Promise<SaidBySide> {
  const { arbitrable, groupId, fromBlock, speakers, others } = of;
  const head = await client.public.getBlockNumber({ cacheTime: 0 });
  const about = { _arbitrator: client.address('jury'), _evidenceGroupID: groupId };
  const args = speakers === undefined ? about : { ...about, _party: [...speakers] };
  const pieces: EvidencePiece[] = [];
  let characters = 0;
  for (let from = fromBlock; from <= head; from += RANGE_BLOCKS) {
    const toBlock = from + RANGE_BLOCKS - 1n < head ? from + RANGE_BLOCKS - 1n : head;
    const range = { address: arbitrable, fromBlock: from, toBlock, event: EVIDENCE, strict: true } as const;
    const logs = await told(client.public.getLogs({ ...range, args })).catch((error: MillraceError) => {
      if (error.code === 'chain-refused') return undefined;
      throw error;
    });
    if (logs === undefined) return { pieces, isCut: true };
    for (const { args: said, blockNumber, transactionHash } of logs) {
      if (speakers === undefined && others.has(said._party.toLowerCase())) continue;
      characters += said._evidence.length;
      if (pieces.length === SIDE_PIECES_MAX || characters > SIDE_CHARACTERS_MAX) return { pieces, isCut: true };
      pieces.push({ party: said._party, text: said._evidence, blockNumber, transaction: transactionHash });
    }
  }
  return { pieces, isCut: false };
}

/** @throws chain-unreachable, chain-refused */
async function told<Logs>(ask: Promise<Logs>): Promise<Logs> {
  try {
    return await ask;
  } catch (error) {
    throw chainError(error, 'Reading the evidence of a dispute');
  }
}
