import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { bytesToHex, hexToString, trim, zeroHash } from 'viem';
import { type ChainClient, nodeKeyConsent, type Sender, type Signer } from '../chain/index.ts';
import { type Beacon, createSubnet, DEFAULT_SUBNET_RULES, declareBeacon, findUid, NOBODY, registerUid } from '../inference/index.ts';
import type { InferenceSettings } from './inference-settings.ts';
import { fundFromFaucet } from './provision.ts';

/** What each of the three subnets' miners serve, in the order in which nodes take them. */
export const MODALITIES = [
  { kind: 'text', models: ['moby-dick-1m', 'use-lite-en'] },
  { kind: 'image', models: ['ssdlite-coco', 'ppocr-v4'] },
  { kind: 'voice', models: ['flite', 'silero-vad-v5', 'commands-en'] },
] as const;

/** Photographs that come with the sources; validators vary them until users allow theirs. */
const PHOTOGRAPHS = join(import.meta.dirname, '../../test/media');
const TEMPO_SECONDS = 300;
const ONE_TOKEN = 10n ** 18n;
/** Locks of three subnets, and what uids cost while all nodes of a machine come at once. */
const FOUNDER_TOKENS = 2_000n * ONE_TOKEN;
const OWNER_TOKENS = 100n * ONE_TOKEN;
/** What validators pay for probes. */
const PROBE_TOKENS = 50n * ONE_TOKEN;

/** Keys that a development network's inference is made with. */
export interface InferenceKeys {
  faucet: Sender;
  /** Owns the subnets. */
  founder: Sender;
  /** Owner and node key of the operator whose rewards are nobody's. */
  sinkOwner: Sender;
  sinkNodeKey: Signer;
  /** Of the nodes, in their order. */
  operators: readonly { owner: Sender; nodeKey: Signer; operatorId: bigint }[];
  /** To which the subnets' commits are sealed. */
  beacon: Beacon;
}

/**
 * Makes one subnet for each modality on a development network, with a uid for every node and for the sink that takes what no miner earned. Each
 * step looks first, so that the same is there after the first and after every later start.
 */
export async function prepareInference(client: ChainClient, keys: InferenceKeys): Promise<void> {
  const { faucet, founder, operators } = keys;
  const known = await ownSubnets(client, founder);
  if (known.size < MODALITIES.length) await fundFromFaucet(client, faucet, founder.address, { tokens: FOUNDER_TOKENS, wei: ONE_TOKEN });
  const subnetIds: bigint[] = [];
  for (const { kind } of MODALITIES) {
    const subnetId =
      known.get(kind) ?? (await createSubnet(client, { sender: founder, kind, tempoSeconds: TEMPO_SECONDS, rules: DEFAULT_SUBNET_RULES }));
    subnetIds.push(subnetId);
    await declareOnce(client, { founder, subnetId, beacon: keys.beacon });
  }
  const sinkId = await openSink(client, keys);
  const seats = [{ owner: keys.sinkOwner, operatorId: sinkId }, ...operators];
  for (const { owner, operatorId } of seats) {
    for (const subnetId of subnetIds) {
      if ((await findUid(client, { subnetId, operatorId })) !== undefined) continue;
      await fundFromFaucet(client, faucet, owner.address, { tokens: OWNER_TOKENS, wei: ONE_TOKEN });
      await registerUid(client, { sender: owner, subnetId, operatorId });
    }
  }
  for (const { nodeKey } of operators) await fundFromFaucet(client, faucet, nodeKey.address, { tokens: PROBE_TOKENS, wei: ONE_TOKEN });
}

/** What a node of a development network serves: one modality each where there are three or more, all of them where there are fewer. */
export function nodeModels(index: number, nodes: number): InferenceSettings {
  const own = nodes < MODALITIES.length ? MODALITIES : [MODALITIES[(index - 1) % MODALITIES.length] as (typeof MODALITIES)[number]];
  return {
    inferenceModels: own.flatMap(({ models }) => models).join(','),
    ...(existsSync(PHOTOGRAPHS) ? { validatorImages: PHOTOGRAPHS } : {}),
  };
}

async function ownSubnets(client: ChainClient, founder: Sender): Promise<Map<string, bigint>> {
  const found = new Map<string, bigint>();
  const count = await client.read('subnets', 'subnetCount');
  for (let subnetId = 1n; subnetId <= count; subnetId += 1n) {
    const { creator, dissolved, kind } = await client.read('subnets', 'subnet', [subnetId]);
    if (creator === founder.address && !dissolved) found.set(hexToString(trim(kind, { dir: 'right' })), subnetId);
  }
  return found;
}

/** Declares the network's own beacon where none is declared, or one of its own whose key is gone; any other that the owner declared stays. */
async function declareOnce(
  client: ChainClient,
  { founder, subnetId, beacon }: { founder: Sender; subnetId: bigint; beacon: Beacon },
): Promise<void> {
  const { publicKey, label } = await client.read('weightsBoard', 'beaconOf', [subnetId]);
  if (publicKey !== '0x' && (label !== beacon.label || publicKey === bytesToHex(beacon.publicKey))) return;
  await declareBeacon({ sender: founder, subnetId, beacon });
}

async function openSink(client: ChainClient, { faucet, sinkOwner, sinkNodeKey }: InferenceKeys): Promise<bigint> {
  const known = await client.read('operators', 'operatorOfNodeKey', [sinkNodeKey.address]);
  if (known !== 0n) return known;
  await fundFromFaucet(client, faucet, sinkOwner.address, { tokens: 0n, wei: ONE_TOKEN });
  const consent = await nodeKeyConsent(client, sinkNodeKey, sinkOwner.address);
  const args = [sinkNodeKey.address, NOBODY, zeroHash, '', zeroHash, consent] as const;
  await sinkOwner.send({ contract: 'operators', functionName: 'register', args });
  return client.read('operators', 'operatorOfNodeKey', [sinkNodeKey.address]);
}
