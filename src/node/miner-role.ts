import { join } from 'node:path';
import type { EngineSet, Miner, MinerModel } from '../inference/index.ts';
import { type Claimer, openReceiver, type Receiver, startClaimer } from '../token/index.ts';
import { backendModels, countOf, type InferenceSettings, inferenceSettings, listed, priceOfTask } from './inference-settings.ts';
import type { Role, RoleContext } from './role.ts';

const CLAIM_SECONDS = 300;
const OUTPUT_UNITS_MAX = 512;
const PATHS = /^\/v1\/(chat|responses|embeddings|audio|moderations|images|tasks|models|inference)(\/|$)/;
/** Parameters that the embedded language model honours besides the plain ones. */
const EMBEDDED_PARAMETERS = ['seed', 'logprobs', 'top_k', 'stop'];

/** What the miner role is given besides its context. */
export type MinerStart = RoleContext & {
  /** The network's folder on this machine: models are kept once for all its nodes. */
  dataFolder: string;
  inference?: InferenceSettings;
};

/**
 * Starts the role that serves models to whoever pays. Its key is paid; vouchers are claimed every five minutes of chain time. A uid in a subnet is
 * its owner's to register (`millrace subnet register`); without one it serves and is not found.
 * @throws bad-inference-setting, unknown-model
 */
export async function startMinerRole(context: MinerStart): Promise<Role> {
  const { createMiner, fetchOf, inferenceReceiptDomain, openEngineSet, textProgram } = await import('../inference/index.ts');
  const { client, signer, sender, operatorId, folder, log } = context;
  const engines = openEngineSet({ dataFolder: context.dataFolder, programs: [textProgram()], logger: log });
  let receiver: Receiver | undefined;
  let claimer: Claimer | undefined;
  let miner: Miner;
  try {
    const models = [...embeddedModels(engines, context.inference), ...(await foreignModels(context.inference))];
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
  return {
    name: 'miner',
    fetch: (request) => (PATHS.test(new URL(request.url).pathname) ? fetch(request) : undefined),
    metrics: () => miner.metrics(),
    status: async () => ({ ...miner.status(), ...earnings() }),
    drain: () => miner.drain(),
    resume: () => miner.resume(),
    async leave() {
      miner.drain();
      await claimer?.claimNow();
      return earnings();
    },
    async stop() {
      await miner.stop();
      await claimer?.stop();
      await receiver?.close();
      await engines.close();
    },
  };
}

function embeddedModels(engines: EngineSet, given: InferenceSettings | undefined): MinerModel[] {
  const concurrency = countOf('inferenceConcurrency', given, 1024);
  return listed(inferenceSettings(given).inferenceModels).map((id) => {
    const engine = engines.engine(id);
    const { task } = engine.card;
    const parameters = task === 'chat' ? EMBEDDED_PARAMETERS : [];
    return { engine, price: priceOfTask(task, given), outputUnitsMax: OUTPUT_UNITS_MAX, concurrency, parameters };
  });
}

async function foreignModels(given: InferenceSettings | undefined): Promise<MinerModel[]> {
  const url = inferenceSettings(given).inferenceBackend;
  if (url === '') return [];
  const { createOpenAiBackend } = await import('../inference/index.ts');
  const concurrency = countOf('inferenceConcurrency', given, 1024);
  return backendModels(given).map(({ task, id }) => ({
    engine: createOpenAiBackend({
      url,
      card: { id, task, licence: 'as its maker says', limits: ['Served by a backend of the miner’s choice.'] },
    }),
    price: priceOfTask(task, given),
    outputUnitsMax: 4096,
    concurrency,
    parameters: ['tools', 'response_format', 'seed', 'logprobs', 'frequency_penalty', 'presence_penalty'],
  }));
}

/** Base units of the network's token. */
function earningsOf(receiver: Receiver): { earned: bigint; claimed: bigint } {
  const channels = [...receiver.channels()];
  return {
    earned: channels.reduce((sum, { charged }) => sum + charged, 0n),
    claimed: channels.reduce((sum, { claimed }) => sum + claimed, 0n),
  };
}
