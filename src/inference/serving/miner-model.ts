import type { EvidenceClass } from '../../chain/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Engine, TaskType } from '../engines/engine.ts';
import type { OfferedModel } from './offer.ts';
import type { ModelPrice } from './price.ts';
import { createQueue, type Queue } from './queue.ts';

/** A model as its miner serves it. */
export interface MinerModel {
  engine: Engine;
  price: ModelPrice;
  /** The most output of one request; more is cut to it. */
  outputUnitsMax: number;
  /** Requests worked on at once. */
  concurrency: number;
  /** Requests that may wait; default four times as many. */
  waitingMax?: number;
  /** Requests of one payer, running and waiting; default all. */
  perPayerMax?: number;
  quantization?: string;
  /** Parameters that it honours besides the plain ones, e.g. `tools`, `response_format`, `seed`. */
  parameters?: readonly string[];
}

/** A served model with its queue. */
export interface OpenModel extends MinerModel {
  queue: Queue;
}

/** The models of a miner by name. */
export interface ModelTable {
  all(): Iterable<OpenModel>;
  /** The model of that name for that task; the only one for it where no name is given. @throws unknown-model, wrong-task */
  find(name: unknown, task: TaskType): OpenModel;
}

/** Puts a queue before every model. */
export function createModelTable(models: readonly MinerModel[]): ModelTable {
  const byId = new Map<string, OpenModel>();
  for (const model of models) {
    const waiting = model.waitingMax ?? 4 * model.concurrency;
    const perPayer = model.perPayerMax ?? model.concurrency + waiting;
    byId.set(model.engine.card.id, { ...model, queue: createQueue({ running: model.concurrency, waiting, perPayer }) });
  }
  return {
    all: () => byId.values(),
    find(name, task) {
      const fitting = [...byId.values()].filter((model) => model.engine.card.task === task);
      if ((name === undefined || name === null || name === '') && fitting.length === 1) return fitting[0] as OpenModel;
      const found = typeof name === 'string' ? byId.get(name) : undefined;
      if (found === undefined) throw unknownModel(name, fitting);
      if (found.engine.card.task === task) return found;
      throw new MillraceError('wrong-task', {
        actor: 'caller',
        message: `The model ${found.engine.card.id} is for ${found.engine.card.task}, not for ${task}`,
        values: { parameter: 'model', got: found.engine.card.id, expected: task },
        hint: 'GET /v1/models lists what each model does.',
      });
    },
  };
}

/** How strong the evidence behind a model's answers can be: what validators can do with a request that they may run again. */
export function evidenceOf(engine: Engine, replayAllowed = true): EvidenceClass {
  const { determinism } = engine.card;
  if (!replayAllowed || determinism === 'none') return 'reputation only';
  return determinism === 'exact' ? 'replayed' : 'fingerprinted';
}

/** A model's line in the miner's offer. */
export function offeredModel(model: MinerModel): OfferedModel {
  const { engine, price } = model;
  const { card } = engine;
  return {
    id: card.id,
    root: card.root,
    task: card.task,
    ...price,
    contextTokens: BigInt(card.contextTokens ?? 0),
    outputUnitsMax: BigInt(model.outputUnitsMax),
    concurrency: BigInt(model.concurrency),
    evidence: evidenceOf(engine),
    quantization: model.quantization ?? 'unknown',
    parameters: (model.parameters ?? []).join(','),
  };
}

/** A model as `GET /v1/models` shows it: OpenAI's fields, and ours besides. */
export function listedModel(model: MinerModel, owner: string): Record<string, unknown> {
  const { engine, price } = model;
  const { card } = engine;
  return {
    id: card.id,
    object: 'model',
    created: 0,
    owned_by: owner,
    millrace: {
      ...card,
      state: engine.state(),
      evidence: evidenceOf(engine),
      price: {
        unit: price.unit,
        inputPerMillion: price.inputPerMillion.toString(),
        outputPerMillion: price.outputPerMillion.toString(),
        perRequest: price.perRequest.toString(),
      },
    },
  };
}

function unknownModel(name: unknown, fitting: readonly MinerModel[]): MillraceError {
  const shown = String(name).slice(0, 80);
  return new MillraceError('unknown-model', {
    actor: 'caller',
    message: `The model ${shown} is not served here`,
    values: { parameter: 'model', got: shown, expected: fitting.map(({ engine }) => engine.card.id).slice(0, 16) },
    hint: 'GET /v1/models lists the models.',
  });
}
