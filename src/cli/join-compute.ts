import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hexToString } from 'viem';
import type { Sender, Signer } from '../chain/index.ts';
import { systemClock } from '../clock.ts';
import { type DeviceReport, keepDeviceReport, reportDevice, requireForeignEngines } from '../compute/index.ts';
import { readSetting } from '../config.ts';
import { MillraceError } from '../errors.ts';
import { adoptProcess, type Executor, startProcess } from '../host/index.ts';
import {
  COMPUTE_DEFAULTS,
  type ComputeSettings,
  chosenEngine,
  endpointUrl,
  fundFromFaucet,
  holdsRentals,
  openEngines,
} from '../node/index.ts';
import { formatAmount, parseAmount, parseDuration, TOKEN_DECIMALS } from '../units.ts';
import { type ComputeNodeOptions, computeSettingsOf, startComputeNode } from './compute-node.ts';
import type { CommandContext } from './context.ts';
import { joinStep } from './join-step.ts';
import { type SelfTest, selfTest } from './join-test.ts';
import { awaitMoney, wallet } from './join-wallet.ts';
import { initOwnOperator, ownNode } from './operator.ts';
import { untilStopped } from './running.ts';
import { takeSender } from './sending.ts';
import { openSession, type Session, settingSources } from './session.ts';

/** Options of `millrace join … --compute`. Money in tokens. */
export interface JoinComputeOptions extends ComputeNodeOptions {
  endpoint?: string;
  region?: string;
  stake: string;
  gas: string;
  wait: string;
  detach: boolean;
}

/** A machine that has joined. */
interface Joined {
  operatorId: bigint;
  device: DeviceReport;
  /** What it leases out, as the market has it. */
  offers: { deviceId: bigint; deviceClass: string }[];
  test: SelfTest;
  /** Ends the node; undefined where it stays. */
  stop: (() => Promise<void>) | undefined;
}

/** Of the stake, what the node key may promise: jobs and leases lock parts of it. */
const LIMIT_PART = 2n;
/** What the self-test may cost, with its audits and fees. */
const TEST_MONEY = 10n ** 18n;
const READY_MS = 60_000;
const OFFER_MS = 60_000;
const REACH_SECONDS = 90;
const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
/** Under this name the node in the background is recorded. */
export const COMPUTE_PROCESS = 'compute';

/**
 * Makes this machine a compute node of the network that was joined: looks at it and measures it, makes wallet, keys, operator and stake as far as
 * they are not there, starts the node, and has it run a job through the whole network. Done only when that job was checked. Each step looks
 * first: repeated, it goes on where it was.
 * @throws join-stopped with the step, what failed there, and how to mend it
 */
export async function joinCompute(context: CommandContext, options: JoinComputeOptions): Promise<void> {
  const session = await openSession(context);
  const joined = await joinSteps(context, session, options);
  const { operatorId, device, offers, test } = joined;
  const { deviceClass, scores, attributes } = device;
  const unit = session.manifest.tokens.compute?.symbol ?? 'compute tokens';
  context.output.result({ network: session.manifest.name, operatorId, deviceClass, scores, attributes, offers, selfTest: test, unit }, () =>
    [
      `Operator ${operatorId} computes for ${session.manifest.name} as ${deviceClass}.`,
      offers.length === 0
        ? 'It leases nothing out: no engine here holds rentals, or the setting leases says no.'
        : `On offer: ${offers.map((offer) => `device ${offer.deviceId}, ${offer.deviceClass}`).join('; ')}.`,
      `Self-test: job ${test.jobId} ran through the network in ${test.seconds} s, evidence ${test.evidence}, cost ${formatAmount(test.cost, TOKEN_DECIMALS)} ${unit}.`,
      options.detach
        ? 'It runs in the background. To leave: millrace leave'
        : 'Press Ctrl-C to stop; start it again with millrace compute run. To leave: millrace leave',
    ].join('\n'),
  );
  if (joined.stop === undefined) return;
  await untilStopped(context);
  await joined.stop();
}

async function joinSteps(context: CommandContext, session: Session, options: JoinComputeOptions): Promise<Joined> {
  const endpoint = options.endpoint === undefined ? '' : endpointUrl(options.endpoint);
  const [stake, gas] = [parseAmount(options.stake, TOKEN_DECIMALS), parseAmount(options.gas, TOKEN_DECIMALS)];
  const waitSeconds = parseDuration(options.wait);
  const settings = computeSettingsOf(context, options);
  const engines = await openEngines(settings, session.folder.root);
  try {
    await joinStep(context, 'engines that hold strangers’ work to its limits', async () => {
      await requireForeignEngines(engines);
      // Whoever chose an engine means it: a node that would run modules alone is not what was asked for.
      if (chosenEngine(settings) !== 'bubblewrap') await requireForeignEngines(engines.slice(0, 1));
    });
    // Measuring needs no money and transactions need no processor: both at once.
    const measuring = joinStep(context, 'measuring this machine', async () => await measure(context, session, engines));
    measuring.catch(() => undefined);
    const signer = await joinStep(context, 'opening the wallet', async () => await wallet(context, session));
    const isKnown = existsSync(ownNode(session.folder, 'compute').keystore);
    const needed = { wei: 2n * gas, tokens: isKnown ? 0n : stake, computeTokens: TEST_MONEY };
    await joinStep(context, 'money for the stake', async () => await awaitMoney(context, session, { signer, needed, waitSeconds }));
    const sender = await takeSender(context, session, signer);
    try {
      const wanted = { kind: 'compute', endpoint, stake, limit: stake / LIMIT_PART, region: options.region } as const;
      const operatorId = await joinStep(context, 'operator and stake', async () => {
        const { operatorId: id, nodeKey } = await initOwnOperator({ ...session, signer, sender }, wanted);
        await fundFromFaucet(session.client, sender, nodeKey.address, { tokens: 0n, wei: gas });
        return id;
      });
      const device = await measuring;
      return { operatorId, device, ...(await startAndTest(context, options, { session, signer, sender, operatorId, device })) };
    } finally {
      sender.close();
    }
  } finally {
    for (const engine of engines) await engine.close();
  }
}

async function startAndTest(
  context: CommandContext,
  options: JoinComputeOptions,
  given: { session: Session; signer: Signer; sender: Sender; operatorId: bigint; device: DeviceReport },
): Promise<Pick<Joined, 'offers' | 'test' | 'stop'>> {
  const { session, operatorId, device } = given;
  const stop = await joinStep(context, 'starting the node', async () => await startIt(context, session, options));
  try {
    const offers = await joinStep(
      context,
      'the offer at the market',
      async () => await awaitOffers(context, session, { operatorId, device, settings: computeSettingsOf(context, options) }),
    );
    const wanted = { ...given, client: session.client, reachSeconds: REACH_SECONDS };
    const test = await joinStep(context, 'a job through the network', async () => await selfTest(context, wanted));
    return { offers, test, stop };
  } catch (error) {
    await stop?.();
    throw error;
  }
}

async function measure(context: CommandContext, { folder }: Session, executors: readonly Executor[]): Promise<DeviceReport> {
  const progress = context.output.progress('measuring');
  try {
    const report = await reportDevice({ folder: folder.root, executors, onProgress: (what) => progress.update(0, undefined, what) });
    keepDeviceReport(folder.root, report);
    for (const { engine, takesForeign, missing } of report.facts.engines) {
      if (takesForeign) continue;
      context.output.note(`${engine} takes no jobs of strangers: ${missing.map(({ what, fix }) => `${what} (${fix})`).join('; ')}`);
    }
    return report;
  } finally {
    progress.end();
  }
}

/**
 * The devices that the node has put on offer: one at least, unless its owner leases none, or no engine here holds rentals (WebAssembly alone).
 * @throws no-device-on-offer
 */
async function awaitOffers(
  context: CommandContext,
  { client }: Session,
  { operatorId, device, settings }: Pick<Joined, 'operatorId' | 'device'> & { settings: ComputeSettings },
): Promise<Joined['offers']> {
  const isWanted = (readSetting('leases', settingSources(context))?.value ?? COMPUTE_DEFAULTS.leases) !== 'no';
  const isAble = holdsRentals(settings) && device.facts.engines.some(({ engine, takesForeign }) => engine !== 'wasm' && takesForeign);
  if (!isWanted || !isAble) return [];
  const deadlineMs = systemClock.nowMs() + OFFER_MS;
  while (systemClock.nowMs() < deadlineMs) {
    const events = await client.events({ name: 'computeMarket', event: 'OfferSet', args: { operatorId } });
    const now = await client.now();
    const latest = new Map(events.map(({ args: { deviceId, offer } }) => [deviceId, offer]));
    const open = [...latest].filter(([, offer]) => offer.until > now);
    if (open.length > 0) {
      return open.map(([deviceId, offer]) => ({
        deviceId,
        deviceClass: hexToString(offer.deviceClass, { size: 32 }).replaceAll('\0', ''),
      }));
    }
    await systemClock.sleep(client.pollIntervalMs(), context.signal);
  }
  throw new MillraceError('no-device-on-offer', {
    actor: 'host',
    message: `Operator ${operatorId} has put no device on offer within ${OFFER_MS / 1000} s`,
    values: { operatorId },
    hint: 'millrace compute status says which devices have no room; give the node more with --cpus and --memory, or set leases to no.',
  });
}

/** In the background where that was asked for, else in this process; undefined: it stays without us. */
async function startIt(context: CommandContext, session: Session, options: JoinComputeOptions): Promise<(() => Promise<void>) | undefined> {
  const recordFolder = join(session.folder.root, 'processes');
  if (adoptProcess({ name: COMPUTE_PROCESS, recordFolder }) !== undefined) return undefined;
  if (!options.detach) {
    const node = await startComputeNode(context, session, relayDefault(context, options));
    return async () => await node.stop();
  }
  if (!process.env.MILLRACE_PASSWORD_FILE) throw noPasswordFile();
  await startProcess({
    name: COMPUTE_PROCESS,
    command: process.execPath,
    args: [...process.execArgv, MAIN, ...globalArguments(context), 'compute', 'run', ...nodeArguments(relayDefault(context, options))],
    env: { ...process.env },
    logFile: join(session.folder.logs, 'compute.log'),
    recordFolder,
    readyTimeoutMs: READY_MS,
  });
  return undefined;
}

/** A node without an endpoint of its own is reached through relays. */
function relayDefault(context: CommandContext, options: JoinComputeOptions): ComputeNodeOptions {
  const isSet =
    options.relay !== undefined || options.endpoint !== undefined || readSetting('relay', settingSources(context)) !== undefined;
  return isSet ? options : { ...options, relay: 'auto' };
}

function globalArguments({ flags }: CommandContext): string[] {
  const { data, network, rpcUrl, logLevel } = flags;
  return [
    '--json',
    ...['--network', network, '--log-level', logLevel],
    ...(data === undefined ? [] : ['--data', data]),
    ...(rpcUrl === undefined ? [] : ['--rpc-url', rpcUrl]),
  ];
}

function nodeArguments(options: ComputeNodeOptions): string[] {
  const { listen, relay, cpus, memory, disk, priceCpu, priceMemory } = options;
  const given = { listen, relay, cpus, memory, disk, 'price-cpu': priceCpu, 'price-memory': priceMemory };
  return Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, value]));
}

function noPasswordFile(): MillraceError {
  return new MillraceError('no-password', {
    actor: 'caller',
    message: 'A node in the background cannot ask for its password',
    hint: 'Set MILLRACE_PASSWORD_FILE to a file that holds it, or leave --detach out.',
  });
}
