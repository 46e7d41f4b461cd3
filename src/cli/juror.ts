import { existsSync } from 'node:fs';
import { createSender, openKeystore } from '../chain/index.ts';
import { readSetting } from '../config.ts';
import { enrolJuror, leaveJury, readJurorStanding, unlockSeats } from '../governance/index.ts';
import { createLogger } from '../log.ts';
import { fundFromFaucet, nodeSocket, startNode } from '../node/index.ts';
import { formatAmount, formatDuration, greater, parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { parseAddress } from './account.ts';
import type { CommandContext } from './context.ts';
import { countOption } from './juror-commands.ts';
import { initOwnOperator, noNodeKey, operatorOf, ownNode } from './operator.ts';
import { toJson } from './output.ts';
import { askRunning, listenAddress, untilStopped } from './running.ts';
import { askPassword } from './secrets.ts';
import { openSender } from './sending.ts';
import { openSession, settingSources, stakeUnitOf } from './session.ts';

const LISTEN = '127.0.0.1:9400';
/** Of what seats lock, staked unless told otherwise: a penalty then costs no seat. */
const STAKE_PER_SEAT = 2n;
const KIND = { kind: 'juror' } as const;
/** What only the running juror knows. */
const OWN_NUMBERS = ['open', 'committed', 'revealed', 'unanswered', 'judges'];

/** Options of `millrace juror enrol`. Money in tokens. */
export interface JurorEnrolOptions {
  seats: string;
  stake?: string;
  beneficiary?: string;
  gas: string;
}

/**
 * Makes a juror of one's own, as far as it is not there (keys, operator, stake, gas at the node key), and takes seats until it holds so many. Can be
 * repeated and interrupted.
 */
export async function jurorEnrol(context: CommandContext, options: JurorEnrolOptions): Promise<void> {
  const wanted = countOption('--seats', options.seats);
  const beneficiary = options.beneficiary === undefined ? undefined : parseAddress('--beneficiary', options.beneficiary);
  const gas = parseAmount(options.gas, TOKEN_DECIMALS);
  const opened = await openSender(context);
  const { client, sender, folder, log, manifest } = opened;
  try {
    const { seatStake, penalty } = await client.read('jury', 'config');
    const locks = BigInt(wanted) * seatStake;
    const stake = options.stake === undefined ? STAKE_PER_SEAT * locks : greater(locks, parseAmount(options.stake, TOKEN_DECIMALS));
    const { operatorId, nodeKey } = await initOwnOperator(opened, { ...KIND, endpoint: '', beneficiary, stake, limit: locks });
    const limit = await client.read('stakeVault', 'lockLimitOf', [operatorId]);
    if (limit !== 0n && limit < locks) {
      await sender.send({ contract: 'stakeVault', functionName: 'setLockLimit', args: [operatorId, locks] });
    }
    await fundFromFaucet(client, sender, nodeKey.address, { tokens: 0n, wei: gas });
    const asNode = createSender({ client, signer: nodeKey, journalFolder: ownNode(folder, 'juror').folder, log });
    try {
      const { seats } = await readJurorStanding(client, operatorId);
      if (seats < wanted) await enrolJuror({ sender: asNode, operatorId }, wanted - seats);
    } finally {
      asNode.close();
    }
    const standing = await readJurorStanding(client, operatorId);
    const unit = stakeUnitOf(manifest);
    context.output.result({ operatorId, nodeKey: nodeKey.address, ...standing, unit }, () =>
      [
        `Operator ${operatorId}: seats at the jury: ${standing.seats}, locked for them: ${formatAmount(standing.locked, TOKEN_DECIMALS)} ${unit}.`,
        `A vote against the final ruling, or none, costs ${formatAmount(penalty, TOKEN_DECIMALS)} ${unit}: keep it running. Next: millrace juror run`,
      ].join('\n'),
    );
  } finally {
    sender.close();
  }
}

/** Gives seats up, or frees the stake of those that were given up when their time has come. */
export async function jurorLeave(context: CommandContext, options: { seats?: string }): Promise<void> {
  const count = options.seats === undefined ? undefined : countOption('--seats', options.seats);
  const { client, sender, folder } = await openSender(context);
  try {
    const operatorId = await operatorOf(client, folder, KIND);
    const before = await readJurorStanding(client, operatorId);
    const isUnlock = before.seats === 0 && before.freeable > 0n;
    if (isUnlock) await unlockSeats({ sender, operatorId });
    const left = isUnlock ? 0 : await leaveJury(client, { sender, operatorId }, count);
    const after = await readJurorStanding(client, operatorId);
    const freed = isUnlock ? before.locked - after.locked : 0n;
    const seconds = Number((after.unlocksAt ?? 0n) - (await client.now()));
    context.output.result({ operatorId, left, freed, ...after }, () =>
      isUnlock
        ? `${formatAmount(freed, TOKEN_DECIMALS)} of the stake of operator ${operatorId} is free (millrace juror unstake).`
        : [
            `Operator ${operatorId} gave up seats: ${left}, and holds ${after.seats}. Votes that were drawn already must still be cast: keep it running.`,
            `In ${formatDuration(Math.max(0, seconds))} the stake comes free: millrace juror leave again, or the running juror does it.`,
          ].join('\n'),
    );
  } finally {
    sender.close();
  }
}

/** How the own juror stands: seats, open votes, what waits for it, and what the running one says of itself. */
export async function jurorStatus(context: CommandContext): Promise<void> {
  const { client, folder, manifest } = await openSession(context);
  const operatorId = await operatorOf(client, folder, KIND);
  const standing = await readJurorStanding(client, operatorId);
  const own = ownNode(folder, 'juror');
  const running = (await askRunning(nodeSocket(own.folder), 'status', { notRunning: (cause) => cause }).catch(() => undefined)) as
    | { roles: Record<string, Record<string, unknown>> }
    | undefined;
  const unit = stakeUnitOf(manifest);
  const disputes = await client.read('jury', 'disputeCount');
  const role = running?.roles.juror ?? {};
  const value = { operatorId, running: running !== undefined, ...standing, disputes, role, unit };
  context.output.result(value, () =>
    [
      `Operator ${operatorId} ${value.running ? 'runs' : 'does not run here (millrace juror run)'}; seats: ${standing.seats}, votes drawn and not settled: ${standing.openVotes}.`,
      `Locked ${formatAmount(standing.locked, TOKEN_DECIMALS)} ${unit}; waiting at the jury: ${formatAmount(standing.owedCoins, TOKEN_DECIMALS)} of the chain’s coin, ${formatAmount(standing.owedTokens, TOKEN_DECIMALS)} ${unit}.`,
      `Operators with seats: ${standing.jurors}; disputes so far: ${disputes}.`,
      ...OWN_NUMBERS.flatMap((name) =>
        role[name] === undefined ? [] : [`juror.${name}  ${typeof role[name] === 'object' ? toJson(role[name]) : role[name]}`],
      ),
    ].join('\n'),
  );
}

/** Runs the own juror in the foreground until Ctrl-C or SIGTERM; votes that were committed are revealed when it comes back. */
export async function jurorRun(context: CommandContext, options: { listen?: string }): Promise<void> {
  const sources = { ...settingSources(context), flags: { jurorListen: options.listen } };
  const { host, port } = listenAddress(readSetting('jurorListen', sources)?.value ?? LISTEN);
  const session = await openSession(context);
  const own = ownNode(session.folder, 'juror');
  if (!existsSync(own.keystore)) throw noNodeKey(own.folder, 'juror');
  const node = await startNode({
    folder: own.folder,
    manifest: session.manifest,
    rpcUrl: session.rpcUrl,
    signer: await openKeystore({ path: own.keystore, password: await askPassword('Password of the node key: ') }),
    roles: ['juror'],
    dataFolder: session.folder.root,
    host,
    port,
    quotaBytes: 0n,
    controlSocket: nodeSocket(own.folder),
    log: createLogger({ role: 'juror', level: context.flags.logLevel }),
  });
  const { operatorId } = node;
  const { seats } = await readJurorStanding(session.client, operatorId);
  context.output.result({ operatorId, host: node.host, port: node.port, seats }, () =>
    [
      `Operator ${operatorId} sits on the jury; seats: ${seats}. Press Ctrl-C to stop: a vote that is drawn meanwhile and not cast costs the penalty.`,
      ...(seats === 0 ? ['It holds no seat: millrace juror enrol'] : []),
    ].join('\n'),
  );
  await untilStopped(context);
  await node.stop();
}
