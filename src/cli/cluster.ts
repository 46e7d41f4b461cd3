import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Hex, stringToHex } from 'viem';
import type { ChainClient, Sender, Signer } from '../chain/index.ts';
import {
  type ClusterRecord,
  type ClusterTerms,
  Coordinator,
  createClusterRecord,
  type MachineView,
  openClusterMarket,
  openClusterNode,
  QUICK_PATIENCE,
  readClusterRecord,
} from '../compute/index.ts';
import { writeFileDurably } from '../durable-file.ts';
import { MillraceError } from '../errors.ts';
import { lockFolder } from '../host/index.ts';
import type { Logger } from '../log.ts';
import { approveMeter, depositToRails, meterAllowance } from '../token/index.ts';
import { parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { type ClusterPlan, type PlanOptions, readPlan } from './cluster-plan.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openWallet } from './secrets.ts';
import { withSender } from './sending.ts';
import { decimalsOf, openSession, type Session } from './session.ts';

interface UpOptions extends PlanOptions {
  collateral: string;
  turn: string;
  deposit?: string;
}

/** A cluster of this person, with the keys and the chain at hand. */
interface OpenCluster {
  folder: string;
  session: Session;
  signer: Signer;
  record: ClusterRecord;
  coordinator: Coordinator;
}

const FOLLOW_MS = 1_000;
/** Asks the process that keeps a cluster to end it. */
const END_FILE = 'end';

/** Forms a cluster or goes on with one, and keeps it until its program is done, it fails, it is ended, or this command is interrupted. */
export async function up(context: CommandContext, name: string, specPath: string | undefined, options: UpOptions): Promise<void> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  const folder = folderOfCluster(session, name);
  if (specPath !== undefined) await create({ context, session, signer, folder, specPath, options });
  const lock = lockFolder(folder);
  try {
    rmSync(join(folder, END_FILE), { force: true });
    const { coordinator } = open(context, { session, signer, folder, turn: Number(options.turn) || 0 });
    const ending = endAsked(folder, context.signal);
    const record = await coordinator.run(ending.signal);
    ending.stop();
    if (ending.isAsked()) await coordinator.end();
    report(context, name, coordinator.record.phase === 'ended' ? coordinator.record : record);
  } finally {
    lock.release();
  }
}

/** Machines and processes of a cluster, asked once. */
export async function ps(context: CommandContext, name: string): Promise<void> {
  const { coordinator, record } = await openByName(context, name);
  const machines = await coordinator.view();
  context.output.result({ cluster: record.cluster, phase: record.phase, version: record.signed?.list.version ?? 0, machines }, () =>
    table(['seat', 'operator', 'lease', 'rank', 'state', 'mesh', 'checkpoint'], machines.flatMap(rowsOf)),
  );
}

/** What a process printed, from the beginning of what its machine keeps. */
export async function logs(context: CommandContext, name: string, { rank, follow }: { rank: string; follow: boolean }): Promise<void> {
  const { coordinator } = await openByName(context, name);
  let next = 0;
  do {
    const node = await coordinator.nodeOfRank(Number(rank));
    const piece = await node.log(Number(rank), next);
    next = piece.next;
    if (piece.text !== '') context.output.line({ rank: Number(rank), text: piece.text, next }, piece.text.replace(/\n$/, ''));
    if (follow) await new Promise((resolve) => setTimeout(resolve, FOLLOW_MS));
  } while (follow && !context.signal.aborted);
}

/** Runs a command within the container of a process. Its exit code becomes a value of the error when it is not 0. */
export async function exec(context: CommandContext, name: string, command: string[], { rank }: { rank: string }): Promise<void> {
  const { coordinator } = await openByName(context, name);
  const node = await coordinator.nodeOfRank(Number(rank));
  const { exitCode, output } = await node.exec(Number(rank), command);
  context.output.result({ rank: Number(rank), exitCode, output }, () => output.replace(/\n$/, ''));
  if (exitCode === 0) return;
  throw new MillraceError('command-failed', {
    actor: 'caller',
    message: `The command ended with ${exitCode}`,
    values: { rank: Number(rank), exitCode },
  });
}

/** Ends a cluster: by the process that keeps it, else here. */
export async function down(context: CommandContext, name: string): Promise<void> {
  const { folder, coordinator } = await openByName(context, name);
  let lock: ReturnType<typeof lockFolder> | undefined;
  try {
    lock = lockFolder(folder);
  } catch (error) {
    if ((error as MillraceError).code !== 'folder-busy') throw error;
    writeFileSync(join(folder, END_FILE), '');
    context.output.result({ name, asked: true }, () => `The process that keeps ${name} was asked to end it.`);
    return;
  }
  try {
    await coordinator.end();
    report(context, name, coordinator.record);
  } finally {
    lock.release();
  }
}

async function create(parts: {
  context: CommandContext;
  session: Session;
  signer: Signer;
  folder: string;
  specPath: string;
  options: UpOptions;
}): Promise<void> {
  const { session, signer, folder, specPath, options } = parts;
  if (readClusterRecord(folder) !== undefined) {
    throw new MillraceError('cluster-exists', {
      actor: 'caller',
      message: `There is a cluster in ${folder} already`,
      values: { folder },
      hint: 'Go on with it by giving no specification, or choose another name.',
    });
  }
  const plan = readPlan(specPath, options, { stable: decimalsOf(session, 'stable'), native: decimalsOf(session, 'native') });
  for (const warning of plan.warnings) parts.context.output.note(warning);
  const terms = await readTerms(session, signer, { plan, collateral: options.collateral });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  writeFileDurably(
    join(folder, 'terms.json'),
    JSON.stringify(terms, (_, value) => (typeof value === 'bigint' ? value.toString() : value)),
  );
  if (options.deposit !== undefined) {
    const isStable = plan.token === 'stable';
    const amount = parseAmount(options.deposit, decimalsOf(session, isStable ? 'stable' : 'native'));
    const token = isStable ? 'stable' : 'compute';
    await withSender(parts.context, session, signer, (sender) => depositForLeases(session.client, { sender, token, amount }));
  }
  createClusterRecord(folder, `0x${randomBytes(32).toString('hex')}`, plan.spec);
}

/** Puts money into the account from which leases are paid, and lets the market take as much more as that. */
async function depositForLeases(
  client: ChainClient,
  wanted: { sender: Sender; token: 'compute' | 'stable'; amount: bigint },
): Promise<void> {
  const { sender, token, amount } = wanted;
  await depositToRails(client, { sender, token, amount });
  const allowance = await meterAllowance(client, { payer: sender.address, meter: 'computeMarket', token });
  await approveMeter(client, { sender, meter: 'computeMarket', token, allowance: allowance + amount });
}

async function readTerms(
  { client }: Session,
  signer: Signer,
  { plan, collateral }: { plan: ClusterPlan; collateral: string },
): Promise<ClusterTerms> {
  return {
    deviceClass: classOf(plan.deviceClass),
    token: client.address(plan.token === 'stable' ? 'stableToken' : 'computeToken'),
    priceMax: plan.priceMax,
    until: (await client.now()) + BigInt(plan.seconds),
    agent: signer.address,
    collateralMin: parseAmount(collateral, TOKEN_DECIMALS),
  };
}

function classOf(text: string): Hex {
  if (/^0x[0-9a-fA-F]{64}$/.test(text)) return text as Hex;
  if (Buffer.byteLength(text) > 31 || text === '') throw badOption('--class', text.slice(0, 80), '32 bytes in hex, or 1 to 31 letters');
  return stringToHex(text, { size: 32 });
}

async function openByName(context: CommandContext, name: string): Promise<OpenCluster> {
  const session = await openSession(context);
  const signer = await openWallet(context, session);
  return open(context, { session, signer, folder: folderOfCluster(session, name), turn: 0 });
}

function open(context: CommandContext, parts: { session: Session; signer: Signer; folder: string; turn: number }): OpenCluster {
  const { session, signer, folder, turn } = parts;
  const record = readClusterRecord(folder);
  if (record === undefined) {
    throw new MillraceError('cluster-unknown', {
      actor: 'caller',
      message: `There is no cluster in ${folder}`,
      values: { folder },
      hint: 'millrace cluster up NAME FILE makes one.',
    });
  }
  const { deviceClass, token, agent, ...numbers } = JSON.parse(readFileSync(join(folder, 'terms.json'), 'utf8')) as Record<string, Hex>;
  const [priceMax, until, collateralMin] = [numbers.priceMax, numbers.until, numbers.collateralMin].map(
    BigInt as (text: unknown) => bigint,
  );
  const terms = { deviceClass, token, agent, priceMax, until, collateralMin } as ClusterTerms;
  // One after another: only one sender of a wallet is open at a time.
  let before: Promise<unknown> = Promise.resolve();
  const inTurn = <Result>(work: (sender: Sender) => Promise<Result>): Promise<Result> => {
    const result = before.then(() => withSender(context, session, signer, work));
    before = result.catch(() => {});
    return result;
  };
  const market = openClusterMarket(session.client, inTurn, terms);
  const coordinator = new Coordinator(
    {
      folder,
      market,
      signer,
      nodeOf: async (operatorId) => openClusterNode(await market.peerOf(operatorId), record.cluster, signer),
      patience: QUICK_PATIENCE,
      turn,
      log: narrate(context, session.log),
    },
    record,
  );
  return { folder, session, signer, record, coordinator };
}

/** Every step is a line for whoever watches, and in the log. */
function narrate(context: CommandContext, log: Logger): Logger {
  return {
    ...log,
    info: (event, fields) => {
      log.info(event, fields);
      const { cluster: _, ...shown } = fields ?? {};
      const text = Object.entries(shown).map(([key, value]) => `${key} ${value}`);
      context.output.line(
        { event, ...shown, timeMs: Date.now() },
        `${event.replace(/^cluster-/, '').replaceAll('-', ' ')}  ${text.join(', ')}`,
      );
    },
  };
}

function endAsked(folder: string, interrupt: AbortSignal): { signal: AbortSignal; isAsked(): boolean; stop(): void } {
  const asked = new AbortController();
  const isAsked = () => existsSync(join(folder, END_FILE));
  const timer = setInterval(() => {
    if (isAsked()) asked.abort();
  }, FOLLOW_MS);
  return { signal: AbortSignal.any([asked.signal, interrupt]), isAsked, stop: () => clearInterval(timer) };
}

function report(context: CommandContext, name: string, record: ClusterRecord): void {
  const { cluster, phase, reason, signed, leases } = record;
  const value = { name, cluster, phase, reason, version: signed?.list.version ?? 0, leases };
  context.output.result(value, () => `${name}: ${phase}${reason === undefined ? '' : ` (${reason})`}`);
  if (phase !== 'failed') return;
  throw new MillraceError('cluster-failed', {
    actor: 'caller',
    message: `The cluster ${name} failed: ${reason}`,
    values: { name, reason },
  });
}

function rowsOf({ seat, operatorId, leaseId, ranks, silentMs, status }: MachineView): string[][] {
  const isSilent = status === undefined || silentMs > QUICK_PATIENCE.lostMs;
  return ranks.map((rank) => {
    const process = status?.processes.find((each) => each.rank === rank);
    const state = isSilent ? 'silent' : process === undefined ? 'unknown' : (process.reason ?? process.state);
    return [String(seat), operatorId, leaseId, String(rank), state, status?.wireguard ?? '-', status?.newest?.name ?? '-'];
  });
}

function folderOfCluster({ folder }: Session, name: string): string {
  if (!/^[a-z0-9][a-z0-9-]{0,31}$/.test(name)) throw badOption('name', name.slice(0, 80), '1 to 32 small letters, digits and hyphens');
  return join(folder.client, 'clusters', name);
}

function badOption(option: string, got: string, expected: string): MillraceError {
  return new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${JSON.stringify(got)} for ${option}, expected ${expected}`,
    values: { option, got, expected },
  });
}
