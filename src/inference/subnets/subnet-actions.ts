import { bytesToHex, type Hex, toHex } from 'viem';
import type { ChainClient, Receipt } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import { allowTokens, eventArgs, type Sending } from '../../token/index.ts';
import type { Beacon } from './beacon.ts';
import { type SubnetRules, toChainRules } from './subnet-rules.ts';

/**
 * Creates a subnet of the sender's for the lock that the chain asks at the moment, at most `lockMax` (base units of the network's token;
 * default: what it asks when this is called). Approves the lock first when needed.
 * @throws lock-above-limit, network-full, out-of-range, immunity-too-short, and the sender's errors
 */
export async function createSubnet(
  client: ChainClient,
  options: Sending & { kind: string; tempoSeconds: number; rules: SubnetRules; lockMax?: bigint },
): Promise<bigint> {
  const { sender, key, kind, tempoSeconds, rules } = options;
  const lock = options.lockMax ?? (await client.read('subnets', 'lockCost'));
  await allowTokens(client, { sender, key, token: 'network', spender: client.address('subnets'), amount: lock });
  const receipt = await sender.send({
    contract: 'subnets',
    functionName: 'create',
    args: [kindWord(kind), tempoSeconds, toChainRules(rules), lock],
    key,
  });
  return eventArgs(receipt, 'subnets', 'SubnetCreated').subnetId;
}

/**
 * Takes a uid in a subnet for an operator whose owner the sender is, and burns the price, at most `priceMax` (default: the present one).
 * A subnet that is full prunes its worst uid.
 * @throws price-above-limit, already-registered, not-operator-owner, subnet-is-dissolved, and the sender's errors
 */
export async function registerUid(
  client: ChainClient,
  options: Sending & { subnetId: bigint; operatorId: bigint; priceMax?: bigint },
): Promise<number> {
  const { sender, key, subnetId, operatorId } = options;
  const price = options.priceMax ?? (await client.read('subnets', 'registrationPrice', [subnetId]));
  await allowTokens(client, { sender, key, token: 'network', spender: client.address('subnets'), amount: price });
  await sender.send({ contract: 'subnets', functionName: 'register', args: [subnetId, operatorId, price], key });
  return client.read('subnets', 'uidOf', [subnetId, operatorId]);
}

/**
 * Burns the sender's tokens for a subnet: its share of the emission is measured by what was burnt for it.
 * @throws zero-amount, subnet-is-dissolved, and the sender's errors
 */
export async function burnForSubnet(client: ChainClient, options: Sending & { subnetId: bigint; amount: bigint }): Promise<Receipt> {
  const { sender, key, subnetId, amount } = options;
  await allowTokens(client, { sender, key, token: 'network', spender: client.address('subnets'), amount });
  return sender.send({ contract: 'subnets', functionName: 'burnFor', args: [subnetId, amount], key });
}

/** The owner changes a subnet's rules, from the next epoch on. @throws changed-too-recently, out-of-range, immunity-too-short, not-subnet-owner */
export async function changeRules(options: Sending & { subnetId: bigint; rules: SubnetRules }): Promise<Receipt> {
  const { sender, key, subnetId, rules } = options;
  return sender.send({ contract: 'subnets', functionName: 'setHyperparameters', args: [subnetId, toChainRules(rules)], key });
}

/** The owner says to which beacon's rounds commits are sealed. @throws bad-beacon, not-subnet-owner */
export async function declareBeacon(options: Sending & { subnetId: bigint; beacon: Beacon }): Promise<Receipt> {
  const { sender, key, subnetId, beacon } = options;
  const declared = { ...beacon, publicKey: bytesToHex(beacon.publicKey) };
  return sender.send({ contract: 'weightsBoard', functionName: 'declareBeacon', args: [subnetId, declared], key });
}

/** Takes a free permit for a uid with enough stake. @throws no-seat-free, stake-too-small, already-permitted, barred-until */
export async function claimPermit(options: Sending & { subnetId: bigint; uid: number }): Promise<Receipt> {
  const { sender, key, subnetId, uid } = options;
  return sender.send({ contract: 'subnets', functionName: 'claimPermit', args: [subnetId, uid], key });
}

/** Fixes the metagraphs of all epochs of a subnet that are over and not closed, at most `most`. @returns how many */
export async function closeEpochs(client: ChainClient, options: Sending & { subnetId: bigint; most?: number }): Promise<number> {
  const { sender, subnetId, most = 4 } = options;
  let closed = 0;
  for (; closed < most; closed += 1) {
    const epoch = await client.read('subnets', 'nextToClose', [subnetId]);
    if ((await client.read('subnets', 'epochStart', [subnetId, epoch + 1n])) > (await client.now())) break;
    try {
      await sender.send({ contract: 'subnets', functionName: 'closeEpoch', args: [subnetId, epoch] });
    } catch (error) {
      // Somebody else was first.
      if (!(error instanceof MillraceError) || error.code !== 'epoch-not-next') throw error;
    }
  }
  return closed;
}

/** A label of at most 32 bytes as the contracts hold it. @throws bad-label */
export function kindWord(kind: string): Hex {
  const bytes = Buffer.byteLength(kind);
  if (bytes > 0 && bytes <= 32) return toHex(kind, { size: 32 });
  throw new MillraceError('bad-label', {
    actor: 'caller',
    message: `Got a kind of ${bytes} bytes, expected 1 to 32`,
    values: { bytes },
  });
}

/**
 * Sees to it that a uid may judge: claims a free permit when it has none. To be called once in each epoch: a settlement takes permits from
 * those whose stake was not there yet.
 * @returns whether the uid has a permit now; false while no seat is free, the stake is too small, or the uid is barred
 */
export async function ensurePermit(client: ChainClient, options: Sending & { subnetId: bigint; uid: number }): Promise<boolean> {
  const { subnetId, uid } = options;
  const hasPermit = async () => {
    const epoch = await client.read('subnets', 'epochAt', [subnetId, await client.now()]);
    return (((await client.read('subnets', 'permitsAt', [subnetId, epoch])) >> BigInt(uid)) & 1n) === 1n;
  };
  if (await hasPermit()) return true;
  try {
    await claimPermit(options);
  } catch (error) {
    const code = error instanceof MillraceError ? error.code : '';
    if (['no-seat-free', 'stake-too-small', 'barred-until', 'already-permitted'].includes(code)) return hasPermit();
    throw error;
  }
  return true;
}
