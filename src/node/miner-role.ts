import { join } from 'node:path';
import { toMillraceError } from '../errors.ts';
import type { Miner } from '../inference/index.ts';
import { type Claimer, openReceiver, type Receiver, startClaimer } from '../token/index.ts';
import { contentPort } from './content-port.ts';
import { bytesOf, type InferenceSettings, timeLimitMs } from './inference-settings.ts';
import { backendMinerModels, embeddedModels } from './miner-models.ts';
import type { Role, RoleContext } from './role.ts';

const CLAIM_SECONDS = 300;
/** Evidence and shown requests are the validator's. */
const PATHS = /^\/v1\/((chat|responses|embeddings|audio|moderations|images|tasks|models)(\/|$)|inference\/(offer|tabs)$)/;
const MIB = 1 << 20;

/** What the miner role is given besides its context. */
export type MinerStart = RoleContext & {
  /** The network's folder on this machine: models are kept once for all its nodes. */
  dataFolder: string;
  inference?: InferenceSettings;
};

/**
 * Starts the role that serves models to whoever pays. Its key is paid; vouchers are claimed every five minutes of chain time. It bonds itself at the
 * court of receipts, else gateways pass it over. A uid in a subnet is its owner's to register (`millrace miner init`); without one it serves and is
 * not found.
 * @throws bad-inference-setting, unknown-model, backend-key-missing, and as askBackend
 */
export async function startMinerRole(context: MinerStart): Promise<Role> {
  const { createMiner, fetchOf, inferenceReceiptDomain, openEngineSet, textProgram } = await import('../inference/index.ts');
  const { client, signer, sender, operatorId, folder, log, inference } = context;
  const engines = openEngineSet({
    dataFolder: context.dataFolder,
    programs: [textProgram()],
    fetchFolder: contentPort(client),
    limits: engineLimits(inference),
    logger: log,
  });
  let receiver: Receiver | undefined;
  let claimer: Claimer | undefined;
  let miner: Miner;
  try {
    const models = [...embeddedModels(engines, inference), ...(await backendMinerModels(inference, { folder, log }))];
    await bond(context, { returns: false });
    receiver = await openReceiver({
      client,
      receiver: signer.address,
      folder: join(folder, 'earned'),
      tokens: ['network'],
      claimIntervalSeconds: CLAIM_SECONDS,
      sender,
    });
    claimer = startClaimer({ client, receiver, sender, intervalSeconds: CLAIM_SECONDS, log });
    miner = createMiner({
      operatorId,
      signer,
      domain: inferenceReceiptDomain(client),
      profile: client.manifest.profile,
      models,
      receiver,
      token: client.address('networkToken'),
      now: () => client.now(),
      limits: bodyLimits(inference),
      log,
    });
  } catch (error) {
    await claimer?.stop();
    await receiver?.close();
    await engines.close();
    throw error;
  }
  const fetch = fetchOf((request) => miner.answer(request));
  const earnings = () => earningsOf(receiver as Receiver);
  const claims = claimsInBackground(claimer, receiver);
  return {
    name: 'miner',
    fetch: (request) => (PATHS.test(new URL(request.url).pathname) ? fetch(request) : undefined),
    metrics: () => miner.metrics(),
    status: async () => ({ ...miner.status(), ...earnings(), evidence: evidenceByModel(await miner.offer()) }),
    drain: () => miner.drain(),
    resume() {
      miner.resume();
      void bond(context, { returns: true });
    },
    // Gives where it stands at once: a chain may take its time, and whoever asks asks again.
    async leave() {
      miner.drain();
      claims.begin();
      return { ...miner.status(), ...earnings(), ...claims.status() };
    },
    async stop() {
      await miner.stop();
      await claimer?.stop();
      await receiver?.close();
      await engines.close();
    },
  };
}

/** Claims on demand, one round at a time, with what hinders them. */
function claimsInBackground(claimer: Claimer, receiver: Receiver) {
  let round: Promise<void> | undefined;
  let problem: string | undefined;
  return {
    begin() {
      if (round !== undefined || receiver.claimable().length === 0) return;
      round = claimer
        .claimNow()
        .then(
          () => {
            problem = undefined;
          },
          (error) => {
            const { code, message } = toMillraceError(error);
            problem = `${code}: ${message.slice(0, 300)}`;
          },
        )
        .finally(() => {
          round = undefined;
        });
    },
    status() {
      const claimable = receiver.claimable().reduce((sum, { channel, total }) => sum + total - channel.claimed, 0n);
      return { claimable, ...(claimable > 0n && problem !== undefined ? { problem } : {}) };
    },
  };
}

/**
 * Locks the bond behind this key's receipts, unless the miner has left office and does not return. What hinders it is logged: the operator mends
 * it, and callers who know the miner can ask it meanwhile.
 */
async function bond({ client, sender, operatorId, log }: MinerStart, { returns }: { returns: boolean }): Promise<void> {
  const { ensureReceiptBond } = await import('../inference/index.ts');
  try {
    const done = await ensureReceiptBond(client, { sender, operatorId, returns });
    if (done === 'done') log.info('receipts-bonded', { operatorId });
    if (done === 'left') log.warn('receipts-not-bonded', { operatorId, reason: 'it has left office; it returns when it takes work again' });
  } catch (error) {
    const { code, message } = toMillraceError(error);
    log.warn('receipts-not-bonded', { operatorId, code, reason: message.slice(0, 300), effect: 'gateways pass this miner over' });
  }
}

function engineLimits(given: InferenceSettings | undefined): { memoryBytesMax?: number; requestTimeoutMs?: number } {
  const memoryBytesMax = bytesOf('inferenceModelMemory', given, { min: 128 * MIB, max: 1024 * 1024 * MIB });
  const requestTimeoutMs = timeLimitMs(given);
  return {
    ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
    ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs }),
  };
}

function bodyLimits(given: InferenceSettings | undefined): { paidBytesMax?: number; bodyBytesMax?: number } {
  const paidBytesMax = bytesOf('inferenceBodies', given, { min: MIB, max: 64 * 1024 * MIB });
  const bodyBytesMax = bytesOf('inferenceBodyMax', given, { min: 1024, max: 1024 * MIB });
  return { ...(paidBytesMax === undefined ? {} : { paidBytesMax }), ...(bodyBytesMax === undefined ? {} : { bodyBytesMax }) };
}

function evidenceByModel({ offer }: Awaited<ReturnType<Miner['offer']>>): Record<string, string> {
  return Object.fromEntries(offer.models.map(({ id, evidence }) => [id, evidence]));
}

/** Base units of the network's token. */
function earningsOf(receiver: Receiver): { earned: bigint; claimed: bigint } {
  const channels = [...receiver.channels()];
  return {
    earned: channels.reduce((sum, { charged }) => sum + charged, 0n),
    claimed: channels.reduce((sum, { claimed }) => sum + claimed, 0n),
  };
}
