import { type Address, parseAbiItem } from 'viem';
import { type ChainClient, chainError } from '../chain/index.ts';
import type { DisputeEvidence, EvidencePiece } from './judge.ts';

/** ERC-1497, names and types as the standard has them. */
const DISPUTE = parseAbiItem(
  'event Dispute(address indexed _arbitrator, uint256 indexed _disputeID, uint256 _metaEvidenceID, uint256 _evidenceGroupID)',
);
const EVIDENCE = parseAbiItem(
  'event Evidence(address indexed _arbitrator, uint256 indexed _evidenceGroupID, address indexed _party, string _evidence)',
);

const RANGE_BLOCKS = 10_000n;
/** Anybody may add evidence: what comes first is kept, so that nobody drowns it in more. */
const PIECES_MAX = 256;
const TEXT_CHARACTERS_MAX = 1 << 20;

/**
 * What was said about a dispute, as its arbitrable's events tell (ERC-1497): all that came since the dispute was opened. An arbitrable that makes no
 * such events gives none; its judge reads the contract.
 * @throws chain-unreachable, chain-refused
 */
export async function readEvidence(
  client: ChainClient,
  { disputeId, arbitrable }: { disputeId: bigint; arbitrable: Address },
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
  const said = await evidenceSince(client, { arbitrable, groupId, fromBlock: created.blockNumber });
  return { metaEvidenceId, groupId, ...said };
}

async function evidenceSince(
  client: ChainClient,
  { arbitrable, groupId, fromBlock }: { arbitrable: Address; groupId: bigint; fromBlock: bigint },
): Promise<{ pieces: EvidencePiece[]; isCut: boolean }> {
  const head = await client.public.getBlockNumber({ cacheTime: 0 });
  const args = { _arbitrator: client.address('jury'), _evidenceGroupID: groupId };
  const pieces: EvidencePiece[] = [];
  let characters = 0;
  for (let from = fromBlock; from <= head; from += RANGE_BLOCKS) {
    const toBlock = from + RANGE_BLOCKS - 1n < head ? from + RANGE_BLOCKS - 1n : head;
    const logs = await told(client.public.getLogs({ address: arbitrable, fromBlock: from, toBlock, event: EVIDENCE, args, strict: true }));
    for (const { args: said, blockNumber, transactionHash } of logs) {
      characters += said._evidence.length;
      if (pieces.length === PIECES_MAX || characters > TEXT_CHARACTERS_MAX) return { pieces, isCut: true };
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
