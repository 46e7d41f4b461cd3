import { hexToBytes } from 'viem';
import type { ChainClient } from '../chain/index.ts';
import { MillraceError } from '../errors.ts';
import {
  concentrationOf,
  type DecidedState,
  decodeRow,
  listSubnets,
  readDecidedState,
  readSubnet,
  readUids,
  resemblances,
  type SparseRow,
  type Subnet,
} from '../inference/index.ts';
import { formatAmount, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openSession, stakeUnitOf } from './session.ts';
import { readUserReplays, userReplaysText } from './subnet-evidence.ts';

const U16 = 65_535;
const SHOWN_PAIRS = 5;
/** Above this two rows are called alike: honest validators that measure the same miners differ by more. */
const ALIKE = 0.999;

/** All subnets: task, owner, places, price of the next uid, share of the emission. */
export async function subnetList(context: CommandContext): Promise<void> {
  const { client, manifest } = await openSession(context);
  const items = await listSubnets(client);
  const unit = stakeUnitOf(manifest);
  context.output.result({ items: items.map((item) => ({ ...item, beacon: item.beacon.label })), unit, next: null }, () => {
    if (items.length === 0) return 'There is no subnet yet. `millrace up --with inference` makes one for text, image and voice.';
    const rows = items.map((item) => [
      String(item.subnetId),
      item.kind,
      String(item.uidCount),
      `${item.tempoSeconds} s`,
      String(item.epoch),
      `${formatAmount(item.registrationPrice, TOKEN_DECIMALS)} ${unit}`,
      `${(item.emissionShareMillionths / 10_000).toFixed(2)} %`,
      item.beacon.label,
    ]);
    return table(['subnet', 'task', 'uids', 'epoch of', 'now', 'next uid costs', 'emission', 'beacon'], rows);
  });
}

/**
 * One subnet: its metagraph, the weights last opened, consensus and bonds as the last final epoch left them, how stake is concentrated, who could decide alone or says the same, and what validators say
 * of users' requests that they ran again.
 */
export async function subnetShow(context: CommandContext, id: string): Promise<void> {
  const { client, manifest } = await openSession(context);
  const subnet = await readSubnet(client, subnetIdOf(id));
  const uids = await readUids(client, subnet.subnetId);
  const [{ epoch, rows }, decided, userReplays] = await Promise.all([
    lastOpinions(client, subnet),
    lastDecided(client, subnet),
    readUserReplays(client, subnet.subnetId, uids),
  ]);
  const stakes = new Map(uids.filter(({ hasPermit }) => hasPermit).map(({ operatorId, stake }) => [operatorId, stake]));
  const concentration = concentrationOf(stakes, subnet.rules.kappa / U16);
  const alike = resemblances(rows).filter(({ likeness }) => likeness > 0);
  const weights = [...rows].map(([uid, row]) => ({ uid, row }));
  const unit = stakeUnitOf(manifest);
  const value = {
    ...subnet,
    beacon: subnet.beacon.label,
    unit,
    uids,
    weightsOfEpoch: epoch,
    weights,
    decided:
      decided === undefined ? null : { ...decided, bonds: decided.bonds.flatMap((row, uid) => (row.length === 0 ? [] : [{ uid, row }])) },
    concentration,
    alike: alike.slice(0, SHOWN_PAIRS),
    userReplays,
  };
  context.output.result(value, () => {
    const lines = uids.map((uid) => [
      String(uid.uid),
      String(uid.operatorId),
      formatAmount(uid.stake, TOKEN_DECIMALS),
      uid.hasPermit ? 'yes' : 'no',
      decided === undefined ? '' : ((decided.consensus[uid.uid] ?? 0) / U16).toFixed(4),
      (uid.incentive / U16).toFixed(4),
      (uid.dividends / U16).toFixed(4),
      rowText(rows.get(uid.uid)),
    ]);
    const share = `${(concentration.coalitionShare * 100).toFixed(1)} %`;
    const copies = alike.filter(({ likeness }) => likeness > ALIKE);
    return [
      `Subnet ${subnet.subnetId} (${subnet.kind}), epoch ${subnet.epoch} of ${subnet.tempoSeconds} s, mode ${subnet.rules.mode}, beacon: ${subnet.beacon.label}`,
      table(
        ['uid', 'operator', `stake (${unit})`, 'permit', 'consensus', 'incentive', 'dividends', `weights of epoch ${epoch ?? '–'}`],
        lines,
      ),
      bondsText(decided),
      `Stake: Herfindahl index ${concentration.herfindahl.toFixed(3)}; operators ${concentration.coalition.join(', ') || 'none'} together have ${share} and could decide alone.`,
      copies.length === 0
        ? 'No two validators said the same.'
        : `The same weights: ${copies.map(({ uids: [one, other] }) => `${one} and ${other}`).join('; ')} (copied, agreed on, or one operator).`,
      userReplaysText(userReplays),
    ].join('\n');
  });
}

/** The newest epoch with opened weights, and the rows by uid. */
async function lastOpinions(client: ChainClient, subnet: Subnet): Promise<{ epoch: bigint | undefined; rows: Map<number, SparseRow> }> {
  const delay = BigInt(subnet.rules.revealDelayEpochs);
  for (let back = delay; back <= delay + 2n && subnet.epoch >= back; back += 1n) {
    const epoch = subnet.epoch - back;
    const events = await client.events({ name: 'weightsBoard', event: 'Revealed', args: { subnetId: subnet.subnetId, epoch } });
    if (events.length > 0) return { epoch, rows: new Map(events.map(({ args }) => [args.uid, decodeRow(hexToBytes(args.row)) ?? []])) };
  }
  return { epoch: undefined, rows: new Map() };
}

/** Undefined where none is final, and where a node has forgotten the events that held it: the rest is shown all the same. */
async function lastDecided(client: ChainClient, { subnetId }: Subnet): Promise<DecidedState | undefined> {
  return readDecidedState(client, subnetId).catch((error: MillraceError) => {
    if (error.code === 'evidence-missing') return undefined;
    throw error;
  });
}

function bondsText(decided: DecidedState | undefined): string {
  if (decided === undefined) return 'Bonds: none yet (no epoch is final, or they were reset).';
  const held = decided.bonds.flatMap((row, uid) =>
    row.length === 0 ? [] : [`${uid} holds ${row.map(([of, part]) => `${((part * 100) / U16).toFixed(0)}% of ${of}`).join(', ')}`],
  );
  return `Bonds after epoch ${decided.epoch}: ${held.join('; ') || 'none'}.`;
}

function rowText(row: SparseRow | undefined): string {
  if (row === undefined) return '';
  const sum = row.reduce((total, [, weight]) => total + weight, 0);
  return row.map(([uid, weight]) => `${uid}:${((weight * 100) / sum).toFixed(0)}%`).join(' ');
}

function subnetIdOf(text: string): bigint {
  if (/^[1-9]\d{0,17}$/.test(text)) return BigInt(text);
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got subnet "${text.slice(0, 40)}", expected its number`,
    values: { got: text.slice(0, 40) },
    hint: '`millrace subnet list` shows them.',
  });
}
