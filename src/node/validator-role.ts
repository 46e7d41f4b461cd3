import { join } from 'node:path';
import { toMillraceError } from '../errors.ts';
import type { EngineSet, SubnetJudge } from '../inference/index.ts';
import { createPayer } from '../token/index.ts';
import { parseAmount, TOKEN_DECIMALS } from '../units.ts';
import { contentPort } from './content-port.ts';
import { countOf, gatewaysOf, inferenceSettings, listed } from './inference-settings.ts';
import type { MinerStart } from './miner-role.ts';
import { localPulseUrls } from './network-beacon.ts';
import { metricLines } from './relay-role.ts';
import type { Role } from './role.ts';
import { openValidatorCourt, type ValidatorCourt } from './validator-court.ts';

const LOOK_MS = 15_000;
const DEPOSIT_REQUESTS = 4n;
const SHOWN_PATH = '/v1/inference/shown';
const EVIDENCE_PATH = /^\/v1\/inference\/evidence\/(\d{1,20})(?:\/(\d{1,20}))?$/;

/**
 * Starts the role that judges models, in every subnet in which the operator holds a uid. It runs beside serving and shares nothing with it but the
 * engines: whatever becomes of it, nobody waits for it. Evidence of past epochs is shown to anybody at `/v1/inference/evidence/{subnet}[/{epoch}]`;
 * gateways show requests that users let it repeat at `/v1/inference/shown`. Receipts that convict are reported to their court.
 * @throws bad-inference-setting
 */
export async function startValidatorRole(context: MinerStart): Promise<Role> {
  const { createShownDesk, openEngineSet, textProgram } = await import('../inference/index.ts');
  const engines = openEngineSet({
    dataFolder: context.dataFolder,
    programs: [textProgram()],
    fetchFolder: contentPort(context.client),
    logger: context.log,
  });
  const accounts = await openAccounts(context);
  const court = await openValidatorCourt(context);
  const judges = new Map<bigint, SubnetJudge>();
  const { onReceipt } = court;
  const desk = createShownDesk({ client: context.client, judges: () => judges.values(), onReceipt, log: context.log });
  const over = new AbortController();
  let isDraining = false;
  const looking = lookForSubnets(context, { engines, accounts, court, judges, signal: over.signal, isDraining: () => isDraining });
  return {
    name: 'validator',
    fetch(request) {
      const isShown = request.method === 'POST' && new URL(request.url).pathname === SHOWN_PATH;
      if (isShown) return desk.take(request);
      const document = court.answer(request);
      return document === undefined ? showEvidence(request, context.folder, judges) : Promise.resolve(document);
    },
    metrics: () => metricLines({ millrace_validator_subnets_count: judges.size }, context.operatorId),
    status: async () => ({ subnets: [...judges.values()].map((judge) => judge.status()), court: court.status() }),
    drain() {
      isDraining = true;
    },
    resume() {
      isDraining = false;
    },
    async leave() {
      isDraining = true;
      return { subnets: judges.size };
    },
    async stop() {
      over.abort();
      await looking;
      await Promise.all([...judges.values()].map((judge) => judge.stop()));
      await Promise.all(accounts.map((account) => account.close()));
      await court.close();
      await engines.close();
    },
  };
}

/** Accounts at gateways; without any, a wallet of its own, which is the node key's. */
async function openAccounts({ client, signer, sender, folder, inference }: MinerStart) {
  const { gatewayAccount, ownAccount } = await import('../inference/index.ts');
  const gateways = gatewaysOf(inference);
  if (gateways.length > 0) return gateways.map(gatewayAccount);
  const payer = await createPayer({ client, signer, sender, folder: join(folder, 'channels'), depositRequests: DEPOSIT_REQUESTS });
  return [ownAccount(payer, { amountMax: parseAmount(inferenceSettings(inference).validatorTabMax, TOKEN_DECIMALS) })];
}

interface Looking {
  engines: EngineSet;
  accounts: Awaited<ReturnType<typeof openAccounts>>;
  court: ValidatorCourt;
  judges: Map<bigint, SubnetJudge>;
  signal: AbortSignal;
  isDraining(): boolean;
}

/** Starts to judge wherever the operator has got a uid since the last look. */
async function lookForSubnets(context: MinerStart, looking: Looking): Promise<void> {
  const { client, operatorId, log } = context;
  while (!looking.signal.aborted) {
    try {
      const count = looking.isDraining() ? 0n : await client.read('subnets', 'subnetCount');
      for (let subnetId = 1n; subnetId <= count && !looking.signal.aborted; subnetId += 1n) {
        if (looking.judges.has(subnetId)) continue;
        const uid = await uidOf(context, subnetId);
        if (uid !== undefined) looking.judges.set(subnetId, await judgeSubnet(context, looking, { subnetId, uid }));
      }
    } catch (error) {
      log.warn('subnets-not-read', { operatorId, reason: toMillraceError(error).message.slice(0, 300) });
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, LOOK_MS);
      looking.signal.addEventListener('abort', () => resolve(clearTimeout(timer)), { once: true });
    });
  }
}

async function uidOf({ client, operatorId }: MinerStart, subnetId: bigint): Promise<number | undefined> {
  try {
    return await client.read('subnets', 'uidOf', [subnetId, operatorId]);
  } catch (error) {
    if (toMillraceError(error).code === 'not-registered') return undefined;
    throw error;
  }
}

async function judgeSubnet(
  context: MinerStart,
  { engines, accounts, court }: Looking,
  place: { subnetId: bigint; uid: number },
): Promise<SubnetJudge> {
  const { createProbeStock, createSettler, startSubnetJudge } = await import('../inference/index.ts');
  const { client, sender, folder, inference, log, operatorId } = context;
  const settler = createSettler({ client, sender, operatorId, log, subnetId: place.subnetId });
  const cards = engines.cards();
  const idOf = (task: string) => cards.find((card) => card.task === task)?.id;
  const engineFor = (task: string) => {
    const id = idOf(task);
    return id === undefined ? undefined : engines.engine(id);
  };
  const { validatorEmissionPrice, validatorImages } = inferenceSettings(inference);
  return startSubnetJudge({
    client,
    sender,
    ...place,
    folder: join(folder, place.subnetId.toString()),
    modelOf(root) {
      const card = cards.find((one) => one.root === root);
      return card === undefined ? undefined : { engine: engines.engine(card.id) };
    },
    stock: createProbeStock({
      writer: engineFor('chat'),
      speaker: engineFor('speech'),
      commands: cards.find((card) => card.task === 'command')?.labels ?? [],
      imagesFolder: validatorImages === '' ? undefined : validatorImages,
    }),
    accounts,
    onReceipt: court.onReceipt,
    onRefuted: court.onRefuted,
    pulseUrls: () => [...listed(inferenceSettings(inference).validatorPulses), ...localPulseUrls(context.dataFolder)],
    emissionPrice: parseAmount(validatorEmissionPrice, TOKEN_DECIMALS),
    rules: { probesPerMiner: countOf('validatorProbes', inference, 1000) },
    settle: () => settler.tend(),
    log,
  });
}

/** What lies behind past weights; of the epoch that runs nothing is shown, so that nobody learns what is being looked at. */
function showEvidence(request: Request, folder: string, judges: ReadonlyMap<bigint, SubnetJudge>): Promise<Response> | undefined {
  const found = EVIDENCE_PATH.exec(new URL(request.url).pathname);
  if (found === null) return undefined;
  return answerEvidence(folder, judges, { subnetId: BigInt(found[1] as string), epoch: found[2] });
}

async function answerEvidence(
  folder: string,
  judges: ReadonlyMap<bigint, SubnetJudge>,
  { subnetId, epoch }: { subnetId: bigint; epoch: string | undefined },
): Promise<Response> {
  const { evidenceEpochs, readEvidence } = await import('../inference/index.ts');
  const judge = judges.get(subnetId);
  const present = BigInt(String(judge?.status().epoch ?? '0'));
  const book = join(folder, subnetId.toString(), 'evidence');
  const past = evidenceEpochs(book).filter((one) => one < present);
  if (epoch === undefined) return Response.json({ items: past.map(String), next: null, users: judge?.status().shown ?? null });
  const wanted = past.find((one) => one === BigInt(epoch));
  if (wanted === undefined) return Response.json({ items: [], next: null }, { status: 404 });
  return Response.json({ items: readEvidence(book, { epoch: wanted }), next: null });
}
