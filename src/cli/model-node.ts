import { existsSync } from 'node:fs';
import { type ChainClient, keystoreAddress, type Sender } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import { findUid, hasReceiptCourt, readSubnet, registerUid, type Subnet } from '../inference/index.ts';
import { endpointUrl, fundFromFaucet } from '../node/index.ts';
import { formatAmount, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { initOwnOperator, ownNode } from './operator.ts';
import { openSender } from './sending.ts';
import { stakeUnitOf } from './session.ts';

/** A node of the inference network that a person runs: each kind has a folder, a node key and an operator of its own. */
export type ModelNodeKind = 'miner' | 'validator';

/** Options of `millrace miner init` and `millrace validator init`. Money in tokens. */
export interface ModelNodeInitOptions {
  subnet?: string[];
  priceMax?: string;
  endpoint?: string;
  beneficiary?: string;
  region?: string;
  stake: string;
  gas: string;
  tokens: string;
}

/** A uid that `init` looked for or took. */
interface Place {
  subnetId: bigint;
  kind: string;
  uid: number;
  /** What was burnt for it now; 0 when it was held before. */
  paid: bigint;
}

/** Of a validator's stake, what its node key may promise; a miner's key may promise its bond and no more. */
const VALIDATOR_LIMIT_PART = 4n;

/**
 * Makes a node key and a TLS key, registers the wallet as owner of a new operator, stakes, gives the node key gas, and takes uids in the chosen
 * subnets at their present price. Every step looks first: it can be repeated and interrupted.
 */
export async function modelNodeInit(context: CommandContext, kind: ModelNodeKind, options: ModelNodeInitOptions): Promise<void> {
  const endpoint = options.endpoint === undefined ? '' : endpointUrl(options.endpoint);
  const beneficiary = options.beneficiary === undefined ? undefined : parseAddress('--beneficiary', options.beneficiary);
  const [stake, gas, tokens] = [options.stake, options.gas, options.tokens].map((text) => parseAmount(text, TOKEN_DECIMALS)) as [
    bigint,
    bigint,
    bigint,
  ];
  const priceMax = options.priceMax === undefined ? undefined : parseAmount(options.priceMax, TOKEN_DECIMALS);
  const subnetIds = [...new Set((options.subnet ?? []).map(subnetNumber))];
  const opened = await openSender(context);
  const { client, sender, signer, manifest } = opened;
  const unit = stakeUnitOf(manifest);
  try {
    const subnets = await Promise.all(subnetIds.map((subnetId) => readSubnet(client, subnetId)));
    const own = ownNode(opened.folder, kind);
    const known = existsSync(own.keystore) ? await client.read('operators', 'operatorOfNodeKey', [keystoreAddress(own.keystore)]) : 0n;
    for (const subnet of subnets) {
      const isHeld = known !== 0n && (await findUid(client, { subnetId: subnet.subnetId, operatorId: known })) !== undefined;
      if (!isHeld) checkPrice(context, subnet, { priceMax, unit });
    }
    const bond = await bondNeeded(client, kind);
    if (stake < bond) throw stakeBelowBond(stake, bond);
    const limit = kind === 'miner' && bond > 0n ? bond : stake / VALIDATOR_LIMIT_PART;
    const wanted = { kind, endpoint, beneficiary, region: options.region, stake, limit };
    const { operatorId, nodeKey, transportKey } = await initOwnOperator(opened, wanted);
    await fundFromFaucet(client, sender, nodeKey.address, { tokens, wei: gas });
    const uids: Place[] = [];
    for (const subnet of subnets) uids.push(await takePlace(client, { sender, operatorId, subnet, priceMax }));
    const value = { operatorId, owner: signer.address, nodeKey: nodeKey.address, transportKey, endpoint, stake, bond, limit, uids, unit };
    context.output.result(value, () => initText(kind, value));
  } finally {
    sender.close();
  }
}

/** What a miner's operator must be able to lock behind its receipts, base units; 0 for others, and where there is no court. */
async function bondNeeded(client: ChainClient, kind: ModelNodeKind): Promise<bigint> {
  if (kind !== 'miner' || !hasReceiptCourt(client)) return 0n;
  return (await client.read('receiptCourt', 'config')).bond;
}

/** Says what the next uid costs; it is refused before anything is spent when that is more than is paid. */
function checkPrice(context: CommandContext, subnet: Subnet, { priceMax, unit }: { priceMax: bigint | undefined; unit: string }): void {
  const { registrationPrice: price, subnetId } = subnet;
  const most = priceMax === undefined ? '' : `, at most ${formatAmount(priceMax, TOKEN_DECIMALS)} is paid`;
  context.output.note(
    `Subnet ${subnetId} (${subnet.kind}): the next uid costs ${formatAmount(price, TOKEN_DECIMALS)} ${unit} now, burnt${most}.`,
  );
  if (subnet.isDissolved) {
    throw new MillraceError('subnet-is-dissolved', {
      actor: 'caller',
      message: `Subnet ${subnetId} was ended by its owner`,
      values: { subnetId },
      hint: '`millrace subnet list` shows those that live.',
    });
  }
  if (priceMax !== undefined && price > priceMax) {
    throw new MillraceError('price-above-limit', {
      actor: 'caller',
      message: `A uid of subnet ${subnetId} costs ${formatAmount(price, TOKEN_DECIMALS)} ${unit} now, more than ${formatAmount(priceMax, TOKEN_DECIMALS)}`,
      values: { subnetId, price, limit: priceMax },
      hint: 'The price falls by half in each half-life while nobody registers: wait, or pay more with --price-max.',
    });
  }
}

async function takePlace(
  client: ChainClient,
  { sender, operatorId, subnet, priceMax }: { sender: Sender; operatorId: bigint; subnet: Subnet; priceMax: bigint | undefined },
): Promise<Place> {
  const { subnetId, kind } = subnet;
  const held = await findUid(client, { subnetId, operatorId });
  if (held !== undefined) return { subnetId, kind, uid: held, paid: 0n };
  const before = await client.read('networkToken', 'balanceOf', [sender.address]);
  // Without a stated limit nobody pays more than was just shown.
  const uid = await registerUid(client, { sender, subnetId, operatorId, priceMax: priceMax ?? subnet.registrationPrice });
  return { subnetId, kind, uid, paid: before - (await client.read('networkToken', 'balanceOf', [sender.address])) };
}

function initText(
  kind: ModelNodeKind,
  {
    operatorId,
    nodeKey,
    endpoint,
    stake,
    bond,
    uids,
    unit,
  }: Record<'operatorId' | 'stake' | 'bond', bigint> & {
    nodeKey: string;
    endpoint: string;
    uids: readonly Place[];
    unit: string;
  },
): string {
  return [
    `Operator ${operatorId}, staked ${formatAmount(stake, TOKEN_DECIMALS)} ${unit}, node key ${nodeKey}.`,
    ...uids.map((place) =>
      place.paid === 0n
        ? `Subnet ${place.subnetId} (${place.kind}): holds uid ${place.uid}.`
        : `Subnet ${place.subnetId} (${place.kind}): took uid ${place.uid} for ${formatAmount(place.paid, TOKEN_DECIMALS)} ${unit}.`,
    ),
    ...(uids.length === 0
      ? [`It holds no uid by this: millrace ${kind} init --subnet NUMBER (millrace subnet list shows them and their prices).`]
      : []),
    ...(bond === 0n ? [] : [`When it runs, it locks ${formatAmount(bond, TOKEN_DECIMALS)} of the stake behind its receipts.`]),
    ...(kind === 'validator' ? [`It pays for its probes: millrace wallet send ${nodeKey} 10, or name gateways that it has keys for.`] : []),
    `Next: millrace ${kind} run${endpoint === '' ? ' --relay auto' : ''}`,
  ].join('\n');
}

/** The number of a subnet. @throws bad-option */
export function subnetNumber(text: string): bigint {
  if (/^[1-9]\d{0,17}$/.test(text)) return BigInt(text);
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got subnet "${text.slice(0, 40)}", expected its number`,
    values: { got: text.slice(0, 40) },
    hint: '`millrace subnet list` shows them.',
  });
}

function stakeBelowBond(stake: bigint, bond: bigint): MillraceError {
  return new MillraceError('stake-below-bond', {
    actor: 'caller',
    message: `Got a stake of ${formatAmount(stake, TOKEN_DECIMALS)}, a miner locks ${formatAmount(bond, TOKEN_DECIMALS)} behind its receipts`,
    values: { stake, bond },
    hint: 'Stake at least that much with --stake: gateways pass miners over that are not bonded.',
  });
}
