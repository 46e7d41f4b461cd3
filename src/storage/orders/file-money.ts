import type { ChainClient, Sender } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { depositToRails } from '../../token/index.ts';
import { callFile, type StoredFile } from './stored-files.ts';

/** Something that the owner of a file may do with it. Money in base units. */
export type FileAction =
  | { do: 'withdraw'; amount: bigint | 'all' }
  | { do: 'reserve' | 'challenges'; amount: bigint }
  | { do: 'challenge' | 'end'; shard: number }
  | { do: 'cancel' };

/**
 * Takes out what is free, adds to the reserve for repairs or to the budget for challenges (from the wallet), challenges or gives
 * up a shard, or cancels a bid that no batch has filled yet; a cancelled bid's money is free after the running batch.
 * @throws not-file-owner, nothing-free, bid-already-filled, and what the file's account refuses
 */
export async function actOnFile(options: { client: ChainClient; sender: Sender; file: StoredFile; action: FileAction }): Promise<void> {
  const { client, sender, file, action } = options;
  if (file.client.toLowerCase() !== sender.address.toLowerCase()) {
    throw new MillraceError('not-file-owner', {
      actor: 'caller',
      message: `File ${file.file} is of ${file.client}, this wallet is ${sender.address}`,
      values: { file: file.file, owner: file.client, got: sender.address },
      hint: 'Use the wallet that stored the file.',
    });
  }
  const account = file.file;
  switch (action.do) {
    case 'withdraw': {
      const amount = action.amount === 'all' ? file.free : action.amount;
      if (amount === 0n) throw nothingFree(file);
      await callFile(sender, { file: account, functionName: 'withdraw', args: [amount, sender.address] });
      return;
    }
    case 'reserve':
    case 'challenges': {
      await depositToRails(client, { sender, token: 'network', amount: action.amount, account });
      const [reserve, challenges] = action.do === 'reserve' ? [action.amount, 0n] : [0n, action.amount];
      await callFile(sender, { file: account, functionName: 'allot', args: [reserve, challenges] });
      return;
    }
    case 'challenge':
      await callFile(sender, { file: account, functionName: 'challenge', args: [action.shard] });
      return;
    case 'end':
      await callFile(sender, { file: account, functionName: 'endEarly', args: [action.shard] });
      return;
    case 'cancel':
      await sender.send({ contract: 'orderBook', functionName: 'cancelBid', args: [file.bidId] });
  }
}

function nothingFree(file: StoredFile): MillraceError {
  return new MillraceError('nothing-free', {
    actor: 'caller',
    message: `File ${file.file} has nothing that is not reserved`,
    values: { file: file.file, reserve: file.reserve, challengeBudget: file.challengeBudget },
    hint: 'What runs is reserved until the file ends; see `millrace file`.',
  });
}
